"""What each ONNX operation is in torch, for `onnx_file`: one function an operation, called with a `Node` and its operands.

An operand is a tensor that depends on the network's input, a parameter of the file as a tensor, or a numpy array where the operation wants
numbers that are known (`onnx_windows.numbers`). Functions follow opset 9 to 20 and later as far as they mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor

from threepc.errors import InputError
from threepc.model import onnx_windows as windows
from threepc.model.onnx_windows import Node, numbers


def _reduce(node: Node, operands: Sequence[Any], function: Callable[..., Tensor]) -> Tensor:
    x, axes = operands[0], numbers(node, operands, 1, "axes")
    if not axes:
        if node.attributes.get("noop_with_empty_axes", 0):
            return x  # type: ignore[no-any-return]  # operands are tensors or arrays
        axes = list(range(x.dim()))
    return function(x, dim=axes, keepdim=bool(node.attributes.get("keepdims", 1)))


def _gemm(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Its weight is transposed and scaled once, when the file is read (`prepared_gemm`)."""
    return F.linear(x, weight, bias)


def _matmul(node: Node, x: Tensor, other: Tensor) -> Tensor:
    return F.linear(x, other) if node.attributes.get("prepared") else torch.matmul(x, other)


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return F.prelu(x, slope.reshape(-1))


def _clip(node: Node, *operands: Any) -> Tensor:
    low, high = (numbers(node, operands, index, name) for index, name in ((1, "min"), (2, "max")))
    least, most = (None if bound is None or not abs(bound[0]) < 3e38 else float(bound[0]) for bound in (low, high))
    if least is None and most is None:
        return operands[0]  # type: ignore[no-any-return]
    if least == 0 and most is None:
        return F.relu(operands[0])
    if least is None or most is None:
        return torch.clamp(operands[0], least, most)
    return F.hardtanh(operands[0], least, most)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return F.hardsigmoid(x) if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 else torch.clamp(alpha * x + beta, 0.0, 1.0)


def _softmax(node: Node, x: Tensor) -> Tensor:
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
    if node.opset < 13 and axis % x.dim() != x.dim() - 1:
        return F.softmax(x.flatten(axis % x.dim()), -1).reshape(x.shape)
    return F.softmax(x, axis)


def _reshape(node: Node, *operands: Any) -> Tensor:
    x, shape = operands[0], numbers(node, operands, 1, "shape") or []
    if not node.attributes.get("allowzero", 0):
        shape = [x.shape[index] if size == 0 else size for index, size in enumerate(shape)]
    return torch.reshape(x, shape)


def _squeeze(node: Node, *operands: Any) -> Tensor:
    axes = numbers(node, operands, 1, "axes")
    return torch.squeeze(operands[0]) if axes is None else torch.squeeze(operands[0], [axis % operands[0].dim() for axis in axes])


def _unsqueeze(node: Node, *operands: Any) -> Tensor:
    x, axes = operands[0], numbers(node, operands, 1, "axes") or []
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = torch.unsqueeze(x, axis)
    return x  # type: ignore[no-any-return]


def _split(node: Node, *operands: Any) -> tuple[Tensor, ...]:
    x, sizes, axis = operands[0], numbers(node, operands, 1, "split"), node.attributes.get("axis", 0)
    return torch.split(x, sizes or math.ceil(x.shape[axis] / node.outputs), axis)


def _slice(node: Node, *operands: Any) -> Tensor:
    x, starts, ends = operands[0], numbers(node, operands, 1, "starts") or [], numbers(node, operands, 2, "ends") or []
    axes = numbers(node, operands, 3, "axes") or list(range(len(starts)))
    for axis, start, end, step in zip(axes, starts, ends, numbers(node, operands, 4) or [1] * len(starts), strict=True):
        if step < 0:
            x, start, end, step = torch.flip(x, [axis]), -start - 1, -end - 1 if end > -(1 << 60) else 1 << 60, -step  # noqa: PLW2901
        x = x[(*(slice(None),) * (axis % x.dim()), slice(start, end, step))]
    return x  # type: ignore[no-any-return]


def _gather(node: Node, *operands: Any) -> Tensor:
    x, axis, indices = operands[0], node.attributes.get("axis", 0), operands[1]
    if isinstance(indices, Tensor):
        node.refuse("with indices that depend on the input's values")
    if indices.ndim == 0:
        return torch.select(x, axis, int(indices))
    return torch.cat([torch.narrow(x, axis, int(index) % x.shape[axis], 1) for index in indices], axis)


def _pad(node: Node, *operands: Any) -> Tensor:
    x, pads, axes = operands[0], numbers(node, operands, 1, "pads") or [], numbers(node, operands, 3)
    rank = len(pads) // 2
    sides = dict(zip([axis % x.dim() for axis in axes or range(rank)], zip(pads[:rank], pads[rank:], strict=True), strict=True))
    around = [side for axis in reversed(range(min(sides), x.dim())) for side in sides.get(axis, (0, 0))]
    while around[-2:] == [0, 0]:
        around = around[:-2]
    if not around:
        return x  # type: ignore[no-any-return]
    value = (numbers(node, operands, 2, "value") or [0.0])[0]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[node.attributes.get("mode", "constant")]
    return F.pad(x, around, mode, value) if mode == "constant" else F.pad(x, around, mode)


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    block, (n, c, h, w) = node.attributes["blocksize"], x.shape
    if node.attributes.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    block, (n, c, h, w) = node.attributes["blocksize"], x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _cast(node: Node, x: Tensor) -> Tensor:
    if node.attributes.get("to") not in (None, 1, 10, 11):  # float, float16, double: threepc computes in one type, fixed point
        node.refuse("to a type that is no float")
    return x


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x, x.shape[node.attributes.get("axis", -1) % x.dim() :], scale, bias, node.attributes.get("epsilon", 1e-5))


def _pow(node: Node, x: Any, exponent: Any) -> Tensor:
    power = numbers(node, (x, exponent), 1) or [1]
    return torch.pow(x, float(power[0]))


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def fold(node: Node, *operands: Any) -> Any:
        result = operands[0]
        for operand in operands[1:]:
            result = function(result, operand)
        return result

    return fold


def _of_one(function: Callable[[Any], Tensor]) -> Callable[..., Tensor]:
    return lambda node, x: function(x)


def _div(node: Node, x: Any, y: Any) -> Tensor:
    """A constant divisor was inverted when the file was read."""
    return x * y if node.attributes.get("prepared") else x / y  # type: ignore[no-any-return]


def _sub(node: Node, x: Any, y: Any) -> Tensor:
    return x + y if node.attributes.get("prepared") else x - y  # type: ignore[no-any-return]


def _expand(node: Node, *operands: Any) -> Tensor:
    shape = np.broadcast_shapes(tuple(operands[0].shape), tuple(numbers(node, operands, 1) or ()))
    return operands[0].expand(shape)  # type: ignore[no-any-return]


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.attributes.get("axis", 1)
    return torch.flatten(x, 1) if axis % x.dim() == 1 else torch.reshape(x, (math.prod(x.shape[:axis]), -1))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Abs": _of_one(torch.abs),
    "Add": _folded(lambda x, y: x + y),
    "AveragePool": windows.average_pool,
    "BatchNormalization": windows.batch_norm,
    "Cast": _cast,
    "Celu": lambda node, x: F.celu(x, node.attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "Concat": lambda node, *operands: torch.cat(operands, node.attributes["axis"]),
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _div,
    "Dropout": lambda node, x, *rest: x,
    "Elu": lambda node, x: F.elu(x, node.attributes.get("alpha", 1.0)),
    "Erf": _of_one(torch.erf),
    "Exp": _of_one(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda node, x: F.gelu(x, approximate=node.attributes.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(list(range(2, x.dim())), keepdim=True),
    "GlobalMaxPool": lambda node, x: F.max_pool2d(x, x.shape[2:]),
    "GroupNormalization": lambda node, x, scale, bias: F.group_norm(
        x, node.attributes["num_groups"], scale, bias, node.attributes.get("epsilon", 1e-5)
    ),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _of_one(F.hardswish),
    "Identity": _of_one(lambda x: x),
    "InstanceNormalization": lambda node, x, scale, bias: F.instance_norm(
        x, weight=scale, bias=bias, eps=node.attributes.get("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.attributes.get("alpha", 0.01)),
    "Log": _of_one(torch.log),
    "MatMul": _matmul,
    "Max": _folded(torch.maximum),
    "MaxPool": windows.max_pool,
    "Mean": lambda node, *operands: _folded(lambda x, y: x + y)(node, *operands) / len(operands),
    "Min": _folded(torch.minimum),
    "Mish": _of_one(F.mish),
    "Mul": _folded(lambda x, y: x * y),
    "Neg": _of_one(torch.neg),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": _of_one(torch.reciprocal),
    "ReduceMax": lambda node, *operands: _reduce(node, operands, torch.amax),
    "ReduceMean": lambda node, *operands: _reduce(node, operands, torch.mean),
    "ReduceMin": lambda node, *operands: _reduce(node, operands, torch.amin),
    "ReduceSum": lambda node, *operands: _reduce(node, operands, torch.sum),
    "Relu": _of_one(F.relu),
    "Reshape": _reshape,
    "Resize": windows.resize,
    "Selu": _of_one(F.selu),
    "Sigmoid": _of_one(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _of_one(F.softplus),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _of_one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _folded(lambda x, y: x + y),
    "Tanh": _of_one(torch.tanh),
    "Transpose": lambda node, x: torch.permute(x, node.attributes.get("perm") or list(reversed(range(x.dim())))),
    "Unsqueeze": _unsqueeze,
    "Upsample": windows.resize,
}
"""By the name that ONNX gives the operation."""

NUMBERS = frozenset(("Clip", "Dropout", "Pad", "Pow", "Resize", "Upsample"))
"""Operations whose constant operands are settings, not weights."""


def prepared(node: Node, constants: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The constant operands of an operation as its function takes them, worked out once: a matrix transposed, a divisor inverted.

    Raises InputError for a Gemm whose matrices are not (activation, constant).
    """
    attributes = node.attributes
    if node.kind == "Gemm":
        if attributes.get("transA", 0) or 1 not in constants or 0 in constants:
            raise InputError("Gemm of other operands than a vector and a constant matrix")
        matrix = constants[1] if attributes.get("transB", 0) else constants[1].T
        scaled = {1: attributes.get("alpha", 1.0) * matrix}
        if 2 in constants:
            scaled[2] = np.broadcast_to(attributes.get("beta", 1.0) * constants[2].reshape(-1), matrix.shape[:1])
        return scaled
    if node.kind == "MatMul" and 1 in constants and constants[1].ndim == 2:
        attributes["prepared"] = True
        return constants | {1: constants[1].T}
    if node.kind in ("Div", "Sub") and 1 in constants:
        attributes["prepared"] = True
        return constants | {1: 1 / constants[1] if node.kind == "Div" else -constants[1]}
    return constants
