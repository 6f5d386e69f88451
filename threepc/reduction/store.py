"""The folder of a distortion run: what it was asked (manifest.json), its inputs, the parts that are done, and the result.

Everything is written under a temporary name and renamed, so a file is either whole or absent, and a run can end at any moment.
Arrays are .npz files read without pickle. The folder holds the model's weights while the run lasts: it belongs to the server.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.files import read_json, write_atomically
from threepc.graph.ir import Graph
from threepc.graph.relu_spec import decisions, patch_counts

VERSION = 1


@dataclass(frozen=True)
class LayerDistortion:
    """One ReLU of kind relu or clip: `shape` (C, H, W), `patches` int64 (K, 2), `distortion` float64 (C, K).

    The distortion is the mean squared difference of the network's output when one channel alone gets a patch; NaN where it was skipped as
    dominated.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    patches: np.ndarray
    distortion: np.ndarray

    @cached_property
    def drelus(self) -> np.ndarray:
        """Comparisons one channel needs with each patch: int64 (K,)."""
        return decisions(self.kind) * patch_counts(self.patches, *self.shape[1:])


@dataclass(frozen=True)
class Distortion:
    """The result of a run.

    `power` is the mean square of the network's output, to compare distortions with; `rank_correlation` (estimate against exact on the
    measured sample) is NaN for an exact run.
    """

    manifest: dict[str, Any]
    layers: tuple[LayerDistortion, ...]
    power: float
    rank_correlation: float

    @property
    def fingerprint(self) -> str:
        """Names this result in the provenance of specs made from it: SHA-256 of the manifest and the distortions."""
        return content_hash(
            np.frombuffer(json.dumps(self.manifest, sort_keys=True).encode(), np.uint8), *(layer.distortion for layer in self.layers)
        )


def content_hash(*arrays: np.ndarray) -> str:
    """SHA-256 over types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz file, atomically. Raises InputError where it cannot be written (a full disk)."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its types take the names for its own options
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file, or None where it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def open_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Start a run in `folder`, or go on with it. Raises InputError where the folder holds another run or cannot be written."""
    path = folder / "manifest.json"
    if not path.exists():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "parts").mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from None
        write_atomically(path, json.dumps(manifest).encode())
        return
    for key, value in read_manifest(folder).items():
        if manifest.get(key) != value:
            raise InputError(f"{folder} holds a distortion run with another {key}: give another folder, or remove this one")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run. Raises InputError where there is none of this version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder} is no folder of a distortion run: it has no manifest.json")
    manifest = read_json(path, "the manifest")
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise InputError(f"{folder}: a distortion run of another version of this program")
    return manifest


def read_graph(folder: Path) -> Graph:
    """The network that a run measured. Raises InputError where the folder does not hold it."""
    try:
        graph = Graph.from_json((folder / "graph.json").read_text())
    except OSError as error:
        raise InputError(f"{folder} does not hold the run's graph: {error}") from None
    if graph.fingerprint() != read_manifest(folder).get("graph"):
        raise InputError(f"{folder}: graph.json is not the graph that was measured")
    return graph


def load(folder: str | os.PathLike[str]) -> Distortion:
    """The result in a run's folder. Raises InputError where there is none or the run is unfinished."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    arrays = read_arrays(folder / "distortion.npz")
    if arrays is None:
        raise InputError(f"{folder}: the distortion run is not finished; the same command goes on with it")
    layers = []
    try:
        for index, layer in enumerate(manifest["layers"]):
            patches, distortion = np.array(layer["patches"], dtype=np.int64), arrays[f"layer{index}"]
            if distortion.shape != (layer["shape"][0], len(patches)):
                raise InputError(f"{folder}: manifest.json and distortion.npz do not belong together (layer '{layer['name']}')")
            layers.append(LayerDistortion(layer["name"], layer["kind"], tuple(layer["shape"]), patches, distortion))
        return Distortion(manifest, tuple(layers), float(arrays["power"]), float(arrays["rank_correlation"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: a damaged result ({type(error).__name__}: {error})") from None
