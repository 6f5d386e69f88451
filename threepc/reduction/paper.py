"""Import of the paper's relu specs, which its authors store with `pickle` as dict[layer name, int array (channels, 2)]."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threepc.errors import InputError, typed
from threepc.graph.relu_spec import IDENTITY, ZERO, ReluSpec, relu_nodes
from threepc.mmlab import array_pickle

if TYPE_CHECKING:
    from threepc.graph.ir import Graph

# The largest spec of the paper has some 26,000 channels; int64 pairs of those are 0.4 MB.
LARGEST_FILE, MOST_LAYERS, MOST_CHANNELS = 16 << 20, 1000, 1 << 15


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The dict[layer name, int array (channels, 2)] of a pickle. Raises InputError for anything else; executes nothing."""
    path = Path(path)
    content = array_pickle.read_arrays(path, LARGEST_FILE)
    if not 1 <= len(content) <= MOST_LAYERS:
        raise InputError(f"{path}: holds no dict from 1 to {MOST_LAYERS} layer names to arrays")
    return {_name(path, name): _pairs(path, name, value) for name, value in content.items()}


def _name(path: Path, name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"{path}: holds {typed(name)} where a layer name is expected")
    return name


def _pairs(path: Path, name: str, value: Any) -> np.ndarray:
    array = value
    if isinstance(value, list) and len(value) <= MOST_CHANNELS and all(_is_pair(row) for row in value):
        array = np.array(value, dtype=np.int64).reshape(-1, 2)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != 2 or not 1 <= len(array) <= MOST_CHANNELS:
        raise InputError(f"{path}: layer {name!r} is not an integer array of shape [channels, 2]")
    return array.astype(np.int64)


def _is_pair(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and len(row) == 2 and all(type(number) is int and abs(number) < 1 << 31 for number in row)


def paper_networks() -> dict[str, list[dict[str, Any]]]:
    """The paper's networks: name -> its ReLU layers in forward order, each with 'name', 'channels' and 'size' (of the square map)."""
    document = json.loads(files("threepc.reduction").joinpath("data/paper_spec_layers.json").read_text())
    return {network: entry["layers"] for network, entry in document["networks"].items()}


def import_paper(path: str | os.PathLike[str], network: str, graph: Graph) -> ReluSpec:
    """Turn a pickled spec of the paper into ours, for the Graph of the same network.

    `network` is one of paper_networks(). Layers correspond in forward order, and their channels must agree. The paper lists
    patches larger than the map (cut at the border, so equal to the map's size): they come out clipped. Raises InputError.
    """
    networks = paper_networks()
    if network not in networks:
        raise InputError(f"unknown network '{network}' (the paper's: {', '.join(networks)})")
    theirs, ours = networks[network], list(relu_nodes(graph))
    arrays = read_arrays(path)
    if unknown := sorted(set(arrays) - {layer["name"] for layer in theirs}):
        raise InputError(f"{path}: layer {unknown[0]!r} is not one of the paper's {network}")
    if len(ours) != len(theirs):
        raise InputError(f"the model has {len(ours)} ReLU layers, the paper's {network} has {len(theirs)}: another network?")
    layers = {}
    for layer, node in zip(theirs, ours, strict=True):
        if layer["name"] not in arrays:
            raise InputError(f"{path}: layer '{layer['name']}' of the paper's {network} is missing")
        patches = arrays[layer["name"]]
        channels, height, width = node.shape
        if len(patches) != channels:
            raise InputError(f"{path}: layer '{layer['name']}' has {len(patches)} channels, the model's '{node.name}' has {channels}")
        special = (patches == ZERO).all(axis=1) | (patches == IDENTITY).all(axis=1)
        layers[node.name] = np.where(special[:, None], patches, np.minimum(patches, (height, width)))
    return ReluSpec(network, layers, {"method": "imported from the paper's pickle", "file": Path(path).name}, str(path))
