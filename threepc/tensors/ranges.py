"""How large the numbers of a job may get: sound interval arithmetic over its graph, against what each step of its plan can hold.

Every node has one interval for all its numbers, as the ring computes them: roundings are inside. It starts from the limits that are stated for inputs,
and from those that the author assumes. What only adds in the ring may wrap on the way; what decides, truncates, or is revealed must hold its
value. Floats, rounded outwards; an interval that they cannot hold, or that is not known, is the WHOLE line, which no step holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds, kinks
from threepc.graph.ir import Graph, Node, signs
from threepc.graph.smooth import RANGE, SMOOTH
from threepc.model.served import PublicModel
from threepc.plan.activations import FEWEST_SLOPE_BITS
from threepc.plan.bounds import Bound, bounds, node_of
from threepc.plan.pieces import pieces
from threepc.plan.precision import FRACTION
from threepc.plan.schedule import Plan
from threepc.protocol.argmax import Argmax
from threepc.protocol.steps import InputStep, LocalStep, OutputStep, PublicStep, ServerInputStep, ServerOutputStep
from threepc.tensors.recording import named

OUTWARDS = 2.0**-30
"""Of a bound, what it grows by in every operation: more than a float64 sum of 65,536 terms is off by, and than a bit's truth is off by."""

ROUNDING = 2
"""Units in the last place by which a truncated value may differ from what was truncated."""


_NEARLY = 2.0**-20
"""By which the bounds of a bit may be outside of 0 and 1."""


class Interval(NamedTuple):
    """All numbers from low to high."""

    low: float
    high: float

    @property
    def size(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


WHOLE = Interval(-math.inf, math.inf)


def outwards(low: float, high: float, by: float = 0.0) -> Interval:
    """The interval, a little larger, and by so much."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return WHOLE
    return Interval(low - abs(low) * OUTWARDS - by, high + abs(high) * OUTWARDS + by)


def times(one: Interval, other: Interval) -> Interval:
    """Of the products of numbers of the two."""
    ends = [a * b for a in one for b in other]
    return WHOLE if any(map(math.isnan, ends)) else outwards(min(ends), max(ends))


def check(model: PublicModel, places: Mapping[str, str] | None = None) -> None:
    """Raises InputError where a number of a job may be too large for its ring, by what is stated of its inputs and assumed by its author.

    places: where in the job's code each node was made, where that is known.
    """
    graph, plan = model.graph, model.plan(1)
    found, unit = intervals(graph, plan.precision.fraction), 2.0**-plan.precision.fraction
    for bound in _held(plan):
        largest = (_decided(graph[bound.node], found) if bound.decided else found[bound.node].size) + 2 * ROUNDING * unit
        if not largest < 2.0**bound.exponent:
            what = named(bound.node, places or {})
            reach = f"may reach {largest:.4g}" if math.isfinite(largest) else "may be any number"
            ring = f"a ring of {plan.precision.bits} bits with {plan.precision.fraction} fractional bits"
            raise InputError(
                f"{what} {reach} in size, and {ring} holds less than {2.0**bound.exponent:.4g} here: "
                "state smaller limits of inputs, take a wider ring or fewer fractional bits, or state what you know of it with assume()"
            )


def _held(plan: Plan) -> Iterator[Bound]:
    """The bounds of what does not only add, and of what is revealed."""
    adding = {step.name for step in plan.steps if isinstance(step, LocalStep | InputStep | PublicStep | ServerInputStep | ServerOutputStep)}
    yield from (bound for bound in bounds(plan) if bound.step not in adding)
    names = {node.name for node in plan.graph.nodes}
    for step in plan.steps:
        if isinstance(step, OutputStep | ServerOutputStep):
            (source,), (value,) = step.sources, step.inputs
            kept, shift = value.bits, 0
            if isinstance(step.protocol, Argmax):  # an index takes bits of a value's word
                kept, shift = step.protocol.cut.kept_bits, step.protocol.cut.shift
            yield Bound(step.name, source, node_of(names, source), False, kept - 2 - (value.fraction - shift))


def _decided(node: Node, found: Mapping[str, Interval]) -> float:
    """The largest of what a node's decisions see: as `headroom.observe` measures it."""
    source = found[node.inputs[0]]
    if node.kind == "smooth":
        table = pieces(node.attrs["function"], node.attrs["parameter"], max(FRACTION.values()))
        return source.size + table.span + abs(table.start)
    at = kinks(node.kind, node.attrs)
    return max(*(outwards(source.low - kink, source.high - kink).size for kink in at), *map(abs, at), at[-1] - at[0])


def intervals(graph: Graph, fraction: int) -> dict[str, Interval]:
    """By node. Raises InputError for what is no operation of a job, and for limits that say nothing."""
    unit, found = 2.0**-fraction, dict[str, Interval]()
    stated = _stated(graph, unit)
    for node in graph.nodes:
        inside, limit = _Rule(graph, found, unit).of(node), stated.get(node.name, math.inf)
        if inside.low > limit or inside.high < -limit:
            raise InputError(f"{node.name}: the job assumes at most {limit:.4g} of what is from {inside.low:.4g} to {inside.high:.4g}")
        found[node.name] = Interval(max(inside.low, -limit), min(inside.high, limit))
    return found


def _stated(graph: Graph, unit: float) -> dict[str, float]:
    """By node, what limits say of it: also of what they read, and of what that only moves."""
    stated: dict[str, float] = {}
    for node in reversed(graph.nodes):
        if node.kind == "limit":
            if "by" in node.attrs and not _is_brought(graph, graph[node.inputs[0]]):
                raise InputError(f"{node.name}: {node.attrs['by']:.80} does not bring {node.inputs[0]}, and cannot see to its limit")
            stated[node.name] = min(node.attrs["size"] + unit / 2, stated.get(node.name, math.inf))  # an owner rounds what it brings
        keeps_all = node.kind == "gather" and all(move[0] in ("reshape", "permute") for move in node.attrs["moves"])
        if node.name in stated and (node.kind == "limit" or keeps_all):
            (source,) = node.inputs
            stated[source] = min(stated[node.name], stated.get(source, math.inf))
    return stated


def _is_brought(graph: Graph, node: Node) -> bool:
    """Whether a node is an array that its owner brings: a part of the client's, one of the server's, or the sum of a data owner's two."""
    parts = [graph[name] for name in node.inputs] if node.kind == "add" and "signs" not in node.attrs else [node]
    return all(part.kind == "input" or (part.kind == "gather" and graph[part.inputs[0]].kind == "input") for part in parts)


@dataclass(frozen=True)
class _Rule:
    """What a node makes of the intervals that were found before; each is finite or WHOLE."""

    graph: Graph
    found: Mapping[str, Interval]
    unit: float

    def of(self, node: Node) -> Interval:
        """The interval of one node."""
        inputs = [self.found[name] for name in node.inputs]
        match node.kind:
            case "input":
                return WHOLE  # a share is any word
            case "constant":
                return Interval(float(self._encoded(node).min()), float(self._encoded(node).max()))
            case "limit" | "output":
                return inputs[0]
            case "gather":  # which may bring zeros
                return _hull(*inputs, Interval(0.0, 0.0))
            case "concat":
                return _hull(*inputs)
            case "maxpool":
                return self._read(node.inputs[0])
        rule = _RULES.get(node.kind)
        if rule is None:
            raise InputError(f"{node.name}: {node.kind} is no operation of a job")
        return WHOLE if WHOLE in inputs else rule(self, node)

    def _read(self, name: str) -> Interval:
        """Of what reads a value after its truncation, where there is one; what a clip gives is never truncated."""
        low, high = self.found[name]
        return Interval(low, high) if self.graph[name].kind in ("clip", "constant") else outwards(low, high, ROUNDING * self.unit)

    def _encoded(self, node: Node) -> np.ndarray:
        """The numbers of a constant, as words hold them."""
        rounded: np.ndarray = np.rint(np.array(node.attrs["values"]).reshape(node.shape) / self.unit) * self.unit
        return rounded

    def sum(self, node: Node) -> Interval:
        """Of terms with their signs."""
        if (chosen := self._chosen(node)) is not None:
            return chosen
        terms = [self.found[name] if sign > 0 else _minus(self.found[name]) for name, sign in zip(node.inputs, signs(node), strict=True)]
        try:
            low, high = (math.fsum(ends) for ends in zip(*terms, strict=True))
        except OverflowError:
            return WHOLE
        return outwards(low, high)

    def _chosen(self, node: Node) -> Interval | None:
        """Of `maximum`, `minimum` and `where`, as tensor.py makes them of a sum: they choose, and so do not grow."""
        if len(node.inputs) != 2:
            return None
        (first, second), sign = (self.graph[name] for name in node.inputs), signs(node)
        one, other = self._difference(second.inputs[0]) if second.kind == "relu" else ("", "")
        if sign == [1, 1] and other == first.name:  # other + relu(one - other)
            ends = [max(pair) for pair in zip(self.found[one], self.found[other], strict=True)]
        elif sign == [1, -1] and one == first.name:  # one - relu(one - other)
            ends = [min(pair) for pair in zip(self.found[one], self.found[other], strict=True)]
        elif sign == [1, 1] and first.kind == "multiply":  # bit * (one - other) + other
            one, other = self._difference(first.inputs[1])
            low, high = self.found[first.inputs[0]]
            if not one or self._number(other) != self._number(second.name) or low < -_NEARLY or high > 1 + _NEARLY:
                return None
            ends = [*_hull(self.found[one], self.found[other])]
        else:
            return None
        size = max(self.found[one].size, self.found[other].size)
        return outwards(ends[0], ends[1], 2 * ROUNDING * self.unit + 2 * _NEARLY * size)

    def _difference(self, name: str) -> tuple[str, str]:
        """What a node subtracts from what; "", "" for any other."""
        node = self.graph[name]
        return (node.inputs[0], node.inputs[1]) if node.kind == "add" and signs(node) == [1, -1] else ("", "")

    def _number(self, name: str) -> str:
        """The node itself, or the single number that it repeats."""
        node = self.graph[name]
        if node.kind != "gather" or self.graph[node.inputs[0]].shape != (1, 1, 1):
            return name
        repeats = all(move[0] == "reshape" or (move[0] == "take" and move[2:4] == [0, 0]) for move in node.attrs["moves"])
        return node.inputs[0] if repeats else name

    def average(self, node: Node) -> Interval:
        """Of windows, or their sum."""
        attrs, (low, high) = node.attrs, self._read(node.inputs[0])
        count, divisor = math.prod(attrs["kernel"]), attrs["divisor"]
        low, high = count * low / divisor, count * high / divisor
        if any(attrs["padding"]):
            low, high = min(low, 0.0), max(high, 0.0)
        return outwards(low, high, self.unit * max(abs(low), abs(high)))  # the divisor is rounded

    def product(self, node: Node) -> Interval:
        """Of two arrays, hidden or known, elementwise or as matrices."""
        names = [name for name in node.inputs if self.graph[name].kind == "constant"]
        depth = self.graph[node.inputs[0]].shape[2] if node.kind == "matmul" else 1
        if names and node.kind == "matmul":
            known, left = self._encoded(self.graph[names[0]]), names[0] == node.inputs[0]
            low, high = self._read(node.inputs[left])
            above, below = (part.sum(2 if left else 1) for part in (np.maximum(known, 0), np.minimum(known, 0)))
            return outwards(float((above * low + below * high).min()), float((above * high + below * low).max()))
        one, other = map(self._read, node.inputs)
        low, high = times(one, other)
        if node.kind == "multiply" and node.inputs[0] == node.inputs[1]:
            low = 0.0 if one.low <= 0 <= one.high else min(abs(one.low), abs(one.high)) * min(abs(one.low), abs(one.high))
        return outwards(depth * low, depth * high, 0.0 if names else ROUNDING * self.unit)

    def relu(self, node: Node) -> Interval:
        """What is above 0."""
        return Interval(0.0, max(0.0, self._read(node.inputs[0]).high))

    def clip(self, node: Node) -> Interval:
        """Within its bounds, each to the next unit."""
        if "to" in node.attrs:
            return outwards(min(node.attrs["to"]), max(node.attrs["to"]), ROUNDING * self.unit)
        given, (low, high) = self._read(node.inputs[0]), clip_bounds(node.attrs)
        low, high = min(low, round(low / self.unit) * self.unit), max(high, round(high / self.unit) * self.unit)
        return Interval(min(max(given.low, low), high), min(max(given.high, low), high))

    def bend(self, node: Node) -> Interval:
        """Straight on either side."""
        given, (below, above), at = self._read(node.inputs[0]), node.attrs["slopes"], node.attrs.get("at", 0.0)
        ends = [at + (x - at) * (below if x < at else above) for x in (*given, min(max(at, given.low), given.high))]
        coarse = 0.0 if below.is_integer() and above.is_integer() else 2.0**-FEWEST_SLOPE_BITS * (given.size + abs(at))
        return outwards(min(ends), max(ends), ROUNDING * self.unit + coarse)

    def smooth(self, node: Node) -> Interval:
        """A straight part, where there is one, and a curve of a bounded size."""
        function, (low, high) = node.attrs["function"], self._read(node.inputs[0])
        table, own = pieces(function, node.attrs["parameter"], round(-math.log2(self.unit))), SMOOTH[function]
        start = table.start if own.fold == RANGE else 0.0
        straight = own.fold != RANGE or own.rising
        low, high = (max(low - start, 0.0), max(high - start, 0.0)) if straight else (0.0, 0.0)
        return outwards(low, high, table.largest + 2 * ROUNDING * self.unit)


_RULES: dict[str, Callable[[_Rule, Node], Interval]] = {
    "add": _Rule.sum,
    "avgpool": _Rule.average,
    "multiply": _Rule.product,
    "matmul": _Rule.product,
    "relu": _Rule.relu,
    "clip": _Rule.clip,
    "bend": _Rule.bend,
    "smooth": _Rule.smooth,
}


def _hull(*parts: Interval) -> Interval:
    return Interval(min(part.low for part in parts), max(part.high for part in parts))


def _minus(interval: Interval) -> Interval:
    return Interval(-interval.high, -interval.low)
