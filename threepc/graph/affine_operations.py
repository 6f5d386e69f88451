"""Operations of torch that add, subtract, multiply and divide by constants, and sums of tensors. As operations.py, which lists them.

A constant is a number, a parameter, a buffer, or what was computed from them; it becomes a depthwise convolution, which those around it take in.
"""

import math
from dataclasses import replace

import numpy as np

from threepc.graph.calls import Call, Operation, Value
from threepc.graph.ir import signed
from threepc.graph.product_operations import multiplied
from threepc.graph.rearrange import expanded, rearranged


def _add(call: Call) -> Value:
    return _sum(call, call.arguments["self"], call.arguments["other"], 1.0, call.arguments["alpha"])


def _sub(call: Call) -> Value:
    return _sum(call, call.arguments["self"], call.arguments["other"], 1.0, -call.arguments["alpha"])


def _rsub(call: Call) -> Value:
    return _sum(call, call.arguments["self"], call.arguments["other"], -float(call.arguments["alpha"]), 1.0)


def _neg(call: Call) -> Value:
    return scaled(call, call.view(call.arguments["self"]), np.array(-1.0), np.array(0.0))


def _sum(call: Call, left: object, right: object, first: float, second: float) -> Value:
    """first * left + second * right, of which one may be a constant."""
    for argument, constant, factor, scale in ((left, call.fixed(right), second, first), (right, call.fixed(left), first, second)):
        if constant is not None:
            return scaled(call, call.view(argument), np.array(float(scale)), factor * constant)
    values = []
    for argument, factor, part in ((left, first, "first"), (right, second, "second")):
        x = call.view(argument)
        if x.torch_shape != call.torch_shape:
            x = replace(expanded(call, x, call.torch_shape), name=f"{call.name}/{part}.spread")
        x = call.moved(x)
        size = np.full(x.shape[0], abs(float(factor)))
        values.append(x if abs(factor) == 1 else call.affine(x, size, np.zeros(x.shape[0]), part))
    return call.emit("add", values, signed([1 if factor > 0 else -1 for factor in (first, second)]))


def _mul(call: Call) -> Value:
    for argument, other in (("self", "other"), ("other", "self")):
        constant = call.fixed(call.arguments[argument])
        if constant is not None:
            return scaled(call, call.view(call.arguments[other]), constant, np.array(0.0))
    return multiplied(call)


def _div(call: Call) -> Value:
    constant = call.fixed(call.arguments["other"])
    if constant is None:
        call.refuse("by a tensor that depends on the input; only division by constants has a secure protocol")
    if call.arguments.get("rounding_mode") is not None or not constant.all():
        call.refuse("by zero, or with rounding; only exact division has a secure protocol")
    return scaled(call, call.view(call.arguments["self"]), 1 / constant, np.array(0.0))


def scaled(call: Call, x: Value, scale: np.ndarray, bias: np.ndarray) -> Value:
    """scale * x + bias, constants that spread over the operation's result as torch spreads them."""
    shape = call.torch_shape
    parts = [_of_one_image(call, part, shape) for part in (scale, bias)]
    x = replace(expanded(call, x, shape), torch_shape=shape)
    if (parts[0] == 1).all() and (parts[1] == 0).all():
        return x
    varies = [axis for axis in range(len(shape) - 1) if any(part.shape[axis] > 1 for part in parts)]
    if set(varies) <= {0}:
        x, channels = call.moved(x), shape[1] if len(shape) > 1 else 1
        scale, bias = (np.broadcast_to(part.reshape(-1), channels).copy() for part in parts)
        return call.affine(x, scale, bias)
    # every position that has a constant of its own becomes a channel
    order = [*varies, *(axis for axis in range(len(shape) - 1) if axis not in varies)]
    sizes = [shape[1 + axis] for axis in order]
    count = math.prod(sizes[: len(varies)])
    apart = (shape[0], count, 1, math.prod(sizes[len(varies) :]))
    fronted = call.moved(rearranged(call, x, ["permute", order], ["reshape", list(apart[1:])], shape=apart, name=f"{call.name}.front"))
    whole = [shape[1 + axis] if axis in varies else 1 for axis in range(len(shape) - 1)]
    scale, bias = (np.broadcast_to(part, whole).transpose(order).reshape(count).copy() for part in parts)
    done = call.affine(fronted, scale, bias)
    back = [order.index(axis) for axis in range(len(order))]
    done = replace(done, torch_shape=apart)
    return rearranged(call, done, ["reshape", sizes], ["permute", back], name=f"{call.name}.back")


def _of_one_image(call: Call, constant: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A constant with the dimensions of one image, each of its own size or 1 where nothing varies along it."""
    constant = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
    if not (constant == constant[:1]).all():
        call.refuse("with constants that differ from image to image of the batch")
    image: np.ndarray = constant[0]
    for axis in range(image.ndim):
        first = image.take([0], axis)
        image = first if (image == first).all() else image
    return image


AFFINE = {
    "add": Operation(_add),
    **dict.fromkeys(("sub", "subtract"), Operation(_sub)),
    "rsub": Operation(_rsub),
    **dict.fromkeys(("neg", "negative"), Operation(_neg)),
    **dict.fromkeys(("mul", "multiply"), Operation(_mul)),
    **dict.fromkeys(("div", "divide", "true_divide"), Operation(_div)),
}
"""As `operations.OPERATIONS`, of which these are a part."""
