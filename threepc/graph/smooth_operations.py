"""Smooth activations as nodes: sigmoid, tanh, SiLU, GELU, softplus, mish, ELU, CELU, and what is made of one of them: SELU, log-sigmoid, GLU, softmax of two."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import nn

from threepc.errors import InputError
from threepc.graph.calls import Call, Operation, Value
from threepc.graph.ir import signed
from threepc.graph.kinds import ATTRIBUTES
from threepc.graph.rearrange import along, axis_of, rearranged


def _plain(function: str) -> Callable[[Call], Value]:
    return lambda call: _emit(call, function)


def _emit(call: Call, function: str, parameter: float = 1.0, part: str = "") -> Value:
    try:
        ATTRIBUTES["smooth"]["parameter"](float(parameter))
    except InputError as error:
        call.refuse(f"with a parameter of {parameter:g}, which {error}")
    return call.emit("smooth", [call.activation(call.arguments["self"])], {"function": function, "parameter": float(parameter)}, part)


def _gelu(call: Call) -> Value:
    return _emit(call, "gelu_tanh" if call.arguments["approximate"] == "tanh" else "gelu")


MOST_JUMP = 2.0**-16
"""Of a softplus where torch takes its argument for it: below the last place of activations."""


def _softplus(call: Call) -> Value:
    beta, threshold = call.arguments["beta"], call.arguments["threshold"]
    if math.log1p(math.exp(-threshold)) > MOST_JUMP * beta:
        call.refuse(f"with threshold={threshold:g}, where it jumps; only what is smooth has a secure protocol")
    return _emit(call, "softplus", beta)


def _log_sigmoid(call: Call) -> Value:
    """x - softplus(x)."""
    x = call.activation(call.arguments["self"])
    return call.emit("add", [x, _emit(call, "softplus", part="softplus")], signed([1, -1]))


def _elu(call: Call) -> Value:
    if call.arguments["input_scale"] != 1:
        call.refuse(f"with input_scale={call.arguments['input_scale']:g}; only 1 has a secure protocol")
    return _scaled_elu(call, call.arguments["alpha"], call.arguments["scale"])


def _selu(call: Call) -> Value:
    return _scaled_elu(call, SELU_ALPHA, SELU_SCALE)


def _scaled_elu(call: Call, alpha: float, scale: float) -> Value:
    """A layer behind takes in the scale."""
    if scale == 1:
        return _emit(call, "elu", alpha)
    elu = _emit(call, "elu", alpha, "elu")
    return call.affine(elu, np.full(elu.shape[0], float(scale)), np.zeros(elu.shape[0]))


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""As torch defines SELU."""


def _glu(call: Call) -> Value:
    """The first half of the cells along a dimension times the sigmoid of the second."""
    x = call.view(call.arguments["self"])
    axis = axis_of(call, x, call.arguments["dim"])
    half = x.torch_shape[axis + 1] // 2
    value, gate = (
        call.moved(rearranged(call, x, ["take", axis, start, 1, half], name=f"{call.name}/{part}"))
        for start, part in ((0, "value"), (half, "gate"))
    )
    return call.emit("multiply", [value, call.emit("smooth", [gate], {"function": "sigmoid", "parameter": 1.0}, "sigmoid")])


def _celu(call: Call) -> Value:
    return _emit(call, "celu", call.arguments["alpha"])


def _softmax(call: Call) -> Value:
    """Of two numbers a and b it is sigmoid(a - b) and sigmoid(b - a), as in ResNeSt's attention over two branches."""
    x = call.view(call.arguments["self"])
    dimension = call.arguments["dim"]
    if x.torch_shape[dimension] != 2:
        call.refuse("which has no secure protocol")
    exchanged = replace(rearranged(call, x, along(axis_of(call, x, dimension), [1, 0])), name=f"{call.name}/exchanged")
    difference = call.emit("add", [call.moved(x), call.moved(exchanged)], signed([1, -1]), "difference")
    return call.emit("smooth", [difference], {"function": "sigmoid", "parameter": 1.0})


OPERATIONS = {
    "sigmoid": Operation(_plain("sigmoid"), nn.Sigmoid),
    "tanh": Operation(_plain("tanh"), nn.Tanh),
    "silu": Operation(_plain("silu"), nn.SiLU),
    "mish": Operation(_plain("mish"), nn.Mish),
    "gelu": Operation(_gelu, nn.GELU),
    "softplus": Operation(_softplus, nn.Softplus),
    "elu": Operation(_elu, nn.ELU),
    "celu": Operation(_celu, nn.CELU),
    "selu": Operation(_selu, nn.SELU),
    "log_sigmoid": Operation(_log_sigmoid, nn.LogSigmoid),
    "glu": Operation(_glu, nn.GLU),
    "softmax": Operation(_softmax, nn.Softmax),
}
"""As in operations.py."""
