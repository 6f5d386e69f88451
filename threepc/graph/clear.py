"""The network in the clear, in float64: what every secure run is compared with."""

import math
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds, clip_slope
from threepc.graph.block_relu import BlockReLU
from threepc.graph.ir import Graph, Node, Weights, signs
from threepc.graph.moves import Moves, cells
from threepc.graph.relu_spec import Sizes
from threepc.graph.resampling import taps
from threepc.images.resize import bilinear


def evaluate(
    graph: Graph, weights: Weights, x: torch.Tensor, keep: Container[str] = (), sizes: Sizes | None = None
) -> dict[str, torch.Tensor]:
    """Run the graph on images.

    Parameters: `x`, a real (N, C, H, W) tensor, C, H and W those of the graph's input; `keep`, names of nodes whose outputs are wanted;
    `sizes`, the patch size of every channel of block ReLUs, by node name.

    Returns the float64 outputs (N, C, H, W) of the kept nodes and of the output node (whose final resize, if any, is done), by name.
    Raises InputError if x has another shape.
    """
    return {node.name: value for node, value in walk(graph, weights, x, sizes) if node.name in keep or node.kind == "output"}


def walk(
    graph: Graph,
    weights: Weights,
    x: torch.Tensor,
    sizes: Sizes | None = None,
    dtype: torch.dtype = torch.float64,
    change: Callable[[Node, list[torch.Tensor], torch.Tensor], torch.Tensor] = lambda _node, _inputs, value: value,
) -> Iterator[tuple[Node, torch.Tensor]]:
    """As `evaluate`, one node and its output (of type `dtype`) after the other; a value is let go after its last use.

    change: what is made of every node, its inputs and its output before another node reads it.
    """
    if tuple(x.shape[1:]) != graph.input.shape:
        raise InputError(f"the input must be (N, {', '.join(map(str, graph.input.shape))}), not {tuple(x.shape)}")
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    values: dict[str, torch.Tensor] = {graph.input.name: change(graph.input, [], x.to(dtype))}
    yield graph.input, values[graph.input.name]
    for node in graph.nodes[1:]:
        inputs = [values[name] for name in node.inputs]
        with torch.no_grad():
            values[node.name] = change(node, inputs, _run(node, inputs, weights.get(node.name), (sizes or {}).get(node.name)))
        yield node, values[node.name]
        for name in set(node.inputs):
            if last_reader[name] == node.name:
                del values[name]


def _run(
    node: Node, inputs: list[torch.Tensor], weights: dict[str, np.ndarray] | None, sizes: tuple[tuple[int, int], ...] | None
) -> torch.Tensor:
    x = inputs[0]
    if sizes is not None:
        return BlockReLU(np.array(sizes), node.attrs.get("max")).forward(x)
    if "resize" in node.attrs:
        return torch.from_numpy(bilinear(x.numpy(), *node.attrs["resize"]))
    parameters = () if weights is None else (torch.from_numpy(weights[key]).to(x.dtype) for key in ("weight", "bias"))
    return operate(node, inputs, *parameters)


def operate(node: Node, inputs: list[torch.Tensor], weight: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
    """One node with plain ReLUs on (N, C, H, W) tensors, without the output's final resize. `weight` and `bias` are a conv's."""
    x, attrs = inputs[0], node.attrs
    if node.kind in _SIZES:
        return _SIZES[node.kind](x, attrs)
    match node.kind:
        case "smooth":
            return _ACTIVATIONS[attrs["function"]](x, attrs["parameter"])
        case "relu" | "clip" | "bend" | "rectify":
            return _activate(node, x)
        case "conv" if weight is not None:
            x, padding = padded(x, attrs["padding"], 0.0)
            return functional.conv2d(x, weight, bias, attrs["stride"], padding, attrs["dilation"], attrs["groups"])
        case "maxpool":
            x, padding = padded(x, attrs["padding"], -math.inf, attrs["kernel"])
            pooled: torch.Tensor = functional.max_pool2d(x, attrs["kernel"], attrs["stride"], padding, attrs["dilation"])
            return pooled
        case "avgpool":
            x, padding = padded(x, attrs["padding"], 0.0, attrs["kernel"])
            sums: torch.Tensor = functional.avg_pool2d(x, attrs["kernel"], attrs["stride"], padding, divisor_override=1)
            return sums.div(attrs["divisor"])
        case "add" | "concat" | "multiply" | "matmul":
            return _joined(node, inputs)
        case "output" | "limit":
            return x
    raise AssertionError(f"no rule to evaluate {node.kind}")


def _joined(node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
    """What a node of several inputs makes of them."""
    if node.kind == "add":
        terms = [value if sign > 0 else -value for value, sign in zip(inputs, signs(node), strict=True)]
        return sum(terms[1:], terms[0])
    if node.kind == "concat":
        return torch.cat(inputs, dim=1)
    x, y = inputs
    return x @ y if node.kind == "matmul" else x * y


def _resampled(x: torch.Tensor, axis: int, rule: list[Any]) -> torch.Tensor:
    if not rule:
        return x
    found, weights = (torch.from_numpy(part).to(x.device) for part in taps(rule, x.shape[axis]))
    shape = [1, 1, 1, 1]
    shape[axis] = len(found)
    terms = zip(found.T, weights.T.to(x.dtype), strict=True)
    return sum(
        (x.index_select(axis, cells) * weight.reshape(shape) for cells, weight in terms), torch.zeros((), dtype=x.dtype, device=x.device)
    )


_ACTIVATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "tanh": lambda x, _: torch.tanh(x),
    "silu": lambda x, _: functional.silu(x),
    "gelu": lambda x, _: functional.gelu(x),
    "gelu_tanh": lambda x, _: functional.gelu(x, approximate="tanh"),
    "softplus": functional.softplus,
    "mish": lambda x, _: functional.mish(x),
    "elu": functional.elu,
    "celu": functional.celu,
}


def moved(x: torch.Tensor, moves: Moves) -> torch.Tensor:
    """x (N, ...) with every image moved, as moves.py says."""
    for move in moves:
        name, where = move[0], move[1]
        if name == "reshape":
            x = x.reshape(len(x), *where)
        elif name == "permute":
            x = x.permute(0, *(axis + 1 for axis in where))
        else:
            chosen = torch.from_numpy(cells(move, x.shape[where + 1])).to(x.device)
            x = x.index_select(where + 1, chosen.clamp(min=0))
            if (chosen < 0).any():
                x = x.movedim(where + 1, -1) * (chosen >= 0)
                x = x.movedim(-1, where + 1)
    return x


def _activate(node: Node, x: torch.Tensor) -> torch.Tensor:
    attrs = node.attrs
    if node.kind == "clip":
        low, high = clip_bounds(attrs)
        first, slope = clip_slope(attrs)
        clamped = x.clamp(low, high)
        return clamped if slope == 1 and first == low else clamped.sub(low).mul(slope).add(first)
    if node.kind == "bend":
        (below, above), at = attrs["slopes"], attrs.get("at", 0.0)
        from_kink = x.sub(at)
        return torch.where(from_kink < 0, from_kink * below, from_kink * above).add(at)
    if node.kind == "rectify":
        return torch.stack([torch.relu(x), x], dim=2).flatten(1, 2)
    return torch.relu(x)


def padded(x: torch.Tensor, padding: list[int], value: float, kernel: list[int] | None = None) -> tuple[torch.Tensor, list[int]]:
    """`x` with the padding that torch's operations cannot do themselves, and the padding left to them. `kernel`: a pooling's window."""
    # torch takes symmetric padding only, and for pooling at most half a window.
    top, left, bottom, right = padding
    if (top, left) == (bottom, right) and (kernel is None or (2 * top <= kernel[0] and 2 * left <= kernel[1])):
        return x, [top, left]
    return functional.pad(x, (left, right, top, bottom), value=value), [0, 0]


_SIZES: dict[str, Callable[[torch.Tensor, dict[str, Any]], torch.Tensor]] = {
    "gather": lambda x, attrs: moved(x, attrs["moves"]),
    "reshape": lambda x, _: x.reshape(len(x), -1, 1, 1),
    "resample": lambda x, attrs: _resampled(_resampled(x, 2, attrs["rows"]), 3, attrs["columns"]),
    "resize": lambda x, attrs: x.expand(-1, -1, *attrs["size"]),
}
"""Kinds that only move or mix cells of each channel."""
