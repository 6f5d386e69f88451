"""What piecewise linear activations add to a plan: one gate each, whatever their bounds and slopes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds, clip_slope, takes_patches
from threepc.graph.ir import Node
from threepc.kernels.gate import Slopes
from threepc.plan.scheduler import Scheduler
from threepc.protocol.pieces import CHANNELS, ROWS
from threepc.protocol.quick_relu import QuickRelu
from threepc.protocol.relu_layer import OPS, ReluLayer, scaled
from threepc.protocol.steps import REDUCED, ReluStep, Value

SLOPE_BITS = 16
"""Fractional bits of a slope, at most: it is right to 2^-17, and a gate sends 2 bits an element for each."""

CARRY_BITS = 32
"""Bits of a lift and of a slope together, which a half of a 64-bit word masks; no more than the ring has."""

PRODUCT_BITS = 62
"""Bits of an opened value and of a slope together, whose product a kernel forms in 64 bits with a sign."""

FEWEST_SLOPE_BITS = 8


def brought_back(readers: Mapping[str, list[Node]], node: Node) -> int:
    """Bits that an average brings to the ReLU, or clip from 0 on, that it reads; readers: by name.

    Raises InputError for any other node, and for one that not an average of 2^k values alone reads.
    """
    reader = readers[node.name][0] if len(readers[node.name]) == 1 else node
    mantissa, bits = math.frexp(reader.attrs["divisor"]) if reader.kind == "avgpool" else (0.0, 0)
    if not takes_patches(node.kind, node.attrs) or mantissa != 0.5 or bits < 2:
        raise InputError(f"precision: early: {node.name!r:.80} is no ReLU that an average of 2, 4, 8, ... values alone reads")
    return bits - 1


def relu(at: Scheduler, node: Node) -> None:
    """max(x, 0)."""
    _append(at, node)


def clip(at: Scheduler, node: Node) -> None:
    """Constant below and above."""
    low, high = clip_bounds(node.attrs)
    first, slope = clip_slope(node.attrs)
    _append(at, node, (0.0, slope), low, first, high)


def bend(at: Scheduler, node: Node) -> None:
    """Two slopes."""
    below, above = node.attrs["slopes"]
    kink = node.attrs.get("at", 0.0)
    _append(at, node, (below, above), kink, kink)


def rectify(at: Scheduler, node: Node) -> None:
    """A value and its ReLU."""
    _append(at, node, both=True)


def _append(
    at: Scheduler,
    node: Node,
    slopes: tuple[float, float] = (0.0, 1.0),
    start: float = 0.0,
    offset: float = 0.0,
    end: float | None = None,
    both: bool = False,
) -> None:
    """offset + slope * (x - start) with the slope of x's side of `start`, and constant from `end` on."""
    (source,) = at.inputs(node)
    value = at.values[source]
    early = brought_back(at.readers, node) if node.name in at.precision.early else 0
    cut = at.opened(source, early)
    low_bit, width = at.precision.comparison(cut.kept_bits, node.name)
    unit, fraction = 1 << low_bit, at.settled[source] - early
    if max(abs(start), abs(offset), abs(end or 0.0)) >= 2.0 ** (62 - fraction):  # a stranger's number may be as large as floats are
        raise InputError(f"{node.name}: a clip at {end or start:g} is beyond the numbers of a ring of {at.bits} bits: make it a relu")
    first = round(start * 2**fraction / unit) * unit
    bound = None if end is None else round(end * 2**fraction / unit) * unit - first
    if not at.draft and max(abs(first), bound or 0) >= 1 << (cut.kept_bits - 2):
        raise InputError(f"{node.name}: a clip at {end or start:g} is beyond the numbers of a ring of {at.bits} bits: make it a relu")
    steps = _slopes(node, slopes, cut.kept_bits, at.bits - cut.kept_bits)
    added = first if offset == start else round(offset * 2**fraction)
    last = added + (bound or 0 if steps is None else scaled(bound or 0, steps.above, steps.bits))
    if not at.draft and max(abs(added), abs(last)) >= 1 << (at.bits - 2):
        raise InputError(f"{node.name}: its values are beyond the numbers of a ring of {at.bits} bits")
    kept = at.is_kept(node, source)
    make, sizes = at.relu(node, width, 0 if steps else at.bits - cut.kept_bits), at.sizes.get(node.name)

    # rows of patches do not end where those of pieces do
    axis = ROWS if make is QuickRelu and not sizes and value.shape[2] > 1 else CHANNELS

    def of(op: int, where: slice) -> ReluLayer:
        n, channels, h, w = value.shape
        shape = (n, channels, len(range(h)[where]), w) if axis == ROWS else (n, len(range(channels)[where]), h, w)
        own = sizes and sizes[where]
        return make(op, shape, cut, at.bits, low_bit, width, own, bound, start=first, offset=added, slopes=steps, both=both or kept)

    pieces = None if both or kept else at.in_pieces(value.shape, of, OPS, axis)
    n, channels, h, w = at.shape(node)
    result = Value((n, channels * (1 + kept), h, w), REDUCED, fraction, at.bits)
    ops = OPS * (len(pieces.parts) if pieces else 1)
    at.append(ReluStep, node, node.name, [source], result, ops, protocol=of(at.op, slice(None)), pieces=pieces)
    if kept:
        at.part(node, source)


def _slopes(node: Node, slopes: tuple[float, float], kept_bits: int, lifted: int) -> Slopes | None:
    """A gate's slopes; as few bits as they need. Raises InputError where they are too steep for any."""
    if slopes == (0.0, 1.0):
        return None
    size = max(0, math.ceil(math.log2(max(map(abs, slopes)) or 1.0)))
    bits = min(SLOPE_BITS, PRODUCT_BITS - kept_bits - size, CARRY_BITS - lifted, kept_bits)
    if bits < FEWEST_SLOPE_BITS:
        raise InputError(f"{node.name}: a slope of {max(slopes, key=abs):g} is too steep")
    below, above = (round(slope * 2**bits) for slope in slopes)
    while bits and not (below % 2 or above % 2):
        below, above, bits = below // 2, above // 2, bits - 1
    return Slopes(below, above, bits)
