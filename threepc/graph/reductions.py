"""Operations of torch that average, add up or take the maximum over dimensions: poolings of cells brought together. As operations.py."""

import math
from dataclasses import replace
from typing import Any

from threepc.graph.calls import Call, Operation, Value
from threepc.graph.rearrange import along, axis_of, rearranged


def _mean(call: Call) -> Value:
    return _pooled(call, "avgpool", divide=True)


def _sum(call: Call) -> Value:
    return _pooled(call, "avgpool", divide=False)


def _amax(call: Call) -> Value:
    return _pooled(call, "maxpool", divide=False)


def _pooled(call: Call, kind: str, divide: bool) -> Value:
    """One pooling whose window holds all that becomes one number: the map itself, or cells brought together by moves."""
    x, dimensions = call.view(call.arguments["self"]), call.arguments.get("dim")
    if dimensions is None or dimensions == []:
        call.refuse("over the batch; every image is by itself")
    axes = sorted({axis_of(call, x, one) for one in ([dimensions] if isinstance(dimensions, int) else dimensions)})
    if len(x.torch_shape) == 4 and axes == [1, 2]:
        x = call.moved(x)
    else:
        kept = [axis for axis in range(len(x.torch_shape) - 1) if axis not in axes]
        others, window = (math.prod(x.torch_shape[1 + axis] for axis in part) for part in (kept, axes))
        moves: tuple[list[Any], ...] = ["permute", [*kept, *axes]], ["reshape", [others, 1, window]]
        x = call.moved(rearranged(call, x, *moves, shape=(x.torch_shape[0], others, 1, window), name=f"{call.name}.front"))
    kernel = list(x.shape[1:])
    if kernel == [1, 1]:
        return replace(x, torch_shape=call.torch_shape)
    attrs = {"kernel": kernel, "stride": kernel, "padding": [0, 0, 0, 0]}
    own = {"divisor": float(kernel[0] * kernel[1]) if divide else 1.0} if kind == "avgpool" else {"dilation": [1, 1]}
    return call.emit(kind, [x], attrs | own)


def _adaptive_max(call: Call) -> list[Value]:
    """Windows of one size each, as torch places them; where these are of several sizes, cells of the smaller ones come twice."""
    x, shape = call.view(call.arguments["self"]), call.torch_shapes[0]
    if len(x.torch_shape) != len(shape):
        call.refuse(f"on a tensor of shape {x.torch_shape}; the batch must be its first dimension")
    kernel, moves = [1] * (4 - len(shape)), []
    for axis, (old, new) in enumerate(zip(x.torch_shape[2:], shape[2:], strict=True), 1):
        windows = [(cell * old // new, -(-(cell + 1) * old // new)) for cell in range(new)]
        kernel.append(max(end - start for start, end in windows))
        if old % new:
            moves.append(along(axis, [min(start + cell, end - 1) for start, end in windows for cell in range(kernel[-1])]))
    if moves:
        sizes = [size * count for size, count in zip(shape[2:], kernel[4 - len(shape) :], strict=True)]
        x = rearranged(call, x, *moves, shape=(*shape[:2], *sizes), name=f"{call.name}.windows")
    x = call.moved(x)
    attrs = {"kernel": kernel, "stride": kernel, "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    return [replace(call.emit("maxpool", [x], attrs), torch_shape=call.torch_shapes[0])]


REDUCTIONS = {
    "mean": Operation(_mean),
    "sum": Operation(_sum),
    "amax": Operation(_amax),
    "adaptive_max_pool1d": Operation(_adaptive_max),
    "adaptive_max_pool2d": Operation(_adaptive_max),
}
"""As `operations.OPERATIONS`, of which these are a part."""
