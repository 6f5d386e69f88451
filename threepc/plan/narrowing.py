"""Which bits every layer compares: as few as decide, from the ranges that calibration found. Each bit costs about five bits on the links.

Above, a layer compares what its values need, with the margin and SPARE_BITS besides. Below, a plain ReLU leaves out bits that hardly matter: a value
is passed wrongly only between -2^low and 0 units of the last place, with a chance that falls from one to zero towards -2^low. With p values a unit
around zero the mean square of that is p 2^(3 low) / 12. A truncation's is 1/4, the sum of three roundings; low is the largest that adds no
more than 1/14 to values of a normal distribution whose largest are eight times its deviation. A block ReLU decides on a sum, whose pixels may
be large where it is small, and leaves out nothing; nor does a maximum. What a user chose stays. Bits that are compared are public, and tell a
layer's range as a power of two, as the fractional bits of weights do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from threepc.graph.activations import kinks
from threepc.graph.ir import Graph
from threepc.graph.relu_spec import Sizes
from threepc.plan.calibration import MARGIN_BITS, SPARE_BITS, exponent
from threepc.plan.headroom import Ranges
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.protocol.steps import MaxPoolStep, ReluStep

SPREAD_BITS = 3
"""A layer's largest value in deviations, as a power of two."""


def narrow(graph: Graph, ranges: Ranges, precision: Precision, margin_bits: int = MARGIN_BITS, sizes: Sizes | None = None) -> Precision:
    """The precision with the bits that each layer compares; the same one where a user chose a window."""
    if precision.window is not None:
        return precision
    return replace(precision, compared=dict(_compared(graph, ranges, replace(precision, compared={}), margin_bits, sizes)))


def _compared(
    graph: Graph, ranges: Ranges, precision: Precision, margin_bits: int, sizes: Sizes | None
) -> Iterator[tuple[str, tuple[int, int]]]:
    """(first bit, width) by layer, where that is less than all bits."""
    nodes = {node.name: node for node in graph.nodes}
    for step in schedule(graph, precision, sizes).steps:
        node, low = nodes.get(step.name), 0
        if node is None:
            continue
        if isinstance(step, MaxPoolStep):
            fraction, widest = step.inputs[0].fraction - step.cut.shift, step.protocol.compared
            needed = exponent(ranges.values[node.inputs[0]]) + 1 + fraction
        elif isinstance(step, ReluStep) and step.protocol.decide and (at := kinks(node.kind, node.attrs)):
            fraction, widest = step.inputs[0].fraction - step.protocol.cut.shift, step.protocol.width
            needed = exponent(ranges.sums[node.name]) + fraction
            if step.protocol.patches is None:
                low = _ignored(needed, [round(kink * 2.0**fraction) for kink in at])
        else:
            continue
        width = min(widest - low, max(1, needed + margin_bits + SPARE_BITS - low))
        if width < widest:
            yield node.name, (low, width)


def _ignored(size: int, kinks: list[int]) -> int:
    """How many low bits do not matter to values of up to 2^size units, whose kinks have to be multiples of what is left."""
    low = max(0, (size - SPREAD_BITS) // 3)
    while low and any(kink % (1 << low) for kink in kinks):
        low -= 1
    return low
