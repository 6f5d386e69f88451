"""What piecewise linear activations of torch become: nodes of kind relu, clip and bend, and a sum where two tensors meet."""

import math
from dataclasses import replace

import numpy as np
from torch import nn

from threepc.graph.calls import Call, Operation, Value, pointwise
from threepc.graph.ir import signed


def _relu(call: Call) -> Value:
    return call.emit("relu", [call.activation(call.arguments["self"])])


def _relu6(call: Call) -> Value:
    return _clip(call, 0, 6)


def _hardtanh(call: Call) -> Value:
    return _clip(call, call.arguments["min_val"], call.arguments["max_val"])


def _clamp(call: Call) -> Value:
    return _clip(call, call.arguments.get("min"), call.arguments.get("max"))


def _clip(call: Call, low: float | None, high: float | None) -> Value:
    x = call.activation(call.arguments["self"])
    first, last = (_number(call, bound, default) for bound, default in ((low, -math.inf), (high, math.inf)))
    if not first < last:
        call.refuse(f"from {low} to {high}; the result is constant")
    if (first, last) == (-math.inf, math.inf):
        return replace(x, torch_shape=call.torch_shape)
    if (first, last) == (0, math.inf):
        return call.emit("relu", [x])
    if math.isinf(first) or math.isinf(last):
        slopes = [1.0, 0.0] if math.isinf(first) else [0.0, 1.0]
        kink = last if math.isinf(first) else first
        return call.emit("bend", [x], {"slopes": slopes} | ({"at": kink} if kink else {}))
    return call.emit("clip", [x], {"max": last} | ({"min": first} if first else {}))


def _number(call: Call, value: object, default: float) -> float:
    """A bound that is a number."""
    if value is None:
        return default
    if not isinstance(value, (int, float)) or math.isnan(value):
        call.refuse("with a bound that is no number")
    return float(value)


def _hardsigmoid(call: Call) -> Value:
    return call.emit("clip", [call.activation(call.arguments["self"])], {"min": -3.0, "max": 3.0, "to": [0.0, 1.0]})


def _leaky_relu(call: Call) -> Value:
    return _bend(call, call.arguments["negative_slope"])


def _rrelu(call: Call) -> Value:
    if call.arguments["training"]:
        call.refuse("in training mode; draw slopes only while training (training=self.training)")
    return _bend(call, (call.arguments["lower"] + call.arguments["upper"]) / 2)


def _softshrink(call: Call) -> Value:
    """x less what lies between the bounds."""
    x, bound = call.activation(call.arguments["self"]), float(call.arguments["lambd"])
    if bound == 0:
        return replace(x, torch_shape=call.torch_shape)
    clip = call.emit("clip", [x], {"min": -bound, "max": bound}, part="clip")
    return call.emit("add", [x, clip], signed([1, -1]))


def _hardshrink(call: Call) -> Value:
    if call.arguments["lambd"] != 0:
        call.refuse("which jumps; only what has no jumps has a secure protocol")
    return replace(call.activation(call.arguments["self"]), torch_shape=call.torch_shape)


def _threshold(call: Call) -> Value:
    threshold, value = call.arguments["threshold"], call.arguments["value"]
    if threshold != value:
        call.refuse(f"which jumps from {value:g} to {threshold:g}; only what has no jumps has a secure protocol")
    return _clip(call, value, None)


def _abs(call: Call) -> Value:
    return _bend(call, -1)


def _bend(call: Call, below: float) -> Value:
    return call.emit("bend", [call.activation(call.arguments["self"])], {"slopes": [float(below), 1.0]})


def _prelu(call: Call) -> Value:
    """a x + (1 - a) relu(x): the slopes are weights of a convolution with two inputs a group, hidden as all weights are."""
    x, slopes = call.activation(call.arguments["self"]), call.constant(call.arguments["weight"])
    if slopes is None or slopes.size not in (1, x.shape[0]):
        call.refuse(f"with slopes that are not one or {x.shape[0]}")
    own = np.broadcast_to(slopes.reshape(-1), x.shape[0])
    weight, bias = np.stack([1 - own, own], axis=1)[:, :, None, None], np.zeros(x.shape[0])
    return call.emit("conv", [call.emit("rectify", [x], part="rectify")], pointwise(groups=x.shape[0]), weight=weight, bias=bias)


def _maximum(call: Call) -> Value:
    return _extreme(call, 1)


def _minimum(call: Call) -> Value:
    return _extreme(call, -1)


def _extreme(call: Call, sign: int) -> Value:
    """max(a, b) = b + relu(a - b), min(a, b) = a - relu(a - b)."""
    if "other" not in call.arguments:
        call.refuse("of one tensor; only that of two tensors has a secure protocol")
    a, b = (call.activation(call.arguments[key]) for key in ("self", "other"))
    if not a.torch_shape == b.torch_shape == call.torch_shape:
        call.refuse(f"of shapes {a.torch_shape} and {b.torch_shape}; only tensors of one shape can be compared")
    difference = call.emit("add", [a, b], signed([1, -1]), part="difference")
    excess = call.emit("relu", [difference], part="relu")
    return call.emit("add", [b if sign > 0 else a, excess], signed([1, sign]))


# By name in torch's aten library, as OPERATIONS.
ACTIVATIONS = {
    "relu": Operation(_relu, nn.ReLU),
    "relu6": Operation(_relu6, nn.ReLU6),
    "hardtanh": Operation(_hardtanh, nn.Hardtanh),  # nn.ReLU6 is one
    "clamp": Operation(_clamp),
    "clip": Operation(_clamp),
    "clamp_min": Operation(_clamp),
    "clamp_max": Operation(_clamp),
    "hardsigmoid": Operation(_hardsigmoid, nn.Hardsigmoid),
    "leaky_relu": Operation(_leaky_relu, nn.LeakyReLU),
    "rrelu": Operation(_rrelu, nn.RReLU),
    "softshrink": Operation(_softshrink, nn.Softshrink),
    "hardshrink": Operation(_hardshrink, nn.Hardshrink),
    "threshold": Operation(_threshold, nn.Threshold),
    "prelu": Operation(_prelu, nn.PReLU),
    "abs": Operation(_abs),
    "maximum": Operation(_maximum),
    "minimum": Operation(_minimum),
    "max": Operation(_maximum),
    "min": Operation(_minimum),
}
