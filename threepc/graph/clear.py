"""The network in the clear, in float64: what every secure run is compared with."""

from collections.abc import Container, Iterator, Mapping

import numpy as np
import torch
from torch.nn import functional

from threepc.brelu.module import BlockReLU
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node, Weights
from threepc.graph.resize import bilinear


Sizes = Mapping[str, tuple[tuple[int, int], ...]]


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
    graph: Graph, weights: Weights, x: torch.Tensor, sizes: Sizes | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[Node, torch.Tensor]]:
    """As `evaluate`, one node and its output (of type `dtype`) after the other; a value is let go after its last use."""
    if tuple(x.shape[1:]) != graph.input.shape:
        raise InputError(f"the input must be (N, {', '.join(map(str, graph.input.shape))}), not {tuple(x.shape)}")
    last_reader = {name: node.name for node in graph.nodes for name in node.inputs}
    values: dict[str, torch.Tensor] = {graph.input.name: x.to(dtype)}
    yield graph.input, values[graph.input.name]
    for node in graph.nodes[1:]:
        inputs = [values[name] for name in node.inputs]
        with torch.no_grad():
            values[node.name] = _run(node, inputs, weights.get(node.name), (sizes or {}).get(node.name))
        yield node, values[node.name]
        for name in set(node.inputs):
            if last_reader[name] == node.name:
                del values[name]


def _run(node: Node, inputs: list[torch.Tensor], weights: dict | None, sizes: tuple[tuple[int, int], ...] | None) -> torch.Tensor:
    x, attrs = inputs[0], node.attrs
    if sizes is not None:
        return BlockReLU(np.array(sizes), attrs.get("max"))(x)
    match node.kind:
        case "conv":
            weight, bias = (torch.from_numpy(weights[key]).to(x.dtype) for key in ("weight", "bias"))
            return functional.conv2d(_pad(x, attrs, 0.0), weight, bias, attrs["stride"], 0, attrs["dilation"], attrs["groups"])
        case "relu":
            return x.clamp(min=0)
        case "clip":
            return x.clamp(0, attrs["max"])
        case "maxpool":
            return functional.max_pool2d(_pad(x, attrs, -torch.inf), attrs["kernel"], attrs["stride"], 0, attrs["dilation"])
        case "avgpool":
            return functional.avg_pool2d(_pad(x, attrs, 0.0), attrs["kernel"], attrs["stride"], divisor_override=1) / attrs["divisor"]
        case "add":
            return torch.stack(inputs).sum(dim=0)
        case "concat":
            return torch.cat(inputs, dim=1)
        case "reshape":
            return x.reshape(len(x), -1, 1, 1)
        case "resize":
            return x.expand(-1, -1, *attrs["size"])
        case "output":
            return torch.from_numpy(bilinear(x.numpy(), *attrs["resize"])) if "resize" in attrs else x
    raise AssertionError(f"no rule to evaluate {node.kind}")


def _pad(x: torch.Tensor, attrs: dict, value: float) -> torch.Tensor:
    top, left, bottom, right = attrs["padding"]
    return functional.pad(x, (left, right, top, bottom), value=value)
