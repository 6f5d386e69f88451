"""The public description of a network: a directed acyclic graph of a few node kinds, without weights.

All three parties hold the same Graph; the client and the provider get it from the server and do not trust it, so
`Graph` checks everything about itself whenever one is built: kinds, names, order, attributes and their ranges, and every shape
against `infer_shape`. Weights travel apart (`Weights`) and are known to the server only. No torch here. kinds.py lists the kinds.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from threepc.errors import InputError, typed
from threepc.files import parse_json
from threepc.graph.activations import takes_patches
from threepc.graph.kinds import (
    ATTRIBUTES,
    KINDS,
    MAX_ELEMENTS,
    MAX_JSON,
    MAX_NAME,
    MAX_NODES,
    MAX_SIDE,
    NO_INPUTS,
    OPTIONAL,
    SEVERAL_INPUTS,
    TWO_INPUTS,
    Shape,
    infer_shape,
)
from threepc.graph.outputs import nested

Weights = dict[str, dict[str, np.ndarray]]

VERSION = 1


@dataclass(frozen=True)
class Node:
    """One operation. `shape` is its output (C, H, W) for one image; vectors are (C, 1, 1); the batch is a run-time parameter."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: Shape
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A network or a job: nodes in topological order, the first the client's input, the last, or several at the end, of kind output.

    Raises InputError, naming the node and what is wrong with it, unless the nodes describe a consistent network.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        _check(self.nodes)

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    @property
    def input(self) -> Node:
        """The first node, the client's input."""
        return self.nodes[0]

    @property
    def output(self) -> Node:
        """The last node; of a network that returns one tensor the only output."""
        return self.nodes[-1]

    @cached_property
    def outputs(self) -> tuple[Node, ...]:
        """All nodes of kind output, in order."""
        return self.nodes[_first_output(self.nodes) :]

    @property
    def returns_tensor(self) -> bool:
        """Whether the network returns one tensor, and not a structure of them."""
        return "path" not in self.output.attrs

    def consumers(self) -> dict[str, list[Node]]:
        """For each node name the nodes that read it, in order; a node that reads it twice is listed twice."""
        readers: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return readers

    def to_json(self) -> str:
        """The canonical JSON text: equal graphs give equal texts."""
        nodes = [{"name": n.name, "kind": n.kind, "inputs": list(n.inputs), "shape": list(n.shape), "attrs": n.attrs} for n in self.nodes]
        return json.dumps({"version": VERSION, "nodes": nodes}, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Graph":
        """Read a graph from an untrusted source. Raises InputError naming the node and the key that is wrong."""
        if not isinstance(text, str) or len(text) > MAX_JSON:
            raise InputError(f"graph: must be JSON text of at most {MAX_JSON} characters")
        data = parse_json(text, "graph")
        if type(data) is not dict or set(data) != {"version", "nodes"}:
            raise InputError("graph: must be a JSON object with exactly the keys version and nodes")
        if type(data["version"]) is not int or data["version"] != VERSION:
            raise InputError(f"graph: version must be {VERSION}; use the same threepc release on all parties")
        if type(data["nodes"]) is not list:
            raise InputError("graph: nodes must be a list")
        if len(data["nodes"]) > MAX_NODES:
            raise InputError(f"graph: more than {MAX_NODES} nodes")
        return cls(tuple(_node(index, item) for index, item in enumerate(data["nodes"])))

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()


def relu_names(graph: Graph) -> list[tuple[str, int, tuple[int, int]]]:
    """The graph's relu and clip nodes as (name, channels, (height, width)), in order: the layers a relu spec is keyed by."""
    return [(n.name, n.shape[0], (n.shape[1], n.shape[2])) for n in graph.nodes if takes_patches(n.kind, n.attrs)]


def signs(node: Node) -> list[int]:
    """1 or -1 for each input of an add node."""
    given: list[int] = node.attrs.get("signs", [1] * len(node.inputs))
    return given


def signed(of_inputs: Iterable[int]) -> dict[str, Any]:
    """The attributes of an add node whose inputs have these signs."""
    given = list(of_inputs)
    return {"signs": given} if -1 in given else {}


def weight_shape(graph: Graph, node: Node) -> tuple[int, int, int, int]:
    """The shape (O, C / groups, kernel height, kernel width) of a conv node's weight."""
    height, width = node.attrs["kernel"]
    return node.shape[0], graph[node.inputs[0]].shape[0] // node.attrs["groups"], height, width


def holder(node: Node) -> str:
    """The name of the conv node whose weight a conv node uses: its own, unless its attributes name another one."""
    name: str = node.attrs.get("weights", node.name)
    return name


def check_weights(graph: Graph, weights: Weights) -> None:
    """Raises InputError unless `weights` holds exactly a finite float64 weight and bias of the right shape for every conv node."""
    convs = {node.name: node for node in graph.nodes if node.kind == "conv"}
    for name in sorted(convs.keys() ^ weights.keys()):
        raise InputError(f"weights: {name!r} is " + ("missing" if name in convs else "not a conv node of the graph"))
    for name, node in convs.items():
        shape = weight_shape(graph, node)
        for key, expected in (("weight", shape), ("bias", shape[:1])):
            array = weights[name].get(key)
            if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != expected:
                raise InputError(f"weights: {key} of {name!r} must be a float64 array of shape {expected}")
            if not np.isfinite(array).all():
                raise InputError(f"weights: {key} of {name!r} holds infinite or undefined numbers; repair the checkpoint")
        if holder(node) != name and not np.array_equal(weights[name]["weight"], weights[holder(node)]["weight"]):
            raise InputError(f"weights: those of {name!r} are not those of {holder(node)!r}")


def _check(nodes: tuple[Node, ...]) -> None:
    if not 2 <= len(nodes) <= MAX_NODES:
        raise InputError(f"graph: must have from 2 to {MAX_NODES} nodes")
    if nodes[0].kind != "input" or nodes[-1].kind != "output":
        raise InputError("graph: the first node must be of kind input and the last of kind output")
    if nodes[0].attrs:
        raise InputError("graph: the first node must be the client's input, without attributes")
    shapes: dict[str, Shape] = {}
    names: set[str] = set()
    outputs = _first_output(nodes)
    for index, node in enumerate(nodes):
        name = node.name
        if type(name) is not str or not 1 <= len(name) <= MAX_NAME or not (name.isascii() and name.isprintable()):
            raise InputError(f"graph node number {index}: name must be 1 to {MAX_NAME} printable ASCII characters")
        if name in names:
            raise InputError(f"graph node {name!r}: name: occurs twice")
        try:
            _check_node(node, 0 < index < outputs, shapes)
        except InputError as error:
            raise InputError(f"graph node {name!r}: {error}") from None
        names.add(name)
        if index < outputs:  # nothing reads an output
            shapes[name] = node.shape
    _check_outputs(nodes[outputs:])
    _check_shared(nodes)


def _first_output(nodes: tuple[Node, ...]) -> int:
    """Where the outputs begin."""
    first = len(nodes)
    while first and nodes[first - 1].kind == "output":
        first -= 1
    return first


def _check_shared(nodes: tuple[Node, ...]) -> None:
    channels, holders = {node.name: node.shape[0] for node in nodes}, {}
    for node in nodes:
        if node.kind != "conv":
            continue
        own = node.shape[0], channels[node.inputs[0]], node.attrs["kernel"], node.attrs["groups"]
        if "weights" not in node.attrs:
            holders[node.name] = own
        elif holders.get(node.attrs["weights"]) != own:
            raise InputError(f"graph node {node.name!r}: weights: names no earlier convolution with such weights of its own")


def _check_outputs(outputs: tuple[Node, ...]) -> None:
    if len(outputs) > 1 and any("path" not in node.attrs for node in outputs):
        raise InputError("graph: outputs: each of several must have a path")
    paths = [node.attrs.get("path", []) for node in outputs]
    try:
        nested(paths, paths)
    except InputError as error:
        raise InputError(f"graph: {error}") from None


def _check_node(node: Node, inner: bool, shapes: dict[str, Shape]) -> None:
    if type(node.kind) is not str or node.kind not in ATTRIBUTES:
        raise InputError(f"kind: {_shown(node.kind)} is none of {', '.join(KINDS)}")
    if inner and (node.kind == "output" or (node.kind == "input" and node.attrs == {})):
        raise InputError(f"kind: a second node of kind {node.kind}")
    _check_attributes(node)
    _check_shape(node.shape)
    few = 0 if node.kind in NO_INPUTS else 2 if node.kind in SEVERAL_INPUTS | TWO_INPUTS else 1
    many = MAX_NODES if node.kind in SEVERAL_INPUTS else few
    if type(node.inputs) is not tuple or not few <= len(node.inputs) <= many:
        raise InputError(f"inputs: a node of kind {node.kind} has {few if few == many else f'at least {few}'}")
    for name in node.inputs:
        if type(name) is not str or name not in shapes:
            raise InputError(f"inputs: {_shown(name)} is no earlier node")
    if node.kind == "constant" and len(node.attrs["values"]) != math.prod(node.shape):
        raise InputError(f"values: must be {math.prod(node.shape)}, not {len(node.attrs['values'])}")
    if node.kind in NO_INPUTS:
        return
    inputs = [shapes[name] for name in node.inputs]
    if node.kind == "conv" and math.prod(node.attrs["kernel"]) * node.shape[0] * inputs[0][0] // node.attrs["groups"] > MAX_ELEMENTS:
        raise InputError(f"kernel: the weight would have more than {MAX_ELEMENTS} elements")
    if math.prod(node.attrs.get("resize", [1, 1, True])[:2]) * node.shape[0] > MAX_ELEMENTS:
        raise InputError(f"resize: the result would have more than {MAX_ELEMENTS} elements")
    expected = infer_shape(node.kind, inputs, node.attrs, channels=node.shape[0])
    if node.shape != expected:
        raise InputError(f"shape: is {node.shape}, but its inputs and attributes give {expected}")


def _shown(value: Any) -> str:
    """A stranger's value in an error message: a text, escaped and cut off, or what else it is."""
    return repr(value[:MAX_NAME]) if isinstance(value, str) else typed(value)


def _check_attributes(node: Node) -> None:
    allowed = ATTRIBUTES[node.kind]
    if type(node.attrs) is not dict or not node.attrs.keys() <= allowed.keys():
        raise InputError(f"attrs: must be an object with the keys {', '.join(allowed) or 'none'}")
    for key, check in allowed.items():
        if key not in node.attrs:
            if (node.kind, key) in OPTIONAL:
                continue
            raise InputError(f"{key}: is missing")
        try:
            check(node.attrs[key])
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


def _check_shape(shape: Any) -> None:
    if type(shape) is not tuple or len(shape) != 3 or any(type(size) is not int or size < 1 for size in shape):
        raise InputError("shape: must be three positive integers (channels, height, width)")
    if max(shape[1:]) > MAX_SIDE or math.prod(shape) > MAX_ELEMENTS:
        raise InputError(f"shape: is above the limits ({MAX_SIDE} a side, {MAX_ELEMENTS} elements)")


def _node(index: int, item: Any) -> Node:
    keys = {"name", "kind", "inputs", "shape", "attrs"}
    if type(item) is not dict or set(item) != keys:
        raise InputError(f"graph node number {index}: must be an object with exactly the keys {', '.join(sorted(keys))}")
    for key in ("inputs", "shape"):
        if type(item[key]) is not list:
            raise InputError(f"graph node number {index}: {key}: must be a list")
    return Node(item["name"], item["kind"], tuple(item["inputs"]), tuple(item["shape"]), item["attrs"])
