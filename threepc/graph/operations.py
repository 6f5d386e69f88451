"""What each torch operation becomes in a Graph: one function per operation, called by the importer with a `Call`.

A function returns the `Value` that its operation produces: a new node (`Call.emit`), or the input itself where the operation
changes nothing. It refuses (`Call.refuse`) what has no secure protocol.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from threepc.graph import rearrange, smooth_operations
from threepc.graph.activation_operations import ACTIVATIONS
from threepc.graph.affine_operations import AFFINE
from threepc.graph.calls import Call, Operation, Value, pointwise
from threepc.graph.moves import moved_shape
from threepc.graph.product_operations import PRODUCTS
from threepc.graph.reductions import REDUCTIONS

SUPPORTED = (
    "conv2d, batch_norm, linear, relu, relu6, leaky_relu, prelu, hardtanh, clamp, hardsigmoid, abs, maximum, minimum, max_pool2d, avg_pool2d, "
    "adaptive pools, sum and mean and amax, sigmoid, tanh, silu, gelu, softplus, mish, elu, celu, selu, logsigmoid, softshrink, glu, softmax of two, add, sub, mul, square, matmul, hardswish, "
    "division by constants, cat, stack, views, slices, permutations, padding, shuffles, repetitions, interpolation, conv_transpose, dropout"
)


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (values * 2 if len(values) == 1 else values)]


def _same(call: Call) -> Value:
    return replace(call.view(call.arguments["self"]), torch_shape=call.torch_shape)


def _cast(call: Call) -> Value:
    if call.dtype != call.arguments["self"].meta["val"].dtype:
        call.refuse(f"which changes the number type to {call.dtype}; threepc computes in one type, fixed point")
    return _same(call)


def _dropout(call: Call) -> Value:
    if call.arguments["train"]:
        call.refuse("in training mode; drop only while training (training=self.training)")
    x = call.arguments["input"] if "input" in call.arguments else call.arguments["self"]  # the latter where it works in place
    return replace(call.view(x), torch_shape=call.torch_shape)


def _convolution(call: Call) -> Value:
    """In one dimension or two; rows of height 1 stand for the former. A padding of zeros before it becomes its own."""
    x, weight, bias = _linear_operands(call)
    rank = weight.ndim
    if len(x.torch_shape) != rank:
        call.refuse(f"on a tensor of shape {x.torch_shape}; threepc needs one of {rank} dimensions")
    dilation, stride = (_two(call.arguments[key], rank - 2, 1) for key in ("dilation", "stride"))
    weight = weight if rank == 4 else weight[:, :, None]
    kernel, padding = list(weight.shape[2:]), call.arguments["padding"]
    if isinstance(padding, str):
        totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        # Torch puts the odd cell of an even kernel's padding after the map.
        sides = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    else:
        sides = _two(padding, rank - 2, 0) * 2
    x, around = _without_padding(x)
    attrs = {"kernel": kernel, "stride": stride, "padding": [a + b for a, b in zip(sides, around, strict=True)], "dilation": dilation}
    return call.emit("conv", [call.moved(x)], attrs | {"groups": call.arguments["groups"]}, weight=weight, bias=bias)


def _two(value: Any, count: int, filler: int) -> list[int]:
    """Numbers for height and width from those of an operation in `count` dimensions."""
    return _pair(value) if count == 2 else [filler, value if isinstance(value, int) else int(value[0])]


def _without_padding(x: Value) -> tuple[Value, list[int]]:
    """The value before zeros were put around its map, and how many: top, left, bottom, right."""
    sides, moves = [0, 0, 0, 0], list(x.moves)
    whole = bool(moves) and all(move[0] == "take" and move[1] in (1, 2) and move[3] == 1 for move in moves)
    whole = whole and x.torch_shape[1:] == tuple(moved_shape(x.shape, moves))
    for _, axis, start, _, count in moves if whole else ():
        sides[axis - 1] -= start
        sides[axis + 1] += start + count - x.shape[axis]
    if not whole or min(sides) < 0 or len({move[1] for move in moves}) < len(moves):
        return x, [0, 0, 0, 0]
    return replace(x, moves=(), torch_shape=(x.torch_shape[0], *x.shape)), sides


def _transposed_convolution(call: Call) -> Value:
    """The convolution with the mirrored kernel of the map with stride - 1 zeros between its cells."""
    x, given = call.view(call.arguments["input"]), call.arguments
    weight = call.constant(given["weight"])
    if weight is None or weight.ndim not in (3, 4) or len(x.torch_shape) != weight.ndim:
        call.refuse(f"on a tensor of shape {x.torch_shape}; threepc needs maps, or rows of numbers, with their channels")
    rank, groups = weight.ndim, given["groups"]
    weight = weight if rank == 4 else weight[:, :, None]
    dilation, stride = (_two(given[key], rank - 2, 1) for key in ("dilation", "stride"))
    padding, beyond = (_two(given[key], rank - 2, 0) for key in ("padding", "output_padding"))
    before = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    spread = []
    for axis in range(1, rank - 1):
        which, size = axis - 1 + 4 - rank, x.torch_shape[1 + axis]
        cells = [cell // stride[which] if cell % stride[which] == 0 else -1 for cell in range((size - 1) * stride[which] + 1)]
        cut = max(0, -before[which]), max(0, -before[which] - beyond[which])
        spread.append(rearrange.along(axis, cells[cut[0] : len(cells) - cut[1]]))
    shape = (*x.torch_shape[:2], *(move[4] if move[0] == "take" else len(move[2]) for move in spread))
    x = rearrange.rearranged(call, x, *rearrange.shrinking_first(spread, x.torch_shape[1:]), shape=shape, name=f"{call.name}.spread")
    inputs, outputs, *kernel = weight.shape
    own = weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2).reshape(groups * outputs, inputs // groups, *kernel)
    bias = call.constant(given["bias"])
    sides = [max(0, b) for b in before] + [max(0, b + more) for b, more in zip(before, beyond, strict=True)]
    attrs = {"kernel": kernel, "stride": [1, 1], "padding": sides, "dilation": dilation, "groups": groups}
    flipped = own[:, :, ::-1, ::-1].copy()
    return call.emit("conv", [call.moved(x)], attrs, weight=flipped, bias=np.zeros(groups * outputs) if bias is None else bias)


def _linear(call: Call) -> Value:
    """Over the last dimension, which becomes the channels."""
    x, weight, bias = _linear_operands(call)
    axes = list(range(len(x.torch_shape) - 1))
    if len(axes) <= 1:
        return call.emit("conv", [call.moved(x)], pointwise(groups=1), weight=weight[:, :, None, None], bias=bias)
    fronted = [axes[-1], *axes[:-1]]
    batch, *sizes = x.torch_shape
    shape = (batch, *(sizes[axis] for axis in fronted))
    x = call.moved(rearrange.rearranged(call, x, ["permute", fronted], shape=shape, name=f"{call.name}.front"))
    made = call.emit("conv", [x], pointwise(groups=1), weight=weight[:, :, None, None], bias=bias)
    made = replace(made, torch_shape=(batch, len(weight), *shape[2:]))
    return rearrange.rearranged(call, made, ["permute", [*axes[1:], 0]], name=f"{call.name}.back")


def _linear_operands(call: Call) -> tuple[Value, np.ndarray, np.ndarray]:
    x, weight = call.view(call.arguments["input"]), call.constant(call.arguments["weight"])
    if weight is None:
        call.refuse("without a weight")
    bias = call.constant(call.arguments["bias"])
    return x, weight, np.zeros(weight.shape[0]) if bias is None else bias


def _batch_norm(call: Call) -> Value:
    x = call.activation(call.arguments["input"])
    mean, variance = call.constant(call.arguments["running_mean"]), call.constant(call.arguments["running_var"])
    if call.arguments.get("training", call.arguments.get("use_input_stats")) or mean is None or variance is None:
        call.refuse("with the statistics of the batch; it needs running statistics (track_running_stats=True)")
    variance = variance + call.arguments["eps"]
    if not (variance > 0).all():
        call.refuse("with a running variance that is not positive; repair the checkpoint")
    scale = 1 / np.sqrt(variance)
    gamma, beta = call.constant(call.arguments["weight"]), call.constant(call.arguments["bias"])
    if gamma is not None:
        scale = scale * gamma
    bias = -mean * scale if beta is None else beta - mean * scale
    return call.affine(x, scale, bias)


def _of_rank(call: Call) -> tuple[Value, int]:
    """The input, and its dimensions: maps of an operation called 2d, of one called 1d rows of numbers, which have the height 1."""
    rank = 3 if "1d" in call.operation else 4
    return call.activation(call.arguments["self"], rank=rank), rank


def _map_size(call: Call) -> list[int]:
    sizes = call.torch_shapes[0][2:]
    return [*([1] * (2 - len(sizes))), *sizes]


def _pool(call: Call) -> tuple[Value, dict[str, Any], bool]:
    """The input, the node's attributes, and whether windows hang over the padded map (ceil_mode), which then gets more padding."""
    x, rank = _of_rank(call)
    kernel, padding, dilation = (
        _two(call.arguments.get(key, 1), rank - 2, 1 - (key == "padding")) for key in ("kernel_size", "padding", "dilation")
    )
    stride = _two(call.arguments["stride"] or call.arguments["kernel_size"], rank - 2, 1)
    needed = [(_map_size(call)[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    excess = [max(0, needed[i] - x.shape[1 + i] - 2 * padding[i]) for i in (0, 1)]
    sides = [*padding, padding[0] + excess[0], padding[1] + excess[1]]
    return x, {"kernel": kernel, "stride": stride, "padding": sides, "dilation": dilation}, any(excess)


def _max_pool(call: Call) -> Value:
    x, attrs, _ = _pool(call)
    return replace(call.emit("maxpool", [x], attrs), torch_shape=call.torch_shapes[0])


def _max_pool_with_indices(call: Call) -> list[Value]:
    return [_max_pool(call)]


def _avg_pool(call: Call) -> Value:
    x, attrs, hangs_over = _pool(call)
    del attrs["dilation"]
    divisor = call.arguments.get("divisor_override")
    if divisor is None:
        if hangs_over or (any(attrs["padding"]) and not call.arguments["count_include_pad"]):
            return _uneven_averages(call, x, attrs)
        divisor = attrs["kernel"][0] * attrs["kernel"][1]
    return call.emit("avgpool", [x], attrs | {"divisor": float(divisor)})


def _uneven_averages(call: Call, x: Value, attrs: dict[str, Any]) -> Value:
    """Averages whose divisor varies along the border: ceil_mode, count_include_pad=False."""
    padding = _two(call.arguments["padding"], len(call.torch_shape) - 2, 0)
    name = "counted" if call.arguments["count_include_pad"] else "window"
    sizes = zip(_map_size(call), attrs["kernel"], attrs["stride"], padding, padding, strict=True)
    rows, columns = ([name, *numbers] for numbers in sizes)
    return call.emit("resample", [x], {"rows": rows, "columns": columns})


def _adaptive_avg_pool(call: Call) -> Value:
    x, size = _of_rank(call)[0], _map_size(call)
    if x.shape[1:] == (1, 1):
        return _broadcast(call, x, size)
    if x.shape[1] % size[0] or x.shape[2] % size[1]:
        rules = [[] if new == old else ["adaptive", new] for new, old in zip(size, x.shape[1:], strict=True)]
        return call.emit("resample", [x], {"rows": rules[0], "columns": rules[1]})
    return _average(call, x, [x.shape[1] // size[0], x.shape[2] // size[1]])


def _average(call: Call, x: Value, kernel: list[int]) -> Value:
    if kernel == [1, 1]:
        return replace(x, torch_shape=call.torch_shape)
    attrs = {"kernel": kernel, "stride": kernel, "padding": [0, 0, 0, 0], "divisor": float(kernel[0] * kernel[1])}
    return call.emit("avgpool", [x], attrs)


def _bilinear(call: Call) -> Value:
    x, size = call.activation(call.arguments["input"], rank=4), list(call.torch_shape[2:])
    align, factors = bool(call.arguments["align_corners"]), call.arguments.get("scale_factors")
    if x.shape[1:] == (1, 1) or list(x.shape[1:]) == size:
        return _broadcast(call, x, size)
    if factors and not align and any(n * f != m for n, f, m in zip(x.shape[1:], factors, size, strict=True)):
        rows, columns = (["linear", new, False, 1 / factor] for new, factor in zip(size, factors, strict=True))
        return call.emit("resample", [x], {"rows": rows, "columns": columns})
    return replace(x, torch_shape=call.torch_shape, resize=[*size, align], name=call.name)


def _broadcast(call: Call, x: Value, size: list[int]) -> Value:
    return replace(x, torch_shape=call.torch_shape) if list(x.shape[1:]) == size else call.emit("resize", [x], {"size": size})


# By name in torch's aten library, without overload; `name_` (in place) is looked up as `name`.
OPERATIONS = {
    **rearrange.REARRANGEMENTS,
    "conv1d": Operation(_convolution, nn.Conv1d),
    "conv2d": Operation(_convolution, nn.Conv2d),
    "conv_transpose1d": Operation(_transposed_convolution, nn.ConvTranspose1d),
    "conv_transpose2d": Operation(_transposed_convolution, nn.ConvTranspose2d),
    "batch_norm": Operation(_batch_norm, nn.modules.batchnorm._BatchNorm),
    "linear": Operation(_linear, nn.Linear),
    **ACTIVATIONS,
    "instance_norm": Operation(_batch_norm, nn.modules.instancenorm._InstanceNorm),
    "max_pool1d": Operation(_max_pool, nn.MaxPool1d),
    "max_pool2d": Operation(_max_pool, nn.MaxPool2d),
    "max_pool1d_with_indices": Operation(_max_pool_with_indices, nn.MaxPool1d),
    "max_pool2d_with_indices": Operation(_max_pool_with_indices, nn.MaxPool2d),
    "avg_pool1d": Operation(_avg_pool, nn.AvgPool1d),
    "avg_pool2d": Operation(_avg_pool, nn.AvgPool2d),
    "adaptive_avg_pool1d": Operation(_adaptive_avg_pool, nn.AdaptiveAvgPool1d),
    "adaptive_avg_pool2d": Operation(_adaptive_avg_pool, nn.AdaptiveAvgPool2d),
    "upsample_bilinear2d": Operation(_bilinear, nn.Upsample),
    "dropout": Operation(_dropout, nn.Dropout),
    "feature_dropout": Operation(_dropout, (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)),
    "alpha_dropout": Operation(_dropout, nn.AlphaDropout),
    "feature_alpha_dropout": Operation(_dropout, nn.FeatureAlphaDropout),
    "to": Operation(_cast),
    "contiguous": Operation(_same),
    "clone": Operation(_same),
    "detach": Operation(_same),
    "alias": Operation(_same),
    **PRODUCTS,
    **smooth_operations.OPERATIONS,
    **AFFINE,
    **REDUCTIONS,
}

# Results of these may share memory with their input, so that a later operation in place on one changes the other.
VIEWS = rearrange.VIEWS | {
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "to", "contiguous", "detach", "alias",
}  # fmt: skip
