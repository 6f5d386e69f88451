"""Graph + precision + relu spec + batch -> Plan: the steps that the three roles run one after the other, with their declared cost.

Everything here is a function of public things, so that all parties make the same plan on their own.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ..errors import InputError
from ..protocol import local
from ..protocol.cost import Cost
from ..protocol.linear import Linear
from ..protocol.local import Cut
from ..protocol.max_pool import MaxPool
from ..protocol.relu import OPS, Relu
from ..protocol.steps import CUT, RAW, REDUCED, InputStep, LinearStep, LocalStep, MaxPoolStep, OutputStep, ReluStep, Step, Value
from ..protocol.terminals import Input, Output
from .ir import Graph, Node
from .precision import MAX_TRUNCATION, Precision

Sizes = Mapping[str, tuple[tuple[int, int], ...]]
"""Patch sizes of every channel, by relu name."""


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
        return sum(step.protocol.decisions * (2 if step.protocol.clip else 1) for step in self.steps if step.kind in ("relu", "clip"))

    @property
    def linear(self) -> list[LinearStep]:
        """The steps that have weights."""
        return [step for step in self.steps if isinstance(step, LinearStep)]


def _elements(value: Value) -> int:
    n, c, h, w = value.shape
    return n * c * h * w


def fingerprint(graph: Graph, precision: Precision, sizes: Sizes | None) -> str:
    """SHA-256 (hex) of everything public that the parties must agree on."""
    spec = {name: [list(s) for s in sizes[name]] for name in sorted(sizes)} if sizes else None
    text = json.dumps([graph.to_json(), precision.to_plain(), spec], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def schedule(graph: Graph, precision: Precision, sizes: Sizes | None = None, batch: int = 1) -> Plan:
    """The plan for `batch` images at once. Raises InputError, naming the node, for what the ring or the window cannot hold."""
    return _Scheduler(graph, precision, sizes or {}, batch).plan()


class _Scheduler:
    def __init__(self, graph: Graph, precision: Precision, sizes: Sizes, batch: int):
        self.graph, self.precision, self.sizes, self.batch = graph, precision, sizes, batch
        self.bits, self.fraction = precision.bits, precision.fraction
        self.steps: list[Step] = []
        self.op = 0
        self.held: dict[str, str] = {}  # node name -> name of the value that stands for it
        self.values: dict[str, Value] = {}

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

    def _append(self, step_type, node: Node, name: str, sources: list[str], value: Value, ops: int, kind: str | None = None, **rest) -> str:
        inputs = tuple(self.values[s] for s in sources)
        self.steps.append(step_type(name, kind or node.kind, self.op, tuple(sources), inputs, value, **rest))
        self.op += ops
        self.values[name] = value
        self.held[node.name] = name
        return name

    def _opened(self, value: Value) -> tuple[int, int]:
        """(shift, cut) that bring a value to the activations' fraction."""
        shift = value.fraction - self.fraction
        if value.form == CUT:
            return 0, value.bits
        if value.form == RAW:
            return shift, self.bits - shift
        return 0, self.bits - min(self.fraction, MAX_TRUNCATION)

    def _reduce(self, name: str) -> str:
        """A value in reduced form; a raw or cut one is truncated once, for all that read it later."""
        value = self.values[name]
        if value.form == REDUCED:
            return name
        node = next(n for n in self.graph.nodes if self.held.get(n.name) == name)
        also = [n for n, held in self.held.items() if held == name]
        if value.form == RAW and not 1 <= value.fraction - self.fraction <= MAX_TRUNCATION:
            raise InputError(f"{node.name}: a truncation by {value.fraction - self.fraction} bits is outside 1 to {MAX_TRUNCATION}")
        shift, cut = self._opened(value)
        relu = Relu(self.op, value.shape, value.bits, shift, cut, self.bits, 0, 1, sizes=((0, 1),) * value.shape[1])
        result = Value(value.shape, REDUCED, self.fraction, self.bits)
        truncated = self._append(ReluStep, node, f"{name}/truncation", [name], result, OPS, kind="truncation", protocol=relu)
        self.held.update(dict.fromkeys(also, truncated))
        return truncated

    # One method for each kind of node

    def _input(self, node: Node) -> None:
        shape = self._shape(node)
        self._append(InputStep, node, node.name, [], Value(shape, REDUCED, self.fraction, self.bits), 1, protocol=Input(self.op, shape, self.bits))

    def _conv(self, node: Node) -> None:
        source = self._reduce(self._inputs(node)[0])
        channels, a = self.values[source].shape[1], node.attrs
        weight_shape = (node.shape[0], channels // a["groups"], *a["kernel"])
        geometry = [tuple(a[key]) for key in ("stride", "padding", "dilation")]
        fraction = self.values[source].fraction + self.precision.of_weights(node.name)
        protocol = Linear(self.op, self._shape(node), weight_shape, *geometry, a["groups"], self.bits)
        self._append(LinearStep, node, node.name, [source], Value(self._shape(node), RAW, fraction, self.bits), 1, protocol=protocol)

    def _relu(self, node: Node, clip: float | None = None) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        if value.form == RAW and not 1 <= value.fraction - self.fraction <= MAX_TRUNCATION:
            source = self._reduce(source)
            value = self.values[source]
        shift, cut = self._opened(value)
        truncated = self.bits - cut
        first, width = self.precision.comparison(shift, cut, truncated)
        unit = 1 << first
        bound = None if clip is None else round(clip * 2**self.fraction / unit) * unit
        relu = Relu(self.op, value.shape, value.bits, shift, cut, self.bits, first, width, self.sizes.get(node.name), bound)
        self._append(ReluStep, node, node.name, [source], Value(value.shape, REDUCED, self.fraction, self.bits), OPS, protocol=relu)

    def _clip(self, node: Node) -> None:
        self._relu(node, node.attrs["max"])

    def _maxpool(self, node: Node) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        shift, cut = self._opened(value)
        a = node.attrs
        pool = MaxPool(self.op, value.shape, a["kernel"], a["stride"], a["padding"], a["dilation"], cut)
        result = Value(self._shape(node), CUT, self.fraction, cut)
        self._append(MaxPoolStep, node, node.name, [source], result, pool.ops, protocol=pool, cut=Cut(value.bits, shift, cut))

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
        self._append(LocalStep, node, node.name, names, value, 0, apply=partial(local.add, lefts=lefts))

    def _concat(self, node: Node) -> None:
        names, lefts, value = self._aligned(node)
        shapes = [self.values[n].shape for n in names]
        self._append(LocalStep, node, node.name, names, value, 0, apply=partial(local.concat, lefts=lefts, shapes=shapes))

    def _avgpool(self, node: Node) -> None:
        source = self._inputs(node)[0]
        divisor, a = node.attrs["divisor"], node.attrs
        if self.values[source].form == CUT or (divisor != 1 and self.values[source].form == RAW):
            source = self._reduce(source)
        value = self.values[source]
        apply, fraction, form = partial(_pool, a["kernel"], a["stride"], a["padding"], self._shape(node)), value.fraction, value.form
        if divisor != 1:
            # the factor's fractional bits go with the next truncation, so the result is no longer reduced
            factor = round(2**self.fraction / divisor)
            apply, fraction, form = partial(_average, apply, factor), fraction + self.fraction, RAW
        self._append(LocalStep, node, node.name, [source], Value(self._shape(node), form, fraction, self.bits), 0, apply=apply)

    def _reshape(self, node: Node) -> None:
        self._in_place(node, partial(local.reshape, shape=self._shape(node)))

    def _resize(self, node: Node) -> None:
        self._in_place(node, partial(local.broadcast, shape=self._shape(node)))

    def _in_place(self, node: Node, apply) -> None:
        (source,) = self._inputs(node)
        value = self.values[source]
        result = Value(self._shape(node), value.form, value.fraction, value.bits)
        self._append(LocalStep, node, node.name, [source], result, 0, apply=partial(_first, apply))

    def _output(self, node: Node) -> None:
        (source,) = self._inputs(node)
        if self.values[source].form == CUT:
            source = self._reduce(source)
        value = self.values[source]
        protocol = Output(self.op, _elements(value), self.bits, max(0, value.fraction - self.fraction))
        self._append(OutputStep, node, node.name, [source], value, 1, protocol=protocol)


def _first(apply, inputs):
    return apply(inputs[0])


def _pool(kernel, stride, padding, shape, inputs):
    return local.window_sums(inputs[0], kernel, stride, padding, shape)


def _average(pool, factor, inputs):
    return local.multiply(pool(inputs), factor)
