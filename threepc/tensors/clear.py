"""A job in the clear, in float64: what its runs should reveal, and whether what its author assumes holds for these arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds
from threepc.graph.ir import Graph, Node, signs
from threepc.graph.moves import apply
from threepc.graph.smooth import ABS, RANGE, SMOOTH
from threepc.tensors.recording import named


def evaluated(graph: Graph, brought: Mapping[str, np.ndarray], unit: float, places: Mapping[str, str]) -> dict[str, np.ndarray]:
    """(C, H, W) by node, but of the parts of shares.

    brought: the owners' arrays, by the limits that they keep; unit: of the job's numbers; places: of its nodes, for messages.
    Raises InputError where a number is larger than assumed.
    """
    found = {name: np.rint(array / unit) * unit for name, array in brought.items()}
    for node in graph.nodes:
        if node.name not in found and node.kind != "input" and all(name in found for name in node.inputs):
            inputs = [found[name] for name in node.inputs]
            found[node.name] = _RULES[node.kind](node, [np.rint(x / unit) * unit for x in inputs] if node.kind == "clip" else inputs)
        if node.kind == "limit" and "by" not in node.attrs and (largest := np.abs(found[node.name]).max()) > node.attrs["size"]:
            raise InputError(
                f"{named(node.inputs[0], places)} reaches {largest:.6g} in size, and the job assumes at most {node.attrs['size']:g}"
            )
    return found


def _bent(node: Node, inputs: Sequence[np.ndarray]) -> Any:
    at = node.attrs.get("at", 0.0)
    return (inputs[0] - at) * np.where(inputs[0] < at, *node.attrs["slopes"]) + at


def _smooth(node: Node, inputs: Sequence[np.ndarray]) -> Any:
    (x,), own, parameter = inputs, SMOOTH[node.attrs["function"]], node.attrs["parameter"]
    if own.fold == RANGE:
        return np.vectorize(own.curve)(x, parameter) + (x if own.rising else 0.0)
    return np.maximum(x, 0) + np.vectorize(own.curve)(np.abs(x) if own.fold == ABS else np.maximum(-x, 0), parameter)


_RULES: dict[str, Callable[[Node, Sequence[np.ndarray]], Any]] = {
    "constant": lambda node, _: np.array(node.attrs["values"]).reshape(node.shape),
    "limit": lambda _, inputs: inputs[0],
    "output": lambda _, inputs: inputs[0],
    "gather": lambda node, inputs: apply(inputs[0][None], node.attrs["moves"])[0],
    "concat": lambda _, inputs: np.concatenate(inputs),
    "add": lambda node, inputs: sum(sign * each for sign, each in zip(signs(node), inputs, strict=True)),
    "multiply": lambda _, inputs: inputs[0] * inputs[1],
    "matmul": lambda _, inputs: inputs[0] @ inputs[1],
    "relu": lambda _, inputs: np.maximum(inputs[0], 0.0),
    "clip": lambda node, inputs: np.clip(inputs[0], *clip_bounds(node.attrs)),
    "bend": _bent,
    "smooth": _smooth,
    "avgpool": lambda node, inputs: inputs[0].sum(2, keepdims=True) / node.attrs["divisor"],  # of rows, as tensor.py makes them
    "maxpool": lambda _, inputs: inputs[0].max(2, keepdims=True),
}
