"""The relu spec: for every ReLU of a network and every channel the patch size that shares one decision.

A spec is a JSON file:

    {"version": 1,
     "model": "resnet18_cifar",                          what it was made for, free text
     "layers": {"backbone.relu": [[2, 2], [1, 1], ...],  ReLU name in the Graph -> one [height, width] per channel
                ...},
     "provenance": {...}}                                optional: how it was made, any JSON object

[1, 1] is the plain ReLU, [1, 0] the constant zero, [0, 1] the identity; any other pair has both numbers >= 1 and at most the
size of the feature map. Patches start at the top left corner and are cut at the right and bottom borders.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threepc.errors import InputError
from threepc.files import parse_json, write_atomically
from threepc.graph.activations import takes_patches

if TYPE_CHECKING:
    from threepc.graph.ir import Graph, Node

VERSION = 1
PLAIN, ZERO, IDENTITY = (1, 1), (1, 0), (0, 1)
LARGEST_PATCH = 1 << 15
Sizes = Mapping[str, tuple[tuple[int, int], ...]]
"""What protocols take of a spec: the patch (height, width) of every channel, by ReLU name; names that are absent have plain ReLUs."""

_KEYS = {"version", "model", "layers", "provenance"}


@dataclass(frozen=True, eq=False)
class ReluSpec:
    """Patch sizes by ReLU name.

    `layers[name]` is a read-only int64 array of shape (channels, 2), one [height, width] per channel. Construction
    validates and raises InputError; `source` (a file name) only serves error messages.
    """

    model: str
    layers: Mapping[str, np.ndarray]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    source: str = "relu spec"

    def __post_init__(self) -> None:
        if not isinstance(self.model, str):
            raise InputError(f"{self.source}: 'model' must be a string")
        if not isinstance(self.layers, Mapping) or not self.layers:
            raise InputError(f"{self.source}: 'layers' must be an object with at least one ReLU name")
        if not isinstance(self.provenance, Mapping):
            raise InputError(f"{self.source}: 'provenance' must be an object")
        object.__setattr__(self, "layers", {name: patch_sizes(self.source, name, patches) for name, patches in self.layers.items()})

    def to_json(self) -> str:
        """The spec as JSON text, one line for each layer."""
        layers = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(patches.tolist(), separators=(',', ':'))}" for name, patches in self.layers.items()
        )
        provenance = f',\n "provenance": {json.dumps(dict(self.provenance))}' if self.provenance else ""
        return f'{{"version": {VERSION},\n "model": {json.dumps(self.model)},\n "layers": {{\n{layers}}}{provenance}}}\n'

    @classmethod
    def from_json(cls, text: str, source: str = "relu spec") -> ReluSpec:
        """Parse and validate JSON text. Raises InputError that names `source`, the layer and the channel at fault."""
        document = parse_json(text, source)
        if not isinstance(document, dict):
            raise InputError(f"{source}: a relu spec is a JSON object with the keys 'version', 'model' and 'layers'")
        if document.get("version") != VERSION:
            raise InputError(f"{source}: 'version' is {document.get('version')!r}, this program reads relu specs of version {VERSION}")
        for key in ("model", "layers"):
            if key not in document:
                raise InputError(f"{source}: the key '{key}' is missing")
        if unknown := sorted(set(document) - _KEYS):
            raise InputError(f"{source}: unknown key '{unknown[0]}' (known: {', '.join(sorted(_KEYS))})")
        return cls(document["model"], document["layers"], document.get("provenance", {}), source)


def patch_sizes(source: str, name: str, patches: Any) -> np.ndarray:
    """Patches of a layer from [height, width] pairs: read-only int64 (channels, 2). Raises InputError naming `source`, layer and channel."""
    if not isinstance(name, str) or not name:
        raise InputError(f"{source}: {name!r} is not the name of a ReLU")
    rows = patches.tolist() if isinstance(patches, np.ndarray) else patches
    if not isinstance(rows, (list, tuple)) or not rows:
        raise InputError(f"{source}: layer {name!r} must be a list with one [height, width] for each channel")
    for channel, row in enumerate(rows):
        if not isinstance(row, (list, tuple)) or len(row) != 2 or not all(type(number) is int for number in row):
            raise InputError(f"{source}: layer {name!r}, channel {channel}: not a pair of integers [height, width]")
        if tuple(row) not in (ZERO, IDENTITY) and not (1 <= row[0] <= LARGEST_PATCH and 1 <= row[1] <= LARGEST_PATCH):
            raise InputError(
                f"{source}: layer {name!r}, channel {channel}: {list(row)} is no patch size "
                f"(height and width from 1 to {LARGEST_PATCH}; [1, 0] is zero, [0, 1] the identity)"
            )
    array = np.array(rows, dtype=np.int64)
    array.flags.writeable = False
    return array


def load(path: str | os.PathLike[str]) -> ReluSpec:
    """Read and validate a spec file. Raises InputError that names the file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the relu spec {path}: {error}") from None
    return ReluSpec.from_json(text, str(path))


def save(spec: ReluSpec, path: str | os.PathLike[str]) -> None:
    """Write a spec file under a temporary name, then rename. Raises InputError where the file cannot be written."""
    write_atomically(Path(path), spec.to_json().encode())


def relu_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes a spec speaks of: relu and clip from 0 (ReLU6), in forward order."""
    return (node for node in graph.nodes if takes_patches(node.kind, node.attrs))


def decisions(kind: str) -> int:
    """Comparisons per patch: one for a relu, two for a clip (ReLU6), which decides on both of its bends."""
    return 2 if kind == "clip" else 1


def check(spec: ReluSpec, graph: Graph) -> None:
    """Raise InputError naming file and layer unless `spec` fits `graph`.

    It must name every relu and clip node and no other, with one patch per channel, none larger than the feature map.
    """
    nodes = {node.name: node for node in relu_nodes(graph)}
    if unknown := [name for name in spec.layers if name not in nodes]:
        raise InputError(
            f"{spec.source}: layer {unknown[0]!r} is not a ReLU of this network: is the spec (made for '{spec.model}') for another model?"
        )
    for name, node in nodes.items():
        if name not in spec.layers:
            raise InputError(f"{spec.source}: the ReLU '{name}' of this network is missing (spec made for '{spec.model}')")
        check_layer(spec.source, node, spec.layers[name])


def check_layer(source: str, node: Node, patches: np.ndarray) -> None:
    """Raise InputError naming `source` and the layer unless `patches` (channels, 2) has one for each channel, none larger than the map."""
    channels, height, width = node.shape
    if len(patches) != channels:
        raise InputError(f"{source}: layer {node.name!r} has {len(patches)} patch sizes, the network's has {channels} channels")
    too_large = np.flatnonzero((patches[:, 0] > height) | (patches[:, 1] > width))
    if too_large.size:
        channel = int(too_large[0])
        raise InputError(
            f"{source}: layer {node.name!r}, channel {channel}: the patch {patches[channel].tolist()} is larger than "
            f"the feature map ({height}x{width})"
        )


def uniform(graph: Graph, height: int, width: int, model: str = "") -> ReluSpec:
    """One patch size for all channels of all ReLUs, clipped to each feature map; [1, 0] and [0, 1] are allowed.

    Raises InputError for a size that is no patch or larger than every map, or where the network has no ReLU.
    """
    layers = {}
    for node in relu_nodes(graph):
        channels, map_height, map_width = node.shape
        layers[node.name] = np.tile([min(height, map_height), min(width, map_width)], (channels, 1))
    if not layers:
        raise InputError("this network has no ReLU, so there is nothing for a relu spec to say")
    most = [max(node.shape[axis] for node in relu_nodes(graph)) for axis in (1, 2)]
    if height > most[0] and width > most[1]:
        raise InputError(f"the patch {height}x{width} is larger than every map of this network: at most {most[0]}x{most[1]}")
    return ReluSpec(model, layers, {"method": "uniform", "patch": [height, width]}, f"uniform {height}x{width}")


def patch_counts(patches: np.ndarray, height: int, width: int) -> np.ndarray:
    """Patches of each size on a (height, width) map: int64, shape patches.shape[:-1]; 0 for identity and zero."""
    patches = np.asarray(patches, dtype=np.int64)
    rows, columns = patches[..., 0], patches[..., 1]
    with_decision = (rows > 0) & (columns > 0)
    return np.where(with_decision, -(-height // np.maximum(rows, 1)) * -(-width // np.maximum(columns, 1)), 0)


def drelus(spec: ReluSpec, graph: Graph) -> dict[str, int]:
    """Comparisons per image for each layer: patches times decisions a patch (2 for ReLU6). The total is the sum of the values."""
    return {
        node.name: decisions(node.kind) * int(patch_counts(spec.layers[node.name], *node.shape[1:]).sum()) for node in relu_nodes(graph)
    }


def full_drelus(graph: Graph) -> dict[str, int]:
    """Comparisons per image for each layer without any spec."""
    return {node.name: decisions(node.kind) * int(np.prod(node.shape)) for node in relu_nodes(graph)}


def show(spec: ReluSpec, graph: Graph) -> list[dict[str, Any]]:
    """Rows of a table, one per layer and a last one named 'total'.

    Keys: layer, channels, map ("HxW"), drelus (kept), full, ratio (kept / full), patches (the commonest sizes with their counts).
    Raises InputError where the spec does not fit the graph.
    """
    check(spec, graph)
    kept, full = drelus(spec, graph), full_drelus(graph)
    rows: list[dict[str, Any]] = []
    for node in relu_nodes(graph):
        channels, height, width = node.shape
        common = Counter((patch[0], patch[1]) for patch in spec.layers[node.name].tolist()).most_common(4)
        rows.append(
            {
                "layer": node.name,
                "channels": channels,
                "map": f"{height}x{width}",
                "drelus": kept[node.name],
                "full": full[node.name],
                "ratio": kept[node.name] / full[node.name],
                "patches": ", ".join(f"{patch_name(patch)} x {count}" for patch, count in common),
            }
        )
    rows.append(
        {
            "layer": "total",
            "channels": sum(row["channels"] for row in rows),
            "map": "",
            "drelus": sum(kept.values()),
            "full": sum(full.values()),
            "ratio": sum(kept.values()) / sum(full.values()),
            "patches": "",
        }
    )
    return rows


def patch_name(patch: tuple[int, int]) -> str:
    """'4x4', 'zero' or 'identity'."""
    return {ZERO: "zero", IDENTITY: "identity"}.get(patch, f"{patch[0]}x{patch[1]}")
