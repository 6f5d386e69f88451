"""Graph + precision + relu spec + batch -> Plan: the steps that the three roles run one after the other, with their declared cost.

Everything here is a function of public things, so that all parties make the same plan on their own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.choices import LABEL, LOGITS
from threepc.errors import InputError
from threepc.graph import relu_spec
from threepc.graph.activations import takes_patches
from threepc.graph.ir import Graph, Weights, holder
from threepc.graph.outputs import revealed
from threepc.graph.relu_spec import Sizes
from threepc.plan.layers import LAYERS
from threepc.plan.messages import LATE_KINDS, QUICK_KINDS
from threepc.plan.precision import Precision
from threepc.plan.scheduler import Scheduler, elements
from threepc.protocol.cost import Cost
from threepc.protocol.steps import InputStep, LinearStep, OutputStep, ProductStep, ReluStep, Step, SumStep, Value
from threepc.ring import Ring, word_of

DECIDING = ("relu", "clip", "bend", "rectify", "smooth", "maxpool")
"""Kinds of nodes with decisions; an output decides where its label is revealed."""

MOST_BYTES = 1 << 40
"""Of all values and all messages of one inference, and of the masked weights."""


@dataclass(frozen=True)
class Plan:
    """Steps in order; release[i] names the values not needed after step i."""

    graph: Graph
    precision: Precision
    batch: int
    steps: tuple[Step, ...]
    release: tuple[tuple[str, ...], ...]

    @cached_property
    def cost(self) -> Cost:
        """Declared bytes by link and phase, and one-way online messages; setup once per model, the rest per inference."""
        return sum((step.cost for step in self.steps), Cost())

    @property
    def relus(self) -> int:
        """Activations that pass a ReLU or another bend, over the batch."""
        return sum(elements(step.inputs[0]) for step in self.steps if step.kind in ("relu", "clip", "bend", "rectify"))

    @property
    def drelus(self) -> int:
        """Decisions that ReLUs and clips make, over the batch; max pooling apart."""
        return sum(step.drelus for step in self.steps)

    @property
    def linear(self) -> list[LinearStep]:
        """The steps that have weights."""
        return [step for step in self.steps if isinstance(step, LinearStep)]

    @property
    def holding(self) -> list[LinearStep]:
        """Of these, those whose weights are not an earlier one's: what is masked and sent."""
        return [step for step in self.linear if step.weights == step.name]

    @cached_property
    def before_results(self) -> int:
        """The index of the last step before which the client has nothing of any result."""
        return next((index for index, step in enumerate(self.steps) if isinstance(step, OutputStep)), len(self.steps)) - 1

    @cached_property
    def most_bytes_of_a_step(self) -> int:
        """Of one phase, over all links."""
        return max((max(step.cost.total("offline"), step.cost.total("online")) for step in self.steps), default=0)

    @cached_property
    def held_bytes(self) -> int:
        """Bytes that a party holds at most for one inference, weights and what is dealt further ahead apart.

        These are the values that are still to be used, what travels for one step, and what is drawn and opened for it; whatever a party does at
        a step, it holds no more than the server, to which both others send, and what the client keeps for products and ReLUs.
        """
        held: dict[str, int] = {}
        most, live = 0, self._kept_for_layers
        coming, lingering = False, 0  # after a layer by rows: what its successors were computed from, until the next layer has begun
        for step, released in zip(self.steps, self.release, strict=True):
            held[step.name] = size = _bytes(step.result)
            live, cost = live + size, step.cost
            most = max(most, live + lingering + 2 * sum(map(_bytes, step.inputs)) + cost.total("offline") + 2 * cost.total("online"))
            freed = sum(held.pop(name) for name in released)
            live -= freed
            coming = cost.rows > 0 or (coming and isinstance(step, LinearStep | SumStep))
            lingering = lingering + freed if coming and not cost.rows else 0
        return most

    @cached_property
    def kept_bytes(self) -> int:
        """Bytes that a client keeps of an inference's offline phase for its online phase: masks of inputs and outputs, and what products and some ReLUs need."""
        masks = sum(_bytes(step.result) for step in self.steps if isinstance(step, InputStep | OutputStep))
        return masks + self._kept_for_layers

    @cached_property
    def _kept_for_layers(self) -> int:
        of_products = sum(_bytes(value) for step in self.steps if isinstance(step, ProductStep) for value in step.inputs)
        return of_products + sum(step.protocol.kept_bytes for step in self.steps if isinstance(step, ReluStep))

    def encoded_weights(self, weights: Weights) -> Iterator[tuple[LinearStep, np.ndarray | None, np.ndarray]]:
        """Every linear step with its weights (O, C / groups, kh, kw), None where they are an earlier step's, and its biases (O,), as ring words.

        The biases are at the product's scale.

        One layer is encoded at a time. Raises InputError, naming the layer, for what does not fit the ring.
        """
        ring = Ring(self.precision.bits)
        for step in self.linear:
            own, words = weights[step.name], None
            if step.weights == step.name:
                words = ring.encode(own["weight"], self.precision.of_weights(step.name), f"the weights of {step.name}")
            yield step, words, ring.encode(own["bias"], step.result.fraction, f"the bias of {step.name}")


def fingerprint(
    graph: Graph,
    precision: Precision,
    sizes: Sizes | None,
    reveal: str = LOGITS,
    quick: Sequence[str] = (),
    to_client: Sequence[str] = (),
    piece: int = 0,
    late: Sequence[str] = (),
) -> str:
    """SHA-256 (hex) of everything public that the parties must agree on."""
    spec = {name: [list(s) for s in sizes[name]] for name in sorted(sizes)} if sizes else None
    chosen = [
        *([sorted(quick)] if quick else []),
        *([{"to_client": sorted(to_client)}] if to_client else []),
        *([{"piece": piece}] if piece else []),
        *([{"late": sorted(late)}] if late else []),
    ]
    text = json.dumps([graph.to_json(), precision.to_plain(), spec, reveal, *chosen], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def schedule(  # noqa: PLR0913 - all that the parties agree on of a plan
    graph: Graph,
    precision: Precision,
    sizes: Sizes | None = None,
    batch: int = 1,
    reveal: str = LOGITS,
    draft: bool = False,
    quick: Sequence[str] = (),
    to_client: Sequence[str] = (),
    *,
    piece: int = 0,
    late: Sequence[str] = (),
) -> Plan:
    """The plan for `batch` images at once. reveal: "logits", or "label" for their argmax over the channels; see `outputs.revealed` for several.

    draft: a try of calibration's, whose clips may not fit yet and whose cost nobody asks for. quick: the layers whose ReLUs take two messages; late: those whose take six.
    piece: layers of more numbers are run in pieces of about so many, see protocol/pieces.py; 0 for none.
    to_client: layers that decide, of which the client, and not the server, is told its share of what is dealt for the decisions.

    Raises InputError, naming the node, for what the ring or the window cannot hold, for patch sizes, fractional bits or two or six messages of what
    the graph does not have, and for more than the limits above.
    """
    reveals = {node.name: what for node, what in zip(graph.outputs, revealed(graph, reveal), strict=True)}
    _check_names(graph, precision, sizes or {}, quick, late)
    _check_told(set(deciding(graph, reveal)).difference(quick), to_client)
    scheduler = Scheduler(
        graph, precision, sizes or {}, batch, reveals, draft, frozenset(quick), frozenset(to_client), piece=piece, late=frozenset(late)
    )
    for node in graph.nodes:
        LAYERS[node.kind](scheduler, node)
    plan = Plan(graph, precision, batch, tuple(scheduler.steps), _release(scheduler.steps))
    if draft:
        return plan
    total = sum(8 * elements(step.result) for step in plan.steps) + sum(map(plan.cost.total, ("setup", "offline", "online")))
    if total > MOST_BYTES:
        raise InputError(f"the model needs {total >> 30:,} GB for {batch} images at once; at most {MOST_BYTES >> 30:,} are possible")
    return plan


def _bytes(value: Value) -> int:
    return math.prod(value.shape) * (4 if word_of(value.bits) is np.uint32 else 8)


def _release(steps: Sequence[Step]) -> tuple[tuple[str, ...], ...]:
    last = {source: i for i, step in enumerate(steps) for source in step.sources}
    return tuple(tuple(s for s in dict.fromkeys(step.sources) if last[s] == i) for i, step in enumerate(steps))


def deciding(graph: Graph, reveal: str) -> list[str]:
    """Names of the layers with decisions."""
    of_outputs = zip(graph.outputs, revealed(graph, reveal), strict=True)
    return [node.name for node in graph.nodes if node.kind in DECIDING] + [node.name for node, what in of_outputs if what == LABEL]


def _check_told(can_be: set[str], to_client: Sequence[str]) -> None:
    for name in to_client:
        if name not in can_be:
            raise InputError(f"dealing to the client: {name!r:.80} is no layer of this network that decides in four messages")
    if len(set(to_client)) < len(to_client):
        raise InputError("dealing to the client: a layer is named twice")


def _check_names(graph: Graph, precision: Precision, sizes: Sizes, quick: Sequence[str], late: Sequence[str]) -> None:
    """What is keyed by name, and what the kernels of block ReLUs trust: one patch a channel, none larger than the map."""
    kinds = {node.name: node.kind for node in graph.nodes}
    relus = {node.name for node in graph.nodes if takes_patches(node.kind, node.attrs)}
    for name in sizes:
        if kinds.get(name) in ("relu", "clip") and name not in relus:
            raise InputError(f"relu spec: {name!r:.80} is a clip that does not start from 0, and has no patches")
    of_layers = (
        ("relu spec", sizes, ("relu", "clip")),
        ("precision", precision.weight_fraction, ("conv",)),
        ("precision", precision.compared, ("relu", "clip", "bend", "rectify", "maxpool")),
        ("precision", precision.early, ("relu", "clip")),
        ("two messages", quick, QUICK_KINDS),
        ("six messages", late, LATE_KINDS),
    )
    for what, names, allowed in of_layers:
        for name in names:
            if kinds.get(name) not in allowed:
                raise InputError(f"{what}: {name!r:.80} is no {' or '.join(allowed)} of this network")
    for name in set(quick).intersection(late):
        raise InputError(f"six messages: {name!r:.80} takes two")
    for name in precision.weight_fraction:
        if holder(graph[name]) != name:
            raise InputError(f"precision: {name!r:.80} has the weights of {holder(graph[name])!r:.80}, and their fractional bits")
    for name, layer in sizes.items():
        relu_spec.check_layer("relu spec", graph[name], relu_spec.patch_sizes("relu spec", name, layer))
