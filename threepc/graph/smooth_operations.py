"""Smooth activations as nodes: sigmoid, tanh, SiLU, GELU, softplus, mish, ELU, CELU, and the softmax of two."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from threepc.errors import InputError
from threepc.graph.calls import Call, Operation, Value
from threepc.graph.ir import signed
from threepc.graph.kinds import ATTRIBUTES
from threepc.graph.rearrange import along, axis_of, rearranged


def _plain(function: str) -> Callable[[Call], Value]:
    return lambda call: _emit(call, function)


def _emit(call: Call, function: str, parameter: float = 1.0) -> Value:
    try:
        ATTRIBUTES["smooth"]["parameter"](float(parameter))
    except InputError as error:
        call.refuse(f"with a parameter of {parameter:g}, which {error}")
    return call.emit("smooth", [call.activation(call.arguments["self"])], {"function": function, "parameter": float(parameter)})


def _gelu(call: Call) -> Value:
    return _emit(call, "gelu_tanh" if call.arguments["approximate"] == "tanh" else "gelu")


def _softplus(call: Call) -> Value:
    return _emit(call, "softplus", call.arguments["beta"])


def _elu(call: Call) -> Value:
    for factor in ("scale", "input_scale"):
        if call.arguments[factor] != 1:
            call.refuse(f"with {factor}={call.arguments[factor]:g}; only 1 has a secure protocol")
    return _emit(call, "elu", call.arguments["alpha"])


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
    "softmax": Operation(_softmax, nn.Softmax),
}
"""As in operations.py."""
