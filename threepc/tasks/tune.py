"""`threepc tune`: the cheapest arithmetic that loses at most a given share of a network's labels, found with the cleartext twin.

Settings are ring, fractional bits and window of signs. Their cost is what the plan declares; what they lose is counted on the user's images,
against PyTorch. The search starts from the default and goes through the rings from the narrowest on. For each ring and fraction it takes all
bits that can matter first, and then fewer: the window's top is what the measured values need, with the margin to spare, and its lowest bit
is found by bisection, because more ignored bits lose more. A setting that costs as much as one that holds is not looked at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from threepc.choices import NETWORKS, RINGS
from threepc.console import Display
from threepc.errors import InputError
from threepc.files import check_writable, write_atomically
from threepc.graph.outputs import joined
from threepc.images.card import ModelCard
from threepc.model.assemble import Assembled, Imported, Settings, plain_outputs, ranges_of
from threepc.model.load import load_model
from threepc.model.served import Outputs, PublicModel, each
from threepc.plan.bounds import bounds
from threepc.plan.calibration import MARGIN_BITS, least_fraction
from threepc.plan.headroom import Ranges, measure, room
from threepc.plan.precision import FRACTION, MAX_TRUNCATION, WIDEST_WINDOW, Precision
from threepc.plan.twin import pack, simulate
from threepc.tasks.inputs import Inputs, check_files, load_inputs
from threepc.tasks.results import compare

DEFAULT_RING = 48
CONFIDENCE = 0.95


@dataclass(frozen=True)
class TuneOptions:
    """What `threepc tune` is told. loss: the share of labels that may be lost, 0 to 1. seed: of the chance that roundings have.

    network: one of `threepc.choices.NETWORKS` whose time decides what is cheap; "none" for bytes. The rest is as `threepc run` has it.
    """

    config: str
    checkpoint: Path | None
    images: tuple[Path, ...]
    loss: float = 0.01
    network: str = "none"
    seed: int = 0
    batch: int = 8
    size: tuple[int, int] | None = None
    relu_spec: Path | None = None
    calibration: tuple[Path, ...] = ()
    margin: int = MARGIN_BITS
    threads: int = 1
    report: Path | None = None

    def settings(self, ring: int, fraction: int, window: tuple[int, int] | None) -> Settings:
        """All that the parties agree on."""
        return Settings(ring, fraction, window, self.relu_spec, "logits", self.calibration, self.margin)


@dataclass(frozen=True)
class Tried:
    """One setting, what an image costs with it, and what it loses.

    window: bits [LOW, HIGH) of a product, None for all that can matter. bytes by phase, of one image over all links. seconds: that the network
    takes to carry them one after the other, and its delays; 0 where none was named. lost: the sum over the `images` looked at of the share
    of each one's labels that differ; a setting that loses too many is left before the last. error: the largest difference of an output, as a part of
    the largest of PyTorch's; labels may hold where it is large. refused: why it cannot be, if so.
    """

    ring: int
    fraction: int
    window: tuple[int, int] | None
    offline: int = 0
    online: int = 0
    messages: int = 0
    seconds: float = 0.0
    images: int = 0
    lost: float = 0.0
    error: float = 0.0
    refused: str | None = None

    @property
    def price(self) -> tuple[float, int, int]:
        """What is compared: time where a network was named, bytes, messages."""
        return self.seconds, self.offline + self.online, self.messages

    @property
    def words(self) -> list[str]:
        """The options of `threepc run` that say it."""
        window = [] if self.window is None else ["--drelu-window", "{}:{}".format(*self.window)]
        return ["--ring", str(self.ring), "--frac-bits", str(self.fraction), *window]

    def to_plain(self, most: float) -> dict[str, Any]:
        """As JSON-plain data. most: the sum of lost labels up to which it holds."""
        plain: dict[str, Any] = {"ring_bits": self.ring, "frac_bits": self.fraction, "drelu_window": self.window and list(self.window)}
        if self.refused is not None:
            return plain | {"refused": self.refused}
        plain |= {"bytes": {"offline": self.offline, "online": self.online}, "messages_online": self.messages, "seconds": self.seconds}
        return plain | {"images": self.images, "lost": self.lost, "relative_error": self.error, "holds": self.lost <= most}


@dataclass(frozen=True)
class Tuning:
    """What came of a search. tried: in the order of the search, the default first. whole: an image has one label, or none is told from others."""

    options: TuneOptions
    model: str
    images: int
    whole: bool
    tried: list[Tried]
    best: Tried | None

    @property
    def most(self) -> float:
        """How many images may lose their label."""
        return self.options.loss * self.images

    @property
    def share_at_most(self) -> float | None:
        """The share that the best setting may lose of all images like these, with a confidence of 95 %; None where an image has many labels."""
        return None if self.best is None or not self.whole else largest_share(round(self.best.lost), self.images)

    @property
    def images_needed(self) -> int | None:
        """How many images without any lost label would show the wanted share with that confidence; None where no number would."""
        return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-self.options.loss)) if 0 < self.options.loss < 1 else None

    @property
    def command(self) -> list[str]:
        """The command that runs images with the best setting."""
        if self.best is None:
            return []
        given = self.options
        words = ["threepc", "run", given.config, *([str(given.checkpoint)] if given.checkpoint else []), *self.best.words]
        words += ["--margin", str(given.margin)] if given.margin != MARGIN_BITS else []
        words += ["--relu-spec", str(given.relu_spec)] if given.relu_spec else []
        words += ["--size", "{}x{}".format(*given.size)] if given.size else []
        words += ["--calibration", *map(str, given.calibration)] if given.calibration else []
        return [*words, "--input", "IMAGE"]

    def to_plain(self) -> dict[str, Any]:
        """As JSON-plain data."""
        return {
            "model": self.model,
            "images": self.images,
            "loss": self.options.loss,
            "network": self.options.network,
            "ranges_of": ranges_of(Settings(calibration=self.options.calibration)),
            "tried": [tried.to_plain(self.most) for tried in self.tried],
            "best": self.best and self.best.to_plain(self.most),
            "share_at_most": self.share_at_most,
            "confidence": CONFIDENCE,
            "images_needed": self.images_needed,
            "command": self.command,
        }


def tune(options: TuneOptions, display: Display) -> Tuning:
    """Search, and write the report that is wanted. Raises InputError for images and model, and where no ring holds the network."""
    with display.stage("reading the images"):
        check_files(options.images)
    check_writable(options.report)
    with display.stage("loading the model"):
        loaded = load_model(options.config, options.checkpoint, size=options.size)
        inputs = load_inputs(options.images, loaded.card, Precision.default(max(RINGS)), loaded.preprocessing.shape)
    with display.stage("importing the network"):
        imported = Imported.of(loaded.module, torch.zeros(loaded.example_shape), options.relu_spec)
    with display.stage("trying settings in the clear") as tell:
        plain = each(plain_outputs(imported, torch.from_numpy(inputs.pixels), options.batch))
        ranges = measure(imported.graph, imported.weights, inputs.pixels, imported.sizes)
        search = _Search(options, imported, loaded.card, inputs, plain, ranges, tell)
        search.go()
    tuning = Tuning(options, loaded.name, len(inputs), search.whole, list(search.tried.values()), search.best)
    if options.report is not None:
        write_atomically(options.report, (json.dumps(tuning.to_plain(), indent=1, allow_nan=False) + "\n").encode())
    return tuning


@dataclass
class _Search:
    """The search's state. plain, ranges: PyTorch's outputs for the images, and how large the values get with them.

    tried: by ring, fraction and window; best: the cheapest so far that holds.
    """

    options: TuneOptions
    imported: Imported
    card: ModelCard
    inputs: Inputs
    plain: tuple[np.ndarray, ...]
    ranges: Ranges
    tell: Callable[[str], None]
    tried: dict[tuple[int, int, tuple[int, int] | None], Tried] = field(default_factory=dict)
    best: Tried | None = None
    whole: bool = True

    def go(self) -> None:
        """The default, and then all that may be cheaper."""
        rings = [DEFAULT_RING, *sorted(RINGS)]
        for default, ring in zip([True] + [False] * len(RINGS), rings, strict=True):
            usual = FRACTION[ring]
            for fraction in (usual,) if default else (usual, usual - 2, usual + 2):
                if least_fraction(ring) <= fraction <= MAX_TRUNCATION:
                    self._look(ring, fraction, windows=not default)
        if all(tried.refused for tried in self.tried.values()):
            raise InputError(f"no setting suits this network and these images: {next(iter(self.tried.values())).refused}")

    def _look(self, ring: int, fraction: int, windows: bool) -> None:
        """The cheapest that holds of a ring and fraction, if it is cheaper than what is known."""
        try:
            exact = self._assembled(ring, fraction, None)
        except InputError as error:
            self.tried[ring, fraction, None] = Tried(ring, fraction, None, refused=str(error))
            return
        models = [exact.public, *(self._windows(ring, fraction) if windows else ())]
        cheaper = [model for model in models if self.best is None or self._priced(model).price < self.best.price]
        if not cheaper or not self._holds(cheaper[0]):
            return
        holds, fails = 0, len(cheaper)
        while fails - holds > 1:
            middle = (holds + fails) // 2
            holds, fails = (middle, fails) if self._holds(cheaper[middle]) else (holds, middle)

    def _assembled(self, ring: int, fraction: int, window: tuple[int, int] | None) -> Assembled:
        assembled = self.imported.assembled(self.card, self.options.settings(ring, fraction, window))
        self.inputs.check_range(assembled.public.card, "refuse", self.tell)
        return assembled

    def _windows(self, ring: int, fraction: int) -> Iterator[PublicModel]:
        """The network with ever fewer compared bits, each cheaper than the one before."""
        widest = (fraction, min(ring - 2, fraction + WIDEST_WINDOW))
        try:
            assembled = self._assembled(ring, fraction, widest)
        except InputError:  # smooth activations may need bits that no window has
            return
        needed = [
            math.ceil(math.log2(largest)) + self.options.margin + step.inputs[0].fraction
            for step, largest in _decisions(assembled, self.ranges)
        ]
        high, last = min(max(needed, default=0), ring - 2), None
        for low in range(fraction, high - 1):
            model = replace(assembled.public, precision=replace(assembled.public.precision, window=(low, high)))
            try:
                price = self._priced(model).price
            except InputError:
                continue
            if last is None or price < last:
                last = price
                yield model

    def _priced(self, model: PublicModel) -> Tried:
        cost, precision, network = model.plan(1).cost, model.precision, NETWORKS[self.options.network]
        offline, online, seconds = cost.total("offline"), cost.total("online"), 0.0
        if network is not None:
            seconds = 8 * (offline + online) / network.rate_bits_per_s + cost.messages * network.one_way_delay_s
        return Tried(precision.bits, precision.fraction, precision.window, offline, online, cost.messages, seconds)

    def _holds(self, model: PublicModel) -> bool:
        """Whether a setting loses few enough labels; noted, and the best if it is."""
        priced = self._priced(model)
        key = priced.ring, priced.fraction, priced.window
        if key not in self.tried:
            self.tell(f"{len(self.tried) + 1}. setting: {' '.join(priced.words)}")
            try:
                self.tried[key] = self._simulated(model, priced)
            except InputError as error:
                self.tried[key] = replace(priced, refused=str(error))
        tried = self.tried[key]
        held = tried.refused is None and tried.lost <= self.options.loss * len(self.inputs)
        if held and (self.best is None or tried.price < self.best.price):
            self.best = tried
        return held

    def _simulated(self, model: PublicModel, tried: Tried) -> Tried:
        """Every image, or as many as it takes to lose too many. Raises InputError, naming the layer, where it cannot hold their values."""
        for name, (largest, bits) in room(model.plan(1), self.ranges).items():
            if bits < 0:
                raise InputError(f"{name}: values up to {largest:.3g} do not fit")
        weights, lost, error, done = pack(model.plan(1), self.imported.weights), 0.0, 0.0, 0
        for images in self.inputs.batches(self.options.batch):
            found = simulate(model.plan(len(images)), weights, images, seed=self.options.seed, threads=self.options.threads)
            outputs = model.network_outputs(joined(model.graph, [found[node.name] for node in model.graph.outputs]))
            comparison = compare(model, outputs, self._expected(model, done, len(images)), 0.0)
            self.whole = self.whole and not isinstance(outputs, tuple) and comparison.classes.ndim == 1
            lost += float((1 - comparison.agreement).sum())
            error = max(error, comparison.relative_error)
            done += len(images)
            if lost > self.options.loss * len(self.inputs):
                break
        return replace(tried, images=done, lost=lost, error=error)

    def _expected(self, model: PublicModel, start: int, count: int) -> Outputs:
        parts = tuple(output[start : start + count] for output in self.plain)
        return parts[0] if model.graph.returns_tensor else parts


def _decisions(assembled: Assembled, ranges: Ranges) -> Iterator[tuple[Any, float]]:
    """The steps that decide signs, and the largest sum that each decides on, of the calibration images and of the user's."""
    plan = assembled.public.plan(1)
    steps = {step.name: step for step in plan.steps}
    for bound in bounds(plan):
        largest = max(ranges.of(bound), assembled.ranges.of(bound))
        if bound.decided and largest:
            yield steps[bound.step], largest


def largest_share(lost: int, images: int) -> float:
    """The share p of all images of which at most `lost` of `images` show up with a probability of 5 %: Clopper and Pearson's upper bound."""
    if lost >= images:
        return 1.0
    logs = [math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in range(lost + 1)]
    below, above = lost / images, 1.0
    for _ in range(60):
        p = (below + above) / 2
        chance = math.fsum(math.exp(log + k * math.log(p) + (images - k) * math.log1p(-p)) for k, log in enumerate(logs))
        below, above = (p, above) if chance > 1 - CONFIDENCE else (below, p)
    return above
