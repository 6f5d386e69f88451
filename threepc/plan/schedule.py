"""Graph + precision + relu spec + batch -> Plan: the steps that the three roles run one after the other, with their declared cost.

Everything here is a function of public things, so that all parties make the same plan on their own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from threepc.choices import LABEL, LOGITS, REVEALS
from threepc.errors import InputError
from threepc.graph import relu_spec
from threepc.graph.ir import Graph, Node, Weights, weight_shape
from threepc.graph.relu_spec import Sizes
from threepc.kernels.gate import Cut
from threepc.plan.precision import MAX_TRUNCATION, Precision
from threepc.protocol import summands
from threepc.protocol.argmax import Argmax
from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Input, Output
from threepc.protocol.linear import Linear
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.relu import OPS, Relu
from threepc.protocol.steps import CUT, RAW, REDUCED, InputStep, LinearStep, LocalStep, MaxPoolStep, OutputStep, ReluStep, Step, Value
from threepc.protocol.summands import Summand
from threepc.ring import Ring

OUTPUT_BITS = 8
"""Bits above the point that a result keeps when its fraction grows by an average's divisor."""

# Limits on what a stranger's model may ask for, so that nothing is allocated for more; far above what the largest networks take.
MOST_OPS = 1 << 16
"""Addresses in the parties' streams; one has 24 bits for them."""
MOST_ELEMENTS = 1 << 30
"""Of one value, over the batch."""
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

    @property
    def cost(self) -> Cost:
        """Declared bytes by link and phase, and one-way online messages; setup once per model, the rest per inference."""
        return sum((step.cost for step in self.steps), Cost())

    @property
    def relus(self) -> int:
        """Activations that pass a ReLU or clip, over the batch."""
        return sum(_elements(step.result) for step in self.steps if step.kind in ("relu", "clip"))

    @property
    def drelus(self) -> int:
        """Decisions that ReLUs and clips make, over the batch; max pooling apart."""
        return sum(step.drelus for step in self.steps)

    @property
    def linear(self) -> list[LinearStep]:
        """The steps that have weights."""
        return [step for step in self.steps if isinstance(step, LinearStep)]

    def encoded_weights(self, weights: Weights) -> Iterator[tuple[LinearStep, np.ndarray, np.ndarray]]:
        """Every linear step with its weights (O, C / groups, kh, kw) and its biases (O,) as ring words, the biases at the product's scale.

        One layer is encoded at a time. Raises InputError, naming the layer, for what does not fit the ring.
        """
        ring = Ring(self.precision.bits)
        for step in self.linear:
            own = weights[step.name]
            words = ring.encode(own["weight"], self.precision.of_weights(step.name), f"the weights of {step.name}")
            yield step, words, ring.encode(own["bias"], step.result.fraction, f"the bias of {step.name}")


def _elements(value: Value) -> int:
    n, c, h, w = value.shape
    return n * c * h * w


def fingerprint(graph: Graph, precision: Precision, sizes: Sizes | None, reveal: str = LOGITS) -> str:
    """SHA-256 (hex) of everything public that the parties must agree on."""
    spec = {name: [list(s) for s in sizes[name]] for name in sorted(sizes)} if sizes else None
    text = json.dumps([graph.to_json(), precision.to_plain(), spec, reveal], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def schedule(
    graph: Graph, precision: Precision, sizes: Sizes | None = None, batch: int = 1, reveal: str = LOGITS, draft: bool = False
) -> Plan:
    """The plan for `batch` images at once. reveal: "logits", or "label" for their argmax over the channels.

    draft: a try of calibration's, whose clips may not fit yet and whose cost nobody asks for.

    Raises InputError, naming the node, for what the ring or the window cannot hold, for patch sizes or fractional bits of what the graph
    does not have, and for more than the limits above.
    """
    if reveal not in REVEALS:
        raise InputError(f"reveal: must be {' or '.join(REVEALS)}, not {reveal!r:.80}")
    _check_names(graph, precision, sizes or {})
    plan = _Scheduler(graph, precision, sizes or {}, batch, reveal, draft).plan()
    if draft:
        return plan
    total = sum(8 * _elements(step.result) for step in plan.steps) + sum(map(plan.cost.total, ("setup", "offline", "online")))
    if total > MOST_BYTES:
        raise InputError(f"the model needs {total >> 30:,} GB for {batch} images at once; at most {MOST_BYTES >> 30:,} are possible")
    return plan


def _check_names(graph: Graph, precision: Precision, sizes: Sizes) -> None:
    """What is keyed by name, and what the kernels of block ReLUs trust: one patch a channel, none larger than the map."""
    kinds = {node.name: node.kind for node in graph.nodes}
    for what, names, allowed in (("relu spec", sizes, ("relu", "clip")), ("precision", precision.weight_fraction, ("conv",))):
        for name in names:
            if kinds.get(name) not in allowed:
                raise InputError(f"{what}: {name!r:.80} is no {' or '.join(allowed)} of this network")
    for name, layer in sizes.items():
        relu_spec.check_layer("relu spec", graph[name], relu_spec.patch_sizes("relu spec", name, layer))


class _Scheduler:
    def __init__(self, graph: Graph, precision: Precision, sizes: Sizes, batch: int, reveal: str, draft: bool) -> None:
        self.draft = draft
        self.graph, self.precision, self.sizes, self.batch, self.reveal = graph, precision, sizes, batch, reveal
        self.readers = graph.consumers()
        self.bits, self.fraction = precision.bits, precision.fraction
        self.steps: list[Step] = []
        self.op = 0
        self.held: dict[str, str] = {}  # node name -> name of the value that stands for it
        self.values: dict[str, Value] = {}
        self.settled: dict[str, int] = {}  # the fractional bits that a value has once it is truncated, by its name

    def plan(self) -> Plan:
        for node in self.graph.nodes:
            getattr(self, f"_{node.kind}")(node)
        last = {source: i for i, step in enumerate(self.steps) for source in step.sources}
        release = tuple(tuple(s for s in dict.fromkeys(step.sources) if last[s] == i) for i, step in enumerate(self.steps))
        return Plan(self.graph, self.precision, self.batch, tuple(self.steps), release)

    # The pieces

    def _inputs(self, node: Node) -> list[str]:
        return [self.held[name] for name in node.inputs]

    def _shape(self, node: Node) -> tuple[int, int, int, int]:
        return (self.batch, *node.shape)

    def _append(
        self, make: Callable[..., Step], node: Node, name: str, sources: list[str], value: Value, ops: int, kind: str = "", **own: Any
    ) -> str:
        """Add a step whose result stands for the node from now on; returns the result's name. Raises InputError for one beyond the limits."""
        inputs = tuple(self.values[s] for s in sources)
        if value.form == RAW:  # a truncation removes 16 bits at most: what weights of many bits bring beyond stays
            self.settled[name] = max(self.fraction, value.fraction - MAX_TRUNCATION)
        else:
            self.settled[name] = max((self.settled[s] for s in sources), default=value.fraction)
        if name in self.values:
            raise InputError(f"{name}: the name of two steps; rename the module")
        if value.fraction > self.bits - 2:
            raise InputError(f"{name}: {value.fraction} fractional bits do not fit a ring of {self.bits} bits")
        if _elements(value) > MOST_ELEMENTS:
            raise InputError(
                f"{name}: {_elements(value):,} numbers for {self.batch} images at once; at most {MOST_ELEMENTS:,} are possible"
            )
        if self.op + ops > MOST_OPS:
            raise InputError(f"{name}: the model takes more than {MOST_OPS:,} protocols")
        self.steps.append(make(name, kind or node.kind, self.op, tuple(sources), inputs, value, **own))
        self.op += ops
        self.values[name] = value
        self.held[node.name] = name
        return name

    def _opened(self, name: str) -> Cut:
        """The cut that brings a value to its settled fraction. Raises InputError where a gate cannot lift what remains."""
        value = self.values[name]
        shift = value.fraction - self.settled[name]
        if not 0 <= shift <= MAX_TRUNCATION or (value.form == RAW and shift == 0):
            raise InputError(f"{name}: a truncation by {shift} bits is outside 1 to {MAX_TRUNCATION}")
        if value.form == CUT:
            return Cut(value.bits, 0, value.bits)
        # as many bits are lifted as a product's truncation removes, unless an average of very many values removes more
        lifted = shift if value.form == RAW else max(shift, min(self.fraction, MAX_TRUNCATION))
        return Cut(value.bits, shift, self.bits - lifted)

    def _reduce(self, name: str) -> str:
        """A value in reduced form at its settled fraction; any other is truncated once, for all that read it later."""
        value = self.values[name]
        if value.form == REDUCED and value.fraction == self.settled[name]:
            return name
        readers = [n for n, held in self.held.items() if held == name]
        through = (relu_spec.IDENTITY,) * value.shape[1]
        relu = Relu(self.op, value.shape, self._opened(name), self.bits, 0, 1, sizes=through)
        result = Value(value.shape, REDUCED, self.settled[name], self.bits)
        node = self.graph[readers[0]]
        truncated = self._append(ReluStep, node, f"{name}/truncation", [name], result, OPS, kind="truncation", protocol=relu)
        self.held.update(dict.fromkeys(readers, truncated))
        return truncated

    def _ends_here(self, node: Node) -> bool:
        """Whether nothing but the output reads a node, flattened or not."""
        return all(reader.kind == "output" or (reader.kind == "reshape" and self._ends_here(reader)) for reader in self.readers[node.name])

    # One method for each kind of node

    def _input(self, node: Node) -> None:
        shape = self._shape(node)
        self._append(
            InputStep,
            node,
            node.name,
            [],
            Value(shape, REDUCED, self.precision.of_input, self.bits),
            1,
            protocol=Input(self.op, shape, self.bits),
        )

    def _conv(self, node: Node) -> None:
        (source,) = self._inputs(node)
        value, own = self.values[source], self.precision.of_weights(node.name)
        fits = value.fraction + own + OUTPUT_BITS <= self.bits - 2
        if value.form != REDUCED or (value.fraction != self.settled[source] and not (fits and self._ends_here(node))):
            source = self._reduce(source)
            value = self.values[source]
        a, shape = node.attrs, self._shape(node)
        geometry: dict[str, Any] = {key: tuple(a[key]) for key in ("stride", "padding", "dilation")}
        protocol = Linear(self.op, shape, weight_shape(self.graph, node), groups=a["groups"], bits=self.bits, **geometry)
        self._append(LinearStep, node, node.name, [source], Value(shape, RAW, value.fraction + own, self.bits), 1, protocol=protocol)
        # what an average brought and no truncation has removed goes too
        removed = MAX_TRUNCATION + value.fraction - self.settled[source]
        self.settled[node.name] = max(self.fraction, value.fraction + own - removed)

    def _relu(self, node: Node, clip: float | None = None) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        cut = self._opened(source)
        low_bit, width = self.precision.comparison(cut.kept_bits)
        unit, fraction = 1 << low_bit, self.settled[source]
        if clip is not None and not self.draft and clip * 2**fraction >= 1 << (cut.kept_bits - 2):
            raise InputError(f"{node.name}: a clip at {clip:g} is beyond the numbers of a ring of {self.bits} bits: make it a relu")
        bound = None if clip is None else round(clip * 2**fraction / unit) * unit
        relu = Relu(self.op, value.shape, cut, self.bits, low_bit, width, self.sizes.get(node.name), bound)
        self._append(ReluStep, node, node.name, [source], Value(value.shape, REDUCED, fraction, self.bits), OPS, protocol=relu)

    def _clip(self, node: Node) -> None:
        self._relu(node, node.attrs["max"])

    def _maxpool(self, node: Node) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        cut = self._opened(source)
        a = node.attrs
        try:
            pool = MaxPool(self.op, value.shape, a["kernel"], a["stride"], a["padding"], a["dilation"], cut.kept_bits)
        except ValueError as error:
            raise InputError(f"{node.name}: {error}; use less padding") from None
        result = Value(self._shape(node), CUT, self.settled[source], cut.kept_bits)
        self._append(MaxPoolStep, node, node.name, [source], result, pool.ops, protocol=pool, cut=cut)

    def _aligned(self, node: Node) -> tuple[list[str], list[int], Value]:
        """Inputs of a sum or concatenation, the shifts that bring them to one scale, and the result's description."""
        for name in self._inputs(node):
            if self.values[name].form == CUT and name in self.held.values():
                self._reduce(name)
        names = self._inputs(node)
        values = [self.values[n] for n in names]
        fraction = max(v.fraction for v in values)
        form = REDUCED if all(v.form == REDUCED for v in values) else RAW
        return names, [fraction - v.fraction for v in values], Value(self._shape(node), form, fraction, self.bits)

    def _add(self, node: Node) -> None:
        names, lefts, value = self._aligned(node)
        self._append(LocalStep, node, node.name, names, value, 0, apply=partial(summands.add, lefts=lefts))

    def _concat(self, node: Node) -> None:
        names, lefts, value = self._aligned(node)
        shapes = [self.values[n].shape for n in names]
        self._append(LocalStep, node, node.name, names, value, 0, apply=partial(summands.concat, lefts=lefts, shapes=shapes))

    def _avgpool(self, node: Node) -> None:
        (source,) = self._inputs(node)
        a, divisor = node.attrs, node.attrs["divisor"]
        power = max(0, math.ceil(math.log2(divisor)))
        value = self.values[source]
        grows_too_long = value.fraction + power - self.settled[source] > MAX_TRUNCATION  # for the truncation that comes some time
        if value.form == CUT or (divisor != 2**power and value.form == RAW) or grows_too_long:
            source = self._reduce(source)
        value = self.values[source]
        # a sum of n values, read with log2(n) more fractional bits, is their average
        averaged = Value(self._shape(node), value.form, value.fraction + power, self.bits)
        geometry = {key: a[key] for key in ("kernel", "stride", "padding")}
        pool = partial(_first, summands.window_sums, shape=averaged.shape, **geometry)
        name = self._append(LocalStep, node, node.name, [source], averaged, 0, apply=pool)
        if divisor != 2**power:
            source = self._reduce(name)
            factor = round(2 ** (self.fraction + power) / divisor)
            scaled = Value(averaged.shape, RAW, self.values[source].fraction + self.fraction, self.bits)
            self._append(LocalStep, node, f"{name}/scale", [source], scaled, 0, apply=partial(_first, summands.multiply, factor=factor))

    def _reshape(self, node: Node) -> None:
        self._in_place(node, partial(summands.reshape, shape=self._shape(node)))

    def _resize(self, node: Node) -> None:
        self._in_place(node, partial(summands.broadcast, shape=self._shape(node)))

    def _in_place(self, node: Node, apply: Callable[[Summand], Summand]) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        result = Value(self._shape(node), value.form, value.fraction, value.bits)
        self._append(LocalStep, node, node.name, [source], result, 0, apply=partial(_first, apply))
        self.settled[node.name] = self.settled[source]

    def _output(self, node: Node) -> None:
        (source,) = self._inputs(node)
        if self.values[source].form == CUT:
            source = self._reduce(source)
        value = self.values[source]
        if self.batch * node.shape[0] * math.prod(node.attrs.get("resize", [])[:2]) > MOST_ELEMENTS:
            raise InputError(f"{node.name}: resized, the result has more than {MOST_ELEMENTS:,} numbers for {self.batch} images at once")
        # the low bits that do not count are as many whatever the weights' bits, and so are the bytes
        shift = value.fraction - self.settled[source]
        if self.reveal == LABEL:
            argmax = Argmax(self.op, value.shape, self.bits, shift)
            self._append(OutputStep, node, node.name, [source], value, argmax.ops, kind="argmax", protocol=argmax)
            return
        protocol = Output(self.op, _elements(value), self.bits, shift)
        self._append(OutputStep, node, node.name, [source], value, 1, protocol=protocol)


def _first(apply: Callable[..., Summand], inputs: Sequence[Summand], **arguments: Any) -> Summand:
    return apply(inputs[0], **arguments)
