"""Smooth activations in a plan: a straight part by a ReLU, the clamped argument by a clip, the curve by a lookup, and its lift to the ring."""

from __future__ import annotations

from functools import partial
from math import ceil, log2

from threepc.errors import InputError
from threepc.graph.ir import Node
from threepc.graph.smooth import BELOW, RANGE, SMOOTH
from threepc.kernels.gate import Cut
from threepc.plan.pieces import GUARD_BITS, Pieces, pieces
from threepc.plan.precision import MAX_TRUNCATION
from threepc.plan.scheduler import Scheduler
from threepc.protocol import summands
from threepc.protocol.lookup import MOST_BITS, Lookup
from threepc.protocol.relu_layer import OPS
from threepc.protocol.steps import CUT, REDUCED, ConstantStep, LocalStep, LookupStep, ReluStep, Value


def smooth(at: Scheduler, node: Node) -> None:
    """The steps of one activation; those before the last are named NODE/PART."""
    (source,) = at.inputs(node)
    if at.values[source].form == CUT:
        source = at.reduce(source)
    own, fraction = SMOOTH[node.attrs["function"]], min(at.settled[source], at.fraction)
    table = pieces(node.attrs["function"], node.attrs["parameter"], fraction)
    straight = own.fold != RANGE or own.rising
    if own.fold == RANGE:
        source = _shifted(at, node, source, -table.start)
    relu = _decided(at, node, "relu", source) if straight else ""
    if own.fold != RANGE:
        source = _sum(at, node, "size", (relu, source), (0 if own.fold == BELOW else 2, -1))
    clamped = _decided(at, node, "clamp", source, table.span)
    curve = _lookup(at, node, f"{node.name}/curve" if straight else node.name, clamped, table)
    if straight:
        _sum(at, node, "", (relu, at.reduce(curve)), (1, 1))
    elif at.settled[curve] > at.fraction:
        at.reduce(curve)
    at.settled[at.held[node.name]] = at.fraction


def _shifted(at: Scheduler, node: Node, source: str, constant: float) -> str:
    value = at.values[source]
    word = round(constant * 2.0**value.fraction) % (1 << value.bits)
    name = at.append(ConstantStep, node, f"{node.name}/shifted", [source], value, 0, apply=partial(summands.add_constant, constant=word))
    at.settled[name] = at.settled[source]
    return name


def _decided(at: Scheduler, node: Node, part: str, source: str, clip: float | None = None) -> str:
    """ReLU of a value, or its clip."""
    value, cut, fraction = at.values[source], at.opened(source), at.settled[source]
    low_bit, width = at.precision.comparison(cut.kept_bits)
    bound = None
    if clip is not None:  # an end that the values' bits cannot express is one that they do not reach
        bound = min(round(clip * 2.0**fraction), (1 << cut.kept_bits - 2) - 1) >> low_bit << low_bit
    relu = at.relu(node, width)(at.op, value.shape, cut, at.bits, low_bit, width, None, bound)
    result = Value(value.shape, REDUCED, fraction, at.bits)
    return at.append(ReluStep, node, f"{node.name}/{part}", [source], result, OPS, kind="smooth", protocol=relu)


def _sum(at: Scheduler, node: Node, part: str, sources: tuple[str, ...], factors: tuple[int, ...]) -> str:
    """The sum of factor * value, at the largest scale among them; settled as what was settled longest."""
    names = [name for name, factor in zip(sources, factors, strict=True) if factor]
    values = [at.values[name] for name in names]
    longest = max(value.fraction for value in values)
    form = next((value.form for value in values if value.form != REDUCED), REDUCED)
    scaled = [factor << longest - value.fraction for factor, value in zip(filter(None, factors), values, strict=True)]
    settled, result = max(at.settled[name] for name in names), Value(values[0].shape, form, longest, at.bits)
    name = f"{node.name}/{part}" if part else node.name
    at.append(LocalStep, node, name, names, result, 0, apply=partial(summands.add_signed, factors=scaled))
    at.settled[name] = settled
    return name


def _lookup(at: Scheduler, node: Node, name: str, source: str, table: Pieces) -> str:
    """The curve, in a cut ring that a truncation lifts. Raises InputError where the comparison is too coarse for the table's rows."""
    value, low = at.values[source], table.fraction + table.width_bits
    low_bit, _ = at.precision.comparison(at.bits - MAX_TRUNCATION)
    if low_bit >= low:
        raise InputError(f"{node.name}: the window of comparisons starts too high for {node.attrs['function']}")
    kept = max(at.bits - MAX_TRUNCATION, table.fraction + 2 + ceil(log2(table.largest)))
    dropped = min(2 * low + GUARD_BITS, MOST_BITS - kept)
    index = len(table.rows[0]).bit_length() - 1
    cut = Cut(at.bits, value.fraction - table.fraction, low + index)
    lookup = Lookup(at.op, value.shape, cut, low, kept + dropped, dropped, table.rows)
    fraction = table.fraction + GUARD_BITS + 2 * low - dropped
    at.append(LookupStep, node, name, [source], Value(value.shape, CUT, fraction, kept), 1, protocol=lookup, error=table.error)
    at.settled[name] = fraction
    return name
