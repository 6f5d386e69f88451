"""Operations of torch that multiply two hidden values, and the activations made of such products. As operations.py, which lists them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from threepc.graph.calls import Call, Operation, Value
from threepc.graph.moves import moved_shape
from threepc.graph.rearrange import expanded, rearranged


def multiplied(call: Call) -> Value:
    """The product of two hidden tensors."""
    return _product(call, call.view(call.arguments["self"]), call.view(call.arguments["other"]))


def _square(call: Call) -> Value:
    x = call.view(call.arguments["self"])
    return _product(call, x, x)


def _pow(call: Call) -> Value:
    x, exponent = call.view(call.arguments["self"]), call.arguments["exponent"]
    if exponent not in (1, 2):
        call.refuse(f"with the exponent {exponent}; only squares have a secure protocol")
    return x if exponent == 1 else _product(call, x, x)


def _product(call: Call, x: Value, y: Value) -> Value:
    shape, factors = call.torch_shape, []
    for value, part in ((x, "first"), (y, "second")):
        if len(value.torch_shape) != len(shape) or value.torch_shape[0] != shape[0]:
            call.refuse(f"of shapes {x.torch_shape} and {y.torch_shape}; threepc needs as many dimensions, and the batch first in both")
        own = _unrepeated(value)
        whole = own if _spreads(own.torch_shape, shape) else replace(expanded(call, own, shape), name=f"{call.name}/{part}")
        factors.append(call.moved(whole))
    return call.emit("multiply", factors)


def _unrepeated(value: Value) -> Value:
    """The value before repetitions along whole dimensions, which a product does by itself, at no cost."""
    while value.moves and value.moves[-1][0] == "take":
        *before, (_, axis, _, step, _) = value.moves
        sizes = moved_shape(value.shape, before)
        if step != 0 or sizes[axis] != 1 or len(sizes) + 1 != len(value.torch_shape):
            break
        value = replace(value, moves=tuple(before), torch_shape=(value.torch_shape[0], *sizes))
    return value


def _spreads(own: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a multiply node lays a factor out over the product: along neighbouring dimensions, of which the node has the last ones as one."""
    sides = [(own[axis], whole[axis]) for axis in range(1, min(3, len(whole)))]
    if own[3:] == whole[3:] or set(own[3:]) == {1}:
        sides.append((math.prod(own[3:]), math.prod(whole[3:])))
    else:
        return False
    return not (len(sides) == 3 and sides[0][0] != sides[0][1] and sides[2][0] != sides[2][1] and sides[1][0] == sides[1][1] > 1)


def _matmul(call: Call) -> Value:
    values = [call.view(call.arguments[name]) for name in ("self", "mat2" if "mat2" in call.arguments else "other")]
    x, y = (value.torch_shape for value in values)
    if len(x) != len(y) or len(x) < 3 or x[:-2] != y[:-2]:
        call.refuse(f"of shapes {x} and {y}; threepc needs (N, ..., rows, depth) and (N, ..., depth, columns)")
    return call.emit("matmul", [_matrices(call, value, part) for value, part in zip(values, ("first", "second"), strict=True)])


def _matrices(call: Call, value: Value, part: str) -> Value:
    """(N, ..., rows, columns) as (N, C, rows, columns)."""
    sizes = [math.prod(value.torch_shape[1:-2]), *value.torch_shape[-2:]]
    return call.moved(rearranged(call, value, ["reshape", sizes], shape=(value.torch_shape[0], *sizes), name=f"{call.name}/{part}"))


def _hardswish(call: Call) -> Value:
    """z * clamp(z + 3, 0, 6) / 6 = v * clamp(v + b, 0, 2 b) with v = z / sqrt(6) and b = 3 / sqrt(6): no factor is left to divide by."""
    x = call.activation(call.arguments["self"])
    scale, bound = np.full(x.shape[0], 1 / math.sqrt(6)), 3 / math.sqrt(6)
    v = call.affine(x, scale, np.zeros(x.shape[0]), "scaled")
    return call.emit("multiply", [v, call.emit("clip", [v], {"min": -bound, "max": bound, "to": [0.0, 2 * bound]}, "clip")])


PRODUCTS = {
    "square": Operation(_square),
    "pow": Operation(_pow),
    "matmul": Operation(_matmul),
    "bmm": Operation(_matmul),
    "hardswish": Operation(_hardswish, nn.Hardswish),
}
"""As `operations.OPERATIONS`, of which these are a part."""
