"""ONNX operations that look through windows, in torch: convolution, pooling, resizing; and how operations ask for numbers that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor


class Node(Protocol):
    """An operation of the file. attributes: as the file has them; opset: of the file; outputs: how many it has."""

    kind: str
    attributes: dict[str, Any]
    opset: int
    outputs: int

    def refuse(self, reason: str) -> NoReturn:
        """Raise InputError that names the operation."""


def numbers(node: Node, operands: Sequence[Any], index: int, attribute: str = "") -> list[Any] | None:
    """Whole numbers that newer opsets take as an operand and older ones as an attribute; None where there are none."""
    operand = operands[index] if index < len(operands) else None
    if operand is None:
        value = node.attributes.get(attribute)
        return value if value is None or isinstance(value, list) else [value]
    if isinstance(operand, Tensor):
        node.refuse("with sizes that depend on the input's values")
    return list(np.asarray(operand).reshape(-1).tolist())


def _pads(node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """[begin..., end...] of a window operation, auto_pad worked out."""
    rank, mode = len(kernel), node.attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads: list[int] = node.attributes.get("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return pads
    needed = [
        max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    small, large = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return [*small, *large] if mode == "SAME_UPPER" else [*large, *small]


def around(pads: Sequence[int]) -> list[int]:
    """[begin..., end...] as torch's pad takes it: the last axis first, begin and end of each."""
    rank = len(pads) // 2
    return [side for axis in reversed(range(rank)) for side in (pads[axis], pads[axis + rank])]


def _window(node: Node, x: Tensor, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    rank = len(kernel)
    stride, dilation = node.attributes.get("strides", [1] * rank), node.attributes.get("dilations", [1] * rank)
    return stride, dilation, _pads(node, x, kernel, stride, dilation)


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution in one to three dimensions; sides that differ are padded beforehand."""
    stride, dilation, pads = _window(node, x, weight.shape[2:])
    rank = len(pads) // 2
    if pads[:rank] != pads[rank:]:
        x, pads = F.pad(x, around(pads)), [0] * 2 * rank
    convolve: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(x, weight, bias, stride, pads[:rank], dilation, node.attributes.get("group", 1))


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Transposed convolution."""
    if "output_shape" in node.attributes or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        node.refuse("with output_shape or auto_pad; give its pads")
    stride, dilation, pads = _window(node, x, weight.shape[2:])
    rank = len(pads) // 2
    more = [
        extra + begin - end for extra, begin, end in zip(node.attributes.get("output_padding", [0] * rank), pads, pads[rank:], strict=False)
    ]
    if any(extra < 0 for extra in more):
        node.refuse(f"with pads {pads}")
    group = node.attributes.get("group", 1)
    convolve: Callable[..., Tensor] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    return convolve(x, weight, bias, stride, pads[:rank], more, group, dilation)


def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Batch norm with the file's statistics."""
    if node.attributes.get("training_mode", 0) or node.outputs > 1:
        node.refuse("in training mode; export the model in evaluation mode")
    return F.batch_norm(x, mean, variance, scale, bias, eps=node.attributes.get("epsilon", 1e-5))


def _pool(node: Node, x: Tensor, hanging: bool) -> tuple[dict[str, Any], Tensor, list[int]]:
    """Arguments of torch's pooling; the input and what must be padded beforehand, [] where torch can do it.

    hanging: windows that hang over the end may be torch's ceil_mode, where that gives as many.
    """
    kernel = node.attributes["kernel_shape"]
    stride, dilation, pads = _window(node, x, kernel)
    rank, ceil = len(kernel), bool(node.attributes.get("ceil_mode", 0))
    begin, end = pads[:rank], pads[rank:]
    arguments = {"kernel_size": kernel, "stride": stride, "padding": begin, "ceil_mode": ceil}
    if begin == end:
        return arguments, x, []
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    wanted = [(n + b + e - w) // s for n, b, e, w, s in zip(x.shape[2:], begin, end, spans, stride, strict=True)]
    given = [math.ceil((n + 2 * b - w) / s) for n, b, w, s in zip(x.shape[2:], begin, spans, stride, strict=True)]
    if hanging and not ceil and wanted == given:
        return arguments | {"ceil_mode": True}, x, []
    return arguments | {"padding": [0] * rank}, x, pads


def max_pool(node: Node, x: Tensor) -> Tensor:
    """Max pooling."""
    if node.outputs > 1:
        node.refuse("with indices")
    arguments, x, pads = _pool(node, x, hanging=True)
    if pads:
        x = F.pad(x, around(pads), value=-math.inf)
    pool: Callable[..., Tensor] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.dim() - 3]
    return pool(x, dilation=node.attributes.get("dilations", 1), **arguments)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Average pooling."""
    if set(node.attributes.get("dilations", [1])) != {1}:
        node.refuse("with dilations")
    counted = bool(node.attributes.get("count_include_pad", 0))
    arguments, x, pads = _pool(node, x, hanging=not counted)
    if pads and counted:
        x = F.pad(x, around(pads))
    elif pads:
        node.refuse(f"with pads {pads} that count in no average")
    return (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.dim() - 3](x, count_include_pad=counted, **arguments)


def resize(node: Node, *operands: Any) -> Tensor:
    """Resizing by factors or to sizes, where torch's interpolation means the same; refused where it does not."""
    x, old = operands[0], node.kind == "Upsample" or node.opset < 11
    scales = numbers(node, operands, 1 if old else 2, "scales") or None
    sizes = None if old else numbers(node, operands, 3) or None
    axes, attributes = [axis % x.dim() for axis in node.attributes.get("axes", range(x.dim()))], node.attributes
    how = attributes.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    mode, rounding = attributes.get("mode", "nearest"), attributes.get("nearest_mode", "floor" if old else "round_prefer_floor")
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch" or attributes.get("antialias", 0):
        node.refuse("with antialias or keep_aspect_ratio_policy")
    factors = dict(zip(axes, scales or [size / x.shape[axis] for axis, size in zip(axes, sizes or (), strict=True)], strict=True))
    if any(factors.get(axis, 1) != 1 for axis in (0, 1)):
        node.refuse("of batch or channels")
    grown = [factors.get(axis, 1) for axis in range(2, x.dim())]
    size = [math.floor(x.shape[2 + index] * factor + 1e-9) for index, factor in enumerate(grown)]
    whole = all(n * factor == m for n, factor, m in zip(x.shape[2:], grown, size, strict=True))
    if mode == "nearest":
        integer = all(float(factor).is_integer() for factor in grown)
        if not (how == "asymmetric" and rounding == "floor") and not (integer and rounding != "floor" and "half_pixel" in how):
            node.refuse(f"by nearest neighbour with {how} and {rounding}; torch's is asymmetric and floor")
        return F.interpolate(x, size, mode="nearest")
    if mode not in ("linear", "cubic") or how not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        node.refuse(f"with mode {mode} and {how}; torch has half_pixel and align_corners")
    name = "bicubic" if mode == "cubic" else {3: "linear", 4: "bilinear"}.get(x.dim(), "trilinear")
    aligned = how == "align_corners"
    if whole or aligned or scales is None:
        return F.interpolate(x, size, mode=name, align_corners=aligned)
    return F.interpolate(x, scale_factor=[float(factor) for factor in grown], mode=name, align_corners=aligned)
