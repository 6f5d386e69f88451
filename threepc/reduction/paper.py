"""Import of the paper's pickled relu specs, without running anything that a pickle may hold.

The paper's authors store dict[layer name, int array (channels, 2)] with `pickle`. A pickle is a program, so this reader
admits no callable of any library: the few names a pickled numpy array mentions are answered by inert stand-ins that only
record bytes, and the arrays are built from those bytes after validation. Any other name ends the import.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threepc.errors import InputError
from threepc.graph.relu_spec import IDENTITY, ZERO, ReluSpec, relu_nodes

if TYPE_CHECKING:
    from threepc.graph.ir import Graph

# The largest spec of the paper has some 26,000 channels; int64 pairs of those are 0.4 MB.
LARGEST_FILE, MOST_LAYERS, MOST_CHANNELS = 16 << 20, 1000, 1 << 15
_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


class _Dtype:
    """Stand-in for numpy.dtype: plain integers of 1 to 8 bytes."""

    def __init__(self, name: str, align: bool = False, copy: bool = True) -> None:
        if name not in _INTEGERS:
            raise InputError(f"an array of type {str(name)[:20]!r}, not of integers")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata]): plain integers have none of the middle.
        if not isinstance(state, tuple) or len(state) not in (8, 9) or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise InputError("an array of a structured type")
        self.order = "=" if state[1] == "|" else state[1]

    def array(self, raw: Any, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
        if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
            raise InputError("an array without a shape")
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * int(self.name[1:]):
            raise InputError("an array whose bytes do not match its shape")
        return np.frombuffer(raw, np.dtype(self.order + self.name)).reshape(shape, order="F" if fortran else "C")


class _Array:
    """Stand-in for numpy.ndarray: filled by its pickled state."""

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise InputError("an array in an unknown form")
        _version, shape, dtype, fortran, raw = state
        self.values = dtype.array(raw, shape, fortran is True)


def _reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *_axes: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: Any, raw: Any) -> int:
    if not isinstance(dtype, _Dtype):
        raise InputError("a scalar in an unknown form")
    return int(dtype.array(raw, (1,), False)[0])


def _latin1(text: Any, encoding: Any) -> bytes:
    # How pickle protocols 0 to 2 write bytes.
    if not isinstance(text, str) or encoding != "latin1":
        raise InputError("bytes in an unknown form")
    return text.encode("latin1")


class _Call:
    """One of the functions above, without the attributes by which a pickle's BUILD could change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise InputError("an assignment to a function")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Call(_latin1),
    ("collections", "OrderedDict"): dict,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Call(_reconstruct),
        (f"{_core}.multiarray", "scalar"): _Call(_scalar),
        (f"{_core}.numeric", "_frombuffer"): _Call(_frombuffer),
    }


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(f"the name {module[:60]}.{name[:60]}: only arrays of integers in plain containers are read")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise InputError("a persistent reference")


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The dict[layer name, int array (channels, 2)] of a pickle. Raises InputError for anything else; executes nothing."""
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MB, so not a relu spec")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        # A memo index far beyond the file's length would make the unpickler allocate that much memory.
        if any("PUT" in opcode.name and int(argument) > len(raw) for opcode, argument, _ in pickletools.genops(raw)):
            raise InputError("a memo index out of range")
        content = _Reader(io.BytesIO(raw)).load()
    except InputError as error:
        raise InputError(f"{path}: refused, the pickle holds {error}") from None
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not a readable pickle ({type(error).__name__})") from None
    if not isinstance(content, dict) or not 1 <= len(content) <= MOST_LAYERS:
        raise InputError(f"{path}: holds no dict from 1 to {MOST_LAYERS} layer names to arrays")
    return {_name(path, name): _pairs(path, name, value) for name, value in content.items()}


def _name(path: Path, name: Any) -> str:
    if not isinstance(name, str):
        raise InputError(f"{path}: holds a {type(name).__name__} where a layer name is expected")
    return name


def _pairs(path: Path, name: str, value: Any) -> np.ndarray:
    array = value.values if isinstance(value, _Array) else value
    if isinstance(array, list) and len(array) <= MOST_CHANNELS and all(_is_pair(row) for row in array):
        array = np.array(array, dtype=np.int64).reshape(-1, 2)
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[1] != 2 or not 1 <= len(array) <= MOST_CHANNELS:
        raise InputError(f"{path}: layer '{name}' is not an integer array of shape [channels, 2]")
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
        raise InputError(f"{path}: layer '{unknown[0]}' is not one of the paper's {network}")
    if len(ours) != len(theirs):
        raise InputError(f"the model has {len(ours)} ReLU layers, the paper's {network} has {len(theirs)}: another network?")
    layers = {}
    for layer, node in zip(theirs, ours):
        if layer["name"] not in arrays:
            raise InputError(f"{path}: layer '{layer['name']}' of the paper's {network} is missing")
        patches = arrays[layer["name"]]
        channels, height, width = node.shape
        if len(patches) != channels:
            raise InputError(f"{path}: layer '{layer['name']}' has {len(patches)} channels, the model's '{node.name}' has {channels}")
        special = (patches == ZERO).all(axis=1) | (patches == IDENTITY).all(axis=1)
        layers[node.name] = np.where(special[:, None], patches, np.minimum(patches, (height, width)))
    return ReluSpec(network, layers, {"method": "imported from the paper's pickle", "file": Path(path).name}, str(path))
