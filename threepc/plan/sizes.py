"""What a change of a map's size adds to a plan; see layers.py."""

from __future__ import annotations

from functools import partial
from typing import Any

from threepc.errors import InputError
from threepc.graph import resampling
from threepc.graph.ir import Node
from threepc.plan.precision import Precision
from threepc.plan.scheduler import Scheduler, elements
from threepc.protocol import summands
from threepc.protocol.steps import CUT, LocalStep, Value

ROOM = 10
"""Bits above the point that weights leave to the values that they meet, whatever they lose."""

MOST_WORK = 1 << 34
"""Products of one node, over the batch."""


def resample(at: Scheduler, node: Node) -> None:
    """Weights of the fewest bits that are exact, or of as many as a truncation can remove; the truncation is left to what follows."""
    (source,) = at.inputs(node)
    height, width = at.graph[node.inputs[0]].shape[1:]
    axes, bits = rounded_axes(at.precision, node.attrs, height, width)
    value = at.values[source]
    if value.form == CUT or at.grows_too_long(source, bits):
        source = at.reduce(source)
    value = at.values[source]
    result = Value(at.shape(node), value.form, value.fraction + bits, at.bits)
    if sum(max(elements(result), elements(value)) * cells.shape[1] for _, cells, _ in axes) > MOST_WORK:
        raise InputError(f"{node.name}: more than {MOST_WORK:,} products for {at.batch} images at once")
    at.append(LocalStep, node, node.name, [source], result, 0, apply=partial(_resampled, axes=axes))


def rounded_axes(precision: Precision, attrs: dict[str, Any], height: int, width: int) -> tuple[list[tuple[int, Any, Any]], int]:
    """`whole_weights` of as many bits as a precision has for them."""
    return whole_weights(attrs, height, width, min(precision.truncation, precision.bits - 2 - precision.fraction - ROOM))


def whole_weights(attrs: dict[str, Any], height: int, width: int, most_bits: int) -> tuple[list[tuple[int, Any, Any]], int]:
    """(axis, cells, whole weights) of each axis that changes, the one first that shrinks most, and the fractional bits of all together."""
    given = [(axis, resampling.taps(rule, size)) for axis, rule, size in ((2, attrs["rows"], height), (3, attrs["columns"], width)) if rule]
    given.sort(key=lambda one: len(one[1][0]) / (height, width)[one[0] - 2])
    exact = [resampling.exact_bits(found) for _, found in given]
    rounded = exact.count(None)
    left = most_bits - sum(bits or 0 for bits in exact)
    axes, total = [], 0
    for (axis, (cells, weights)), own in zip(given, exact, strict=True):
        share = left // rounded if own is None else own
        axes.append((axis, cells, resampling.whole(weights, share)))
        total += share
    return axes, total


def _resampled(inputs: Any, axes: Any) -> Any:
    return summands.resample(inputs[0], axes)
