"""A torch module, a relu spec and a ring, assembled into what a server serves."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from threepc.choices import AUTO, AUTO_ONLINE, NETWORKS, RELU_MESSAGES, read_links
from threepc.errors import InputError
from threepc.graph import relu_spec as relu_specs
from threepc.graph.block_relu import apply_spec
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph, Weights
from threepc.graph.modes import outputs_of
from threepc.graph.outputs import reveal_text, revealed
from threepc.graph.passes import standard_passes
from threepc.images.card import ModelCard
from threepc.images.read import load_images
from threepc.model.limits import check_windows
from threepc.model.load import LoadedModel
from threepc.model.served import Outputs, PublicModel, ServedModel, concatenated, each
from threepc.plan import messages
from threepc.plan.calibration import MARGIN_BITS, default_images
from threepc.plan.error import LARGEST, Expected, choose_by_error
from threepc.plan.headroom import Ranges, measure, room
from threepc.plan.narrowing import narrow
from threepc.plan.precision import FRACTION, NARROW, Precision

ARTIFICIAL_IMAGES = {bits: 8 if bits <= NARROW else 2 for bits in FRACTION}
"""How many artificial images stand in where the server has none of its own, by ring; few where there is room to spare."""


@dataclass(frozen=True)
class Settings:
    """What the parties agree on besides the network.

    ring: bits. fraction: fractional bits of activations, None for what suits the ring. window: bits (LO, HI) of a product that decide a
    sign, None for all that can matter. relu_spec: a file, a spec, or None where every ReLU is plain. reveal: "logits" or "label",
    of several outputs as `threepc.graph.outputs.revealed` takes it.
    calibration: images of the server's (never a client's) with which every layer's range is measured: files, or real numbers (N, C, H, W);
    () for artificial ones. margin: bits by which a layer's values may be larger than with these.
    allow_error: results may be further off than `threepc.plan.error.REFUSED`, see `warn_of_error`.
    relu_messages: one of `threepc.choices.RELU_MESSAGES`; "auto" takes what `network` and `links` say, as a run does, for `batch` images at once, and
    "auto-online" what they say of the online phase alone. most_dealt: bytes that "auto-online" may have the provider send for these images.
    links: rates of the parties' hosts, by which the plan chooses whom the provider tells what, too; see `PublicModel.balanced`.
    """

    ring: int = 48
    fraction: int | None = None
    window: tuple[int, int] | None = None
    relu_spec: relu_specs.ReluSpec | Path | str | None = None
    reveal: str = "logits"
    calibration: tuple[Path, ...] | np.ndarray = ()
    margin: int = MARGIN_BITS
    relu_messages: str = "4"
    network: str = "none"
    links: str = ""
    batch: int = 1
    most_dealt: float = math.inf
    allow_error: bool = False

    @property
    def stated_links(self) -> messages.Links:
        """What is said of the links between the parties."""
        return messages.Links(NETWORKS[self.network], read_links(self.links))

    @property
    def precision(self) -> Precision:
        """The precision before any calibration. Raises InputError for a ring, fraction or window that is none."""
        usual = Precision.default(self.ring)
        precision = dataclasses.replace(usual, fraction=self.fraction or usual.fraction, window=self.window)
        _ = precision.product_window  # refuses a window of which nothing is left
        return precision


@dataclass(frozen=True)
class Imported:
    """A torch module as a graph with its weights, passes done, and the relu spec that it is to have: what is the same in every ring.

    example: zeros shaped as its input (1, C, H, W). sizes: patches of the block ReLUs, by name.
    """

    module: nn.Module
    example: torch.Tensor
    graph: Graph
    weights: Weights
    spec: relu_specs.ReluSpec | None
    sizes: relu_specs.Sizes

    @classmethod
    def of(cls, module: nn.Module, example: torch.Tensor, spec: relu_specs.ReluSpec | Path | str | None) -> Imported:
        """Raises InputError, naming the layer, for an unsupported operation and a spec of another model."""
        if isinstance(spec, str | Path):
            spec = relu_specs.load(spec)
        graph, weights = import_module(module, example)
        sizes: dict[str, tuple[tuple[int, int], ...]] = {}
        if spec is not None:
            relu_specs.check(spec, graph)
            layers = {name: tuple((int(h), int(w)) for h, w in patches) for name, patches in spec.layers.items()}
            sizes = {name: patches for name, patches in layers.items() if set(patches) != {relu_specs.PLAIN}}
        return cls(module, example, *standard_passes(graph, weights, frozenset(sizes)), spec, sizes)

    def plaintext(self) -> nn.Module:
        """The same network in PyTorch, block ReLUs included. Raises InputError where a ReLU of the spec is no module."""
        if self.spec is None:
            return self.module
        return apply_spec(copy.deepcopy(self.module), self.spec, self.example)

    def assembled(self, card: ModelCard, settings: Settings, tell: Callable[[str], object] = lambda _word: None) -> Assembled:
        """With what else the parties agree on. tell: takes a word on how far that has come, where it takes long.

        Raises InputError, naming the layer, for what the ring cannot hold.
        """
        graph, sizes = self.graph, self.sizes
        reveals = revealed(graph, settings.reveal)
        check_windows(card, graph, reveals)
        images = _calibration_images(settings, card)
        ranges = measure(graph, self.weights, images, sizes)
        if card.input_limit is None:
            limit = max(2 * ranges.values[graph.input.name], card.preprocessing.largest_input)
            card = dataclasses.replace(card, input_limit=limit or None)
        usual = Precision(settings.ring, window=settings.window)
        precision, expected = choose_by_error(graph, self.weights, images, ranges, usual, settings.margin, sizes, settings.fraction, tell)
        precision = narrow(graph, ranges, precision, settings.margin, sizes)
        told = dataclasses.replace(card, expected_error=_two_digits(expected.error), expected_images=_tried(expected, settings))
        public = with_messages(PublicModel(graph, precision, sizes or None, told, reveal_text(reveals)), settings)
        public = public.balanced(settings.network, settings.links).cut_for(settings.network, settings.links)
        public.plan(1)
        return Assembled(ServedModel(public, self.weights), self, ranges, expected)


@dataclass(frozen=True)
class Assembled:
    """A model to serve, the module it came from, what the server keeps to itself, its layers' ranges, and the error to expect."""

    served: ServedModel
    imported: Imported
    ranges: Ranges
    expected: Expected

    @property
    def public(self) -> PublicModel:
        """What all parties know of it."""
        return self.served.public

    @property
    def spec_source(self) -> str | None:
        """Where the relu spec came from, for reports."""
        return None if self.imported.spec is None else self.imported.spec.source


def assemble(
    module: nn.Module, example: torch.Tensor, card: ModelCard, settings: Settings, tell: Callable[[str], object] = lambda _word: None
) -> Assembled:
    """Import a module for inputs shaped as `example` (N, C, H, W) and check that spec, ring and window suit it. tell: see `Imported.assembled`.

    Raises InputError, naming the layer, for an unsupported operation, a spec of another model, and what the ring cannot hold.
    """
    _ = settings.precision  # refuses ring, fraction and window before anything is traced
    return Imported.of(module, example, settings.relu_spec).assembled(card, settings, tell)


def with_messages(model: PublicModel, settings: Settings) -> PublicModel:
    """The model with the layers that are to take two or six messages. Raises InputError where these depend on links of which nothing is said."""
    if settings.relu_messages not in RELU_MESSAGES:
        raise InputError(f"relu-messages: must be one of {', '.join(RELU_MESSAGES)}, not {settings.relu_messages!r:.80}")
    if settings.relu_messages == "4":
        return model
    two = dataclasses.replace(model, quick=messages.candidates(model.graph))
    six = dataclasses.replace(model, late=messages.candidates(model.graph, messages.LATE_KINDS))
    if settings.relu_messages not in (AUTO, AUTO_ONLINE):
        return two if settings.relu_messages == "2" else six
    if settings.network == "none":
        raise InputError(f"relu-messages: {settings.relu_messages} needs a network whose delay decides: say --network, or take 4, 2 or 6")
    # as they are going to be run
    plans = [made.cut_for(settings.network, settings.links).plan(settings.batch) for made in (model, two, six)]
    names = [step.name for step in plans[0].steps]
    four, *others = ([step.cost for step in plan.steps] for plan in plans)
    if settings.relu_messages == AUTO:
        quick, late = messages.cheapest(four, others, names, settings.stated_links)
    else:
        quick, late = messages.shortest_online(four, others, names, settings.stated_links, settings.most_dealt)
    return dataclasses.replace(model, quick=quick, late=late)


def _two_digits(error: float) -> float | None:
    """An error for the card; the rest of its digits is chance. None where the network itself gave NaN or infinity."""
    return float(f"{error:.2g}") if math.isfinite(error) else None


def _tried(expected: Expected, settings: Settings) -> str:
    """On what the error to expect was measured."""
    given, count = len(settings.calibration), expected.images
    return f"{count} of {given} calibration image{'s' * (given > 1)}" if given else f"{count} artificial images"


def _calibration_images(settings: Settings, card: ModelCard) -> np.ndarray:
    given = settings.calibration
    if isinstance(given, np.ndarray):
        return given
    if given:
        return load_images(given, card.preprocessing)
    return default_images(card.preprocessing, ARTIFICIAL_IMAGES[settings.ring])


def assemble_loaded(loaded: LoadedModel, settings: Settings, tell: Callable[[str], object] = lambda _word: None) -> Assembled:
    """As `assemble`, of a model that a CONFIG named."""
    return assemble(loaded.module, torch.zeros(loaded.example_shape), loaded.card, settings, tell)


def plain_outputs(network: Imported, images: torch.Tensor, batch: int) -> Outputs:
    """What PyTorch says to images (N, C, H, W), in the clear, `batch` at a time: float64, as `PublicModel.network_outputs` gives it."""
    module = network.plaintext()
    outputs = concatenated([module_outputs(module, part) for part in torch.split(images, batch)])
    return each(outputs)[0] if network.graph.returns_tensor else outputs


def module_outputs(module: nn.Module, images: torch.Tensor) -> tuple[np.ndarray, ...]:
    """PyTorch's outputs one by one, float64, numbers for classes as (N, K). Raises InputError where they are not finite."""
    arrays = [tensor.double().numpy() for tensor in tree_leaves(outputs_of(module, images))]
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("the plaintext network itself gives NaN or infinity for these images")
    return tuple(array.reshape(array.shape[:2]) if array[0, 0].size == 1 else array for array in arrays)


def introduction(assembled: Assembled, loaded: LoadedModel, settings: Settings) -> list[str]:
    """Lines that say what is about to run."""
    plan, precision = assembled.public.plan(1), assembled.public.precision
    decisions = "" if plan.drelus == plan.relus else f" on {plan.drelus:,} decisions"
    ring = f"{precision.bits}-bit ring, {precision.fraction} fractional bits"
    lines = [f"{loaded.name}, {loaded.weights_source}", f"{plan.relus:,} ReLUs an image{decisions}; {ring}, {precision.signs}"]
    if loaded.assumed_card:
        height, width = loaded.preprocessing.size
        lines.append(
            f"{loaded.name} has no model_card: images are prepared as most networks for ImageNet take them ({height}x{width}, ImageNet's mean"
            f" and deviation); {loaded.card_advice} to say otherwise"
        )
    if assembled.public.is_varied:
        counts = ("two", assembled.public.quick), ("six", assembled.public.late)
        layers = " and ".join(f"{len(names)} layers take {count} messages a ReLU" for count, names in counts if names)
        lines.append(f"{layers}; {plan.cost.messages} one-way online messages in all")
    return [*lines, *_ranges_lines(assembled, settings)]


def ranges_of(settings: Settings) -> str:
    """What the layers' ranges are measured with."""
    given = len(settings.calibration)
    return f"{given} calibration image{'s' * (given > 1)}" if given else "artificial images (no calibration images given)"


def _ranges_lines(assembled: Assembled, settings: Settings) -> list[str]:
    """What the ranges were measured with, and which layer has least room."""
    rooms = room(assembled.public.plan(1), assembled.ranges)
    name = min(rooms, key=lambda step: rooms[step][1])
    usual, fraction = Precision.default(settings.ring).fraction, assembled.public.precision.fraction
    chosen = f"{fraction} fractional bits of activations fit best, instead of the usual {usual} (--frac-bits to choose)"
    return [
        f"ranges measured with {ranges_of(settings)}",
        *([chosen] if settings.fraction is None and fraction != usual else []),
        f"scales leave {settings.margin} bits of margin; least room: {rooms[name][1]:.1f} bits, at {name}",
        f"error to expect: {100 * assembled.expected.error:.2g} % of the largest result, on {assembled.expected.images} of these images",
    ]


def warn_of_error(assembled: Assembled, allow_error: bool, warn: Callable[[str], object]) -> None:
    """Warn where results will be further off than they should be.

    Raises InputError where they will be so far off that nobody should rely on them, unless that is allowed.
    """
    line = doubt(assembled)
    if line and assembled.expected.is_refused and not allow_error:
        raise InputError(f"{line}; to go on nevertheless allow it: {ALLOWING}")
    if line:
        warn(line)


ALLOWING = "--allow-error, allow_error: true in models.yaml, allow_error=True in Python"


def doubt(assembled: Assembled) -> str:
    """What must not be overlooked where results will be further off than they should be; else empty."""
    bits, expected = assembled.public.precision.bits, assembled.expected
    if not expected.exceeds(bits):
        return ""
    changed = f", {100 * expected.changed:.2g} % of the classes will be others" if expected.changed else ""
    wider = [str(ring) for ring in sorted(LARGEST) if ring > bits]
    advice = f"take a larger ring ({' or '.join(wider)} bits)" if wider else "the network enlarges every rounding"
    return (
        f"results will be off by about {100 * expected.error:.2g} % of the largest one{changed}, and more with some images; in a ring of {bits} bits"
        f" at most {100 * LARGEST[bits]:g} % is usual: {advice}, and compare with plaintext PyTorch before relying on them"
    )
