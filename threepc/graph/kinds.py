"""The kinds of nodes that a graph may have: their attributes, with the ranges that are allowed, and their shape rules.

=======  ==========================================================================================================
kind     attributes (plain JSON values)
=======  ==========================================================================================================
input    owner: "server" for an array that the server brings to every inference; without it the client's, which is the first node and alone
conv     kernel [h, w], stride [h, w], padding [top, left, bottom, right], dilation [h, w], groups
         weight (O, C / groups, h, w) and bias (O,) in `Weights`; a linear layer is a 1x1 convolution of a (C, 1, 1) map
         optionally weights: the name of an earlier convolution of the same weight shape and groups, whose weight (not its bias) is also this one's
relu     none
clip     max: float, optionally min (else 0) and to [low, high] (else [min, max]); what lies between min and max goes to between low and high in
         proportion, what is below min to low, what is above max to high
rectify  none; (C, H, W) to (2 C, H, W), of each channel max(x, 0) and then x
bend     slopes [below, above], optionally at (else 0): floats; x at or above `at` becomes at + above * (x - at), below at + below * (x - at)
maxpool  kernel, stride, padding, dilation; padded cells never win
avgpool  kernel, stride, padding, divisor: float; the sum of each window over zero padding, divided by divisor
add      optionally signs: 1 or -1 for each input, not all 1; two or more inputs of one shape, added or subtracted
concat   none; two or more inputs, along channels
smooth   function: a name in smooth.py, parameter: float, 1 where the function has none
gather   moves: what moves.py says; its input's cells, rearranged, dropped, repeated, or zeros
multiply none; x * y, whose sides are equal or 1
matmul   none; the product of (rows, depth) and (depth, columns) for every channel
constant values: the floats of its shape in C order, known to everybody; no input
limit    size: float above 0; its input as it is, of which every number is said to be from -size to size. by: who sees to that, the owner of
         an array that is brought to the job; without it nobody does
reshape  none; (C, H, W) to (C * H * W, 1, 1) in C order
resize   size [h, w]; broadcasts a (C, 1, 1) map
resample  rows, columns: what resampling.py says; each row and column a weighted sum of the old ones, with public weights
output   optionally to: "server", where the server and not the client is shown it
         optionally resize [h, w, align_corners]: a bilinear resize left to the client, after decoding
         path, unless the network returns one tensor: where in what it returns this output stands, see outputs.py
=======  ==========================================================================================================
"""

# ruff: noqa: ARG001 - the rules of all kinds are given the same

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds
from threepc.graph.moves import moved_shape
from threepc.graph.outputs import check_path
from threepc.graph.resampling import check_rule, resampled
from threepc.graph.smooth import PARAMETER, SMOOTH

Shape = tuple[int, int, int]

# Limits on what a stranger's graph may ask for. The largest network we know of (DeepLab at 1024 x 2048) stays far below them.
MAX_NODES = 10_000
MAX_NAME = 256
MAX_OWNER = 64
MAX_JSON = 16 << 20
MAX_SIDE = 1 << 16
MAX_KERNEL = 1 << 10
MAX_ELEMENTS = 1 << 28
MAX_DIVISOR = float(MAX_SIDE * MAX_SIDE)


def _integer(value: Any, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"must be an integer from {low} to {high}")


def _integers(count: int, low: int, high: int) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not list or len(value) != count or any(type(v) is not int or not low <= v <= high for v in value):
            raise InputError(f"must be a list of {count} integers from {low} to {high}")

    return check


def _finite_float(value: Any) -> None:
    if type(value) is not float or not math.isfinite(value):
        raise InputError("must be a finite float")


def _finite_pair(value: Any) -> None:
    if type(value) is not list or len(value) != 2:
        raise InputError("must be a list of 2 finite floats")
    for part in value:
        _finite_float(part)


def _finite_floats(value: Any) -> None:
    if type(value) is not list or any(type(number) is not float or not math.isfinite(number) for number in value):
        raise InputError("must be a list of finite floats")


def _name(value: Any) -> None:
    if type(value) is not str:
        raise InputError("must be a name")


def _size(value: Any) -> None:
    if type(value) is not float or not 0 < value < math.inf:
        raise InputError("must be a finite float above 0")


def _owner(value: Any) -> None:
    if type(value) is not str or not 1 <= len(value) <= MAX_OWNER or not (value.isascii() and value.isprintable()):
        raise InputError(f"must be 1 to {MAX_OWNER} printable ASCII characters")


def _server(value: Any) -> None:
    if type(value) is not str or value != "server":
        raise InputError("must be server, or left out for the client")


def _divisor(value: Any) -> None:
    if type(value) is not float or not 1 <= value <= MAX_DIVISOR:
        raise InputError(f"must be a float from 1 to {MAX_DIVISOR:g}")


def _groups(value: Any) -> None:
    _integer(value, 1, MAX_ELEMENTS)


def _signs(value: Any) -> None:
    if type(value) is not list or len(value) > MAX_NODES or any(type(v) is not int or v not in (1, -1) for v in value) or -1 not in value:
        raise InputError("must be a list of 1 and -1, with at least one -1")


def _function(value: Any) -> None:
    if type(value) is not str or value not in SMOOTH:
        raise InputError(f"must be one of {', '.join(SMOOTH)}")


def _parameter(value: Any) -> None:
    low, high = PARAMETER
    if type(value) is not float or not low <= value <= high:
        raise InputError(f"must be a float from {low:g} to {high:g}")


def _moves(value: Any) -> None:
    if type(value) is not list or not all(type(move) is list for move in value):
        raise InputError("must be a list of moves")


def _output_resize(value: Any) -> None:
    if type(value) is not list or len(value) != 3 or type(value[2]) is not bool:
        raise InputError("must be a list [height, width, align_corners]")
    _integers(2, 1, MAX_SIDE)(value[:2])


_pair = _integers(2, 1, MAX_SIDE)
_kernel = _integers(2, 1, MAX_KERNEL)
_padding = _integers(4, 0, MAX_SIDE)

ATTRIBUTES: dict[str, dict[str, Callable[[Any], None]]] = {
    "input": {"owner": _server},
    "conv": {"kernel": _kernel, "stride": _pair, "padding": _padding, "dilation": _pair, "groups": _groups, "weights": _name},
    "relu": {},
    "clip": {"max": _finite_float, "min": _finite_float, "to": _finite_pair},
    "rectify": {},
    "bend": {"slopes": _finite_pair, "at": _finite_float},
    "maxpool": {"kernel": _kernel, "stride": _pair, "padding": _padding, "dilation": _pair},
    "avgpool": {"kernel": _pair, "stride": _pair, "padding": _padding, "divisor": _divisor},
    "add": {"signs": _signs},
    "concat": {},
    "smooth": {"function": _function, "parameter": _parameter},
    "gather": {"moves": _moves},
    "multiply": {},
    "matmul": {},
    "constant": {"values": _finite_floats},
    "limit": {"size": _size, "by": _owner},
    "reshape": {},
    "resize": {"size": _pair},
    "resample": {"rows": check_rule, "columns": check_rule},
    "output": {"resize": _output_resize, "path": check_path, "to": _server},
}
OPTIONAL = {
    ("input", "owner"),
    ("conv", "weights"),
    ("output", "resize"),
    ("output", "path"),
    ("output", "to"),
    ("add", "signs"),
    ("clip", "min"),
    ("clip", "to"),
    ("bend", "at"),
    ("limit", "by"),
}
NO_INPUTS = {"input", "constant"}
SEVERAL_INPUTS = {"add", "concat"}
TWO_INPUTS = {"multiply", "matmul"}

KINDS = tuple(ATTRIBUTES)


def infer_shape(kind: str, inputs: Sequence[Shape], attrs: dict[str, Any], channels: int | None = None) -> Shape:
    """The output shape of a node whose attributes have been checked.

    Parameters: `inputs`, the (C, H, W) of each input; `channels`, a convolution's output channels (its weight is not at hand).
    Raises InputError where the operation is not defined on these shapes.
    """
    if kind not in _SHAPES:
        raise InputError(f"kind: {kind!r} has no shape rule")
    return _SHAPES[kind](inputs, attrs, channels or 0)


def _same(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    return inputs[0]


def _activated(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    if attrs["parameter"] != 1 and not SMOOTH[attrs["function"]].free:
        raise InputError(f"parameter: {attrs['function']} has none, so it must be 1")
    return inputs[0]


def _clipped(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    low, high = clip_bounds(attrs)
    if not 0 < high - low < math.inf:
        raise InputError(f"max: must be above min, which is {low:g}")
    return inputs[0]


def _doubled(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    return 2 * inputs[0][0], *inputs[0][1:]


def _convolved(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    return _divided(inputs[0][0], channels, attrs["groups"]), *_windows(inputs[0], attrs)


def _maxima(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    _check_no_empty_window(inputs[0], attrs)
    return inputs[0][0], *_windows(inputs[0], attrs)


def _averages(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    return inputs[0][0], *_windows(inputs[0], attrs)


def _concatenated(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    first = inputs[0]
    if {shape[1:] for shape in inputs} != {first[1:]}:
        raise InputError(f"inputs: their heights or widths differ: {', '.join(map(str, inputs))}")
    return sum(shape[0] for shape in inputs), first[1], first[2]


def _gathered(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    sizes = moved_shape(inputs[0], attrs["moves"])
    if len(sizes) != 3:
        raise InputError(f"moves: give {len(sizes)} dimensions, not channels, height and width")
    return sizes[0], sizes[1], sizes[2]


def _flat(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    return math.prod(inputs[0]), 1, 1


def _broadcast(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    first = inputs[0]
    if first[1:] != (1, 1):
        raise InputError(f"inputs: only a 1x1 map can be broadcast, not {first[1]}x{first[2]}")
    return first[0], attrs["size"][0], attrs["size"][1]


def _sum(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    if {*inputs} != {inputs[0]}:
        raise InputError(f"inputs: their shapes differ: {', '.join(map(str, inputs))}")
    if len(attrs.get("signs", inputs)) != len(inputs):
        raise InputError(f"signs: must be one for each of the {len(inputs)} inputs")
    return inputs[0]


def _product(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    one, other = inputs
    if any(a != b and 1 not in (a, b) for a, b in zip(one, other, strict=True)):
        raise InputError(f"inputs: their shapes do not fit: {one}, {other}")
    result = max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])
    for factor in inputs:
        if factor[0] < result[0] and factor[1] == result[1] > 1 and factor[2] < result[2]:
            raise InputError(f"inputs: a factor of {factor} is repeated along channels and columns but not along rows")
    return result


def _matrix_product(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    one, other = inputs
    if one[0] != other[0] or one[2] != other[1]:
        raise InputError(f"inputs: their shapes do not fit: {one}, {other}")
    return one[0], one[1], other[2]


def _divided(inputs: int, outputs: int, groups: int) -> int:
    if inputs % groups or outputs % groups or not outputs:
        raise InputError(f"groups: must divide the {inputs} input channels and the {outputs} output channels")
    return outputs


def _windows(shape: Shape, attrs: dict[str, Any]) -> tuple[int, int]:
    top, left, bottom, right = attrs["padding"]
    padded, sizes = (shape[1] + top + bottom, shape[2] + left + right), []
    if shape[0] * math.prod(padded) > MAX_ELEMENTS:
        raise InputError(f"padding: the padded map would have more than {MAX_ELEMENTS} elements")
    for size, kernel, stride, spread in zip(padded, attrs["kernel"], attrs["stride"], attrs.get("dilation", [1, 1]), strict=True):
        reach = spread * (kernel - 1) + 1
        if reach > size:
            raise InputError(f"kernel: reaches over {reach} cells, the padded map has {size}")
        sizes.append((size - reach) // stride + 1)
    return sizes[0], sizes[1]


def _check_no_empty_window(shape: Shape, attrs: dict[str, Any]) -> None:
    # The maximum of padding alone would be minus infinity. Only windows that hang over an edge can hold no real cell.
    out = _windows(shape, attrs)
    for axis in (0, 1):
        size, kernel, stride, spread = shape[axis + 1], attrs["kernel"][axis], attrs["stride"][axis], attrs["dilation"][axis]
        before = attrs["padding"][axis]
        if max(before, attrs["padding"][axis + 2]) > spread * (kernel - 1):
            raise InputError("padding: a max-pooling window would hold padding only")
        start = np.arange(out[axis]) * stride - before
        first = start + spread * np.maximum(0, -(start // spread))
        if ((first >= size) | (first > start + spread * (kernel - 1))).any():
            raise InputError("padding: a max-pooling window would hold padding only")


def _resampled(inputs: Sequence[Shape], attrs: dict[str, Any], channels: int) -> Shape:
    first = inputs[0]
    return first[0], resampled(attrs["rows"], first[1]), resampled(attrs["columns"], first[2])


_SHAPES: dict[str, Callable[[Sequence[Shape], dict[str, Any], int], Shape]] = {
    "conv": _convolved,
    "relu": _same,
    "clip": _clipped,
    "bend": _same,
    "smooth": _activated,
    "rectify": _doubled,
    "maxpool": _maxima,
    "avgpool": _averages,
    "add": _sum,
    "concat": _concatenated,
    "gather": _gathered,
    "multiply": _product,
    "matmul": _matrix_product,
    "limit": _same,
    "reshape": _flat,
    "resize": _broadcast,
    "resample": _resampled,
    "output": _same,
}
