"""Operations that only rearrange cells: views, slices, repetitions, padding. They become moves, and a chain of them one node.

As in operations.py a function gives the `Value` that its operation produces; here it is the input with more moves, and no node until a
layer reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from threepc.graph.calls import Call, Operation, Value
from threepc.graph.moves import are_bounded, simplified


def rearranged(call: Call, x: Value, *moves: list[Any], shape: Sequence[int] | None = None, name: str = "") -> Value:
    """x after `moves` of the dimensions behind the batch. shape: the result's in torch, by default the operation's own."""
    # on the way no tensor may be larger than both the first and the last: what would is done by two nodes
    torch_shape = call.torch_shape if shape is None else tuple(shape)
    found = simplified(x.shape, [*x.moves, ["reshape", list(x.torch_shape[1:])], *moves])
    if not are_bounded(x.shape, found):
        x = call.moved(x)
        found = simplified(x.shape, [["reshape", list(x.torch_shape[1:])], *moves])
    if not are_bounded(x.shape, found):
        call.refuse(f"from {x.torch_shape} to {torch_shape}, which takes moves that are too many or too large")
    return Value(x.node, x.shape, torch_shape, moves=tuple(found), name=name or call.name)


def axis_of(call: Call, x: Value, dimension: int) -> int:
    """The axis behind the batch that a dimension of torch's is."""
    axis = dimension % len(x.torch_shape) - 1
    if axis < 0:
        call.refuse("over the batch; every image is by itself")
    return axis


def shrinking_first(moves: list[list[Any]], sizes: Sequence[int]) -> list[list[Any]]:
    """Moves along different axes, in the order that keeps what is on the way small."""
    return sorted(moves, key=lambda move: (move[4] if move[0] == "take" else len(move[2])) / sizes[move[1]])


def along(axis: int, cells: Sequence[int]) -> list[Any]:
    """The move that gives these cells of an axis; -1 for zeros."""
    step = cells[1] - cells[0] if len(cells) > 1 else 1
    if cells[0] >= 0 and all(cell == cells[0] + step * i for i, cell in enumerate(cells)):
        return ["take", axis, cells[0], step, len(cells)]
    return ["index", axis, list(cells)]


def _self(call: Call) -> Value:
    return call.view(call.arguments["self"])


def _reshape(call: Call) -> Value:
    x, shape = _self(call), call.torch_shape
    if shape[:1] != x.torch_shape[:1]:
        call.refuse(f"from {x.torch_shape} to {shape}; the batch must stay the first dimension, and apart")
    if not x.moves and len(shape) == 2 and x.shape[1:] != (1, 1):
        return call.emit("reshape", [replace(x, torch_shape=(shape[0], *x.shape))])
    if not x.moves:
        return replace(x, torch_shape=shape, name=call.name)
    return rearranged(call, x, ["reshape", list(shape[1:])])


def _permuted(call: Call, x: Value, order: Sequence[int]) -> Value:
    """order: for each dimension of the result the one it is, the batch's included."""
    if order[0] != 0:
        call.refuse("that moves the batch; it must stay the first dimension")
    return rearranged(call, x, ["permute", [axis - 1 for axis in order[1:]]])


def _permute(call: Call) -> Value:
    x = _self(call)
    return _permuted(call, x, [axis % len(x.torch_shape) for axis in call.arguments["dims"]])


def _transpose(call: Call) -> Value:
    x, given = _self(call), call.arguments
    order = list(range(len(x.torch_shape)))
    first, second = [given[key] for key in (("dim0", "dim1") if "dim0" in given else ("axis0", "axis1"))]
    order[first], order[second] = order[second], order[first]
    return _permuted(call, x, order)


def _movedim(call: Call) -> Value:
    x = _self(call)
    numbered = torch.empty(tuple(range(1, len(x.torch_shape) + 1)), device="meta")  # sizes that tell the axes apart
    source, destination = (call.arguments[key] for key in ("source", "destination"))
    return _permuted(call, x, [size - 1 for size in torch.movedim(numbered, source, destination).shape])


def _slice(call: Call) -> Value:
    x, given = _self(call), call.arguments
    if call.torch_shape == x.torch_shape:
        return x
    axis = axis_of(call, x, given["dim"])
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(x.torch_shape[axis + 1])
    return rearranged(call, x, ["take", axis, start, step, len(range(start, stop, step))])


def _narrow(call: Call) -> Value:
    x, given = _self(call), call.arguments
    axis = axis_of(call, x, given["dim"])
    return rearranged(call, x, ["take", axis, given["start"] % x.torch_shape[axis + 1], 1, given["length"]])


def _select(call: Call) -> Value:
    x, given = _self(call), call.arguments
    axis = axis_of(call, x, given["dim"])
    cell = ["take", axis, given["index"] % x.torch_shape[axis + 1], 1, 1]
    return rearranged(call, x, cell, ["reshape", list(call.torch_shape[1:])])


def _pieces(call: Call) -> list[Value]:
    """chunk, split, unbind: neighbours along a dimension, as torch sizes them."""
    x = _self(call)
    axis, start, found = axis_of(call, x, call.arguments.get("dim", 0)), 0, []
    for index, shape in enumerate(call.torch_shapes):
        count = shape[axis + 1] if len(shape) == len(x.torch_shape) else 1
        moves = ["take", axis, start, 1, count], ["reshape", list(shape[1:])]
        found.append(rearranged(call, x, *moves, shape=shape, name=f"{call.name}.{index}"))
        start += count
    return found


def _index_select(call: Call) -> Value:
    return _indexed(call, call.arguments["dim"], call.arguments["index"])


def _index(call: Call) -> Value:
    given = [(dimension, index) for dimension, index in enumerate(call.arguments["indices"]) if index is not None]
    if len(given) != 1:
        call.refuse("with indices along several dimensions at once; index one after the other")
    return _indexed(call, *given[0])


def _indexed(call: Call, dimension: int, index: Any) -> Value:
    x, cells = _self(call), call.integers(index)
    if cells is None:
        call.refuse("with indices that are no constant list of whole numbers")
    axis = axis_of(call, x, dimension)
    return rearranged(call, x, along(axis, [cell % x.torch_shape[axis + 1] for cell in cells]))


def _flip(call: Call) -> Value:
    x = _self(call)
    axes = [axis_of(call, x, dimension) for dimension in call.arguments["dims"]]
    return rearranged(call, x, *(["take", axis, x.torch_shape[axis + 1] - 1, -1, x.torch_shape[axis + 1]] for axis in axes))


def _roll(call: Call) -> Value:
    x, dimensions, moves = _self(call), call.arguments["dims"], []
    if not dimensions:
        call.refuse("over the batch; every image is by itself")
    for shift, dimension in zip(call.arguments["shifts"], dimensions, strict=True):
        axis = axis_of(call, x, dimension)
        size = x.torch_shape[axis + 1]
        moves.append(along(axis, [(cell - shift) % size for cell in range(size)]))
    return rearranged(call, x, *moves)


def expanded(call: Call, x: Value, shape: Sequence[int]) -> Value:
    """x with its dimensions of 1 repeated to `shape`, new ones before them; refuses what repeats the batch."""
    sizes = list(x.torch_shape[1:])
    grown = [1] * (len(shape) - 1 - len(sizes)) + sizes
    if len(shape) < len(x.torch_shape) or shape[0] != x.torch_shape[0] or (len(shape) > len(x.torch_shape) and x.torch_shape[0] != 1):
        call.refuse(f"from {x.torch_shape} to {tuple(shape)}; the batch must stay the first dimension, and apart")
    repeats = [["take", axis, 0, 0, size] for axis, (old, size) in enumerate(zip(grown, shape[1:], strict=True)) if old != size]
    return rearranged(call, x, ["reshape", grown], *repeats, shape=shape) if repeats or len(grown) > len(sizes) else x


def _expand(call: Call) -> Value:
    return replace(expanded(call, _self(call), call.torch_shape), torch_shape=call.torch_shape)


def _repeat(call: Call) -> Value:
    x = _self(call)
    times = call.arguments["repeats"] if "repeats" in call.arguments else call.arguments["dims"]
    times = [1] * (len(x.torch_shape) - len(times)) + list(times)
    if len(times) != len(x.torch_shape) or times[0] != 1:
        call.refuse("over the batch; every image is by itself")
    sizes = x.torch_shape[1:]
    apart = [size for pair in zip([1] * len(sizes), sizes, strict=True) for size in pair]
    taken = [["take", 2 * axis, 0, 0, count] for axis, count in enumerate(times[1:]) if count > 1]
    return rearranged(call, x, ["reshape", apart], *taken, ["reshape", list(call.torch_shape[1:])])


def _repeat_interleave(call: Call) -> Value:
    x, times, dimension = _self(call), call.arguments["repeats"], call.arguments["dim"]
    if not isinstance(times, int) or dimension is None:
        call.refuse("but by one number along one dimension")
    axis = axis_of(call, x, dimension)
    return rearranged(call, x, along(axis, [cell // times for cell in range(x.torch_shape[axis + 1] * times)]))


def _pad(call: Call) -> Value:
    x, given = _self(call), call.arguments
    sides, mode = given["pad"] if "pad" in given else given["padding"], given.get("mode") or _PAD_MODES[call.operation]
    fill = float(given.get("value") or 0) if mode == "constant" else 0.0
    if not math.isfinite(fill):
        call.refuse(f"with the constant {fill:g}; only finite ones have a place in a ring")
    if fill:  # zeros around x - fill, which fill is added to
        x = replace(_raised(call, call.moved(x), -fill, "lowered"), torch_shape=x.torch_shape)
    moves = []
    for number in range(len(sides) // 2):
        axis, (before, after) = axis_of(call, x, -1 - number), sides[2 * number : 2 * number + 2]
        size = x.torch_shape[axis + 1]
        if mode == "constant":
            moves.append(["take", axis, -before, 1, before + size + after])
        else:
            reach = torch.arange(size, dtype=torch.float64)[None, None, :]
            moves.append(along(axis, nn.functional.pad(reach, (before, after), mode=mode)[0, 0].long().tolist()))
    padded = rearranged(call, x, *shrinking_first(moves, x.torch_shape[1:]), name=f"{call.name}.padded" if fill else "")
    return _raised(call, call.moved(padded), fill) if fill else padded


def _raised(call: Call, x: Value, number: float, part: str = "") -> Value:
    return call.affine(x, np.ones(x.shape[0]), np.full(x.shape[0], number), part)


_PAD_MODES = {
    "constant_pad_nd": "constant",
    **{f"reflection_pad{n}d": "reflect" for n in (1, 2, 3)},
    **{f"replication_pad{n}d": "replicate" for n in (1, 2, 3)},
}


def _pixel_shuffle(call: Call) -> Value:
    x, r = _self(call), call.arguments["upscale_factor"]
    channels, height, width = x.torch_shape[1:]
    apart, order = ["reshape", [channels // r**2, r, r, height, width]], ["permute", [0, 3, 1, 4, 2]]
    return rearranged(call, x, apart, order, ["reshape", list(call.torch_shape[1:])])


def _pixel_unshuffle(call: Call) -> Value:
    x, r = _self(call), call.arguments["downscale_factor"]
    channels, height, width = x.torch_shape[1:]
    apart, order = ["reshape", [channels, height // r, r, width // r, r]], ["permute", [0, 2, 4, 1, 3]]
    return rearranged(call, x, apart, order, ["reshape", list(call.torch_shape[1:])])


def _channel_shuffle(call: Call) -> Value:
    x, groups = _self(call), call.arguments["groups"]
    channels, *others = x.torch_shape[1:]
    apart, order = ["reshape", [groups, channels // groups, math.prod(others)]], ["permute", [1, 0, 2]]
    return rearranged(call, x, apart, order, ["reshape", [channels, *others]])


def _nearest(call: Call) -> Value:
    x, size = call.view(call.arguments["input" if "input" in call.arguments else "self"]), list(call.torch_shape[2:])
    if len(x.torch_shape) == 4 and call.moved(x).shape[1:] == (1, 1) and size != [1, 1]:
        return call.emit("resize", [call.moved(x)], {"size": size})
    exact = "exact" in call.operation
    factors, moves = call.arguments.get("scale_factors"), []
    for axis, (old, new) in enumerate(zip(x.torch_shape[2:], size, strict=True), 1):
        cells = torch.arange(old, dtype=torch.float64)[None, None, :]
        how: dict[str, Any] = {"scale_factor": factors[axis - 1]} if factors else {"size": new}
        chosen = nn.functional.interpolate(cells, **how, mode="nearest-exact" if exact else "nearest")
        moves.append(along(axis, chosen[0, 0].long().tolist()))
    return rearranged(call, x, *shrinking_first(moves, x.torch_shape[1:]))


def _cat(call: Call) -> Value:
    return concatenated(call, [call.view(argument) for argument in call.arguments["tensors"]], call.arguments["dim"])


def _stack(call: Call) -> Value:
    values = [call.view(argument) for argument in call.arguments["tensors"]]
    dimension = 1 + axis_of(call, replace(values[0], torch_shape=call.torch_shape), call.arguments["dim"])
    shape = (*call.torch_shape[:dimension], 1, *call.torch_shape[dimension + 1 :])
    return concatenated(call, [rearranged(call, x, ["reshape", list(shape[1:])], shape=shape, name=x.name) for x in values], dimension)


def concatenated(call: Call, values: list[Value], dimension: int) -> Value:
    """Values one after the other along a dimension: along channels as they are, along others with these brought to the front."""
    if len(values) == 1:
        return replace(values[0], torch_shape=call.torch_shape)
    axis = axis_of(call, replace(values[0], torch_shape=call.torch_shape), dimension)
    if axis == 0:
        return call.emit("concat", [call.moved(value) for value in values])
    order = [axis, *(other for other in range(len(call.torch_shape) - 1) if other != axis)]
    fronted = []
    for index, x in enumerate(values):
        shape = (x.torch_shape[0], *(x.torch_shape[1 + one] for one in order))
        fronted.append(call.moved(rearranged(call, x, ["permute", order], shape=shape, name=f"{call.name}.{index}")))
    whole = call.emit("concat", fronted)
    front = (call.torch_shape[0], *(call.torch_shape[1 + one] for one in order))
    back = [order.index(one) for one in range(len(order))]
    return rearranged(call, replace(whole, torch_shape=front), ["permute", back], name=f"{call.name}.back")


_NEAREST = tuple(f"upsample_nearest{n}d" for n in (1, 2)), tuple(f"_upsample_nearest_exact{n}d" for n in (1, 2))

REARRANGEMENTS = {
    "flatten": Operation(_reshape, nn.Flatten),
    **dict.fromkeys(("view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"), Operation(_reshape)),
    "permute": Operation(_permute),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), Operation(_transpose)),
    **dict.fromkeys(("movedim", "moveaxis"), Operation(_movedim)),
    "slice": Operation(_slice),
    "narrow": Operation(_narrow),
    "select": Operation(_select),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "unbind", "unsafe_chunk", "tensor_split"), Operation(_pieces)),
    "index_select": Operation(_index_select),
    "index": Operation(_index),
    "flip": Operation(_flip),
    "roll": Operation(_roll),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), Operation(_expand)),
    **dict.fromkeys(("repeat", "tile"), Operation(_repeat)),
    "repeat_interleave": Operation(_repeat_interleave),
    "pad": Operation(_pad),
    "constant_pad_nd": Operation(_pad, (nn.ZeroPad2d, nn.ConstantPad2d)),
    **dict.fromkeys((*_PAD_MODES,), Operation(_pad)),
    "pixel_shuffle": Operation(_pixel_shuffle, nn.PixelShuffle),
    "pixel_unshuffle": Operation(_pixel_unshuffle, nn.PixelUnshuffle),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), Operation(_channel_shuffle, nn.ChannelShuffle)),
    **dict.fromkeys(sum(_NEAREST, ()), Operation(_nearest, nn.Upsample)),
    **dict.fromkeys(("cat", "concat", "concatenate"), Operation(_cat)),
    "stack": Operation(_stack),
}

# Results of these may share memory with their input, so that a later operation in place on one changes the other.
VIEWS = frozenset(
    (
        "flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as", "permute", "transpose", "swapaxes",
        "swapdims", "movedim", "moveaxis", "slice", "narrow", "select", "chunk", "split", "split_with_sizes", "unbind", "tensor_split",
        "expand", "expand_as", "broadcast_to",
    )
)  # fmt: skip
