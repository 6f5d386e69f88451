"""The outputs of many images, kept as they come: who begins again with the same folder asks for those alone that are missing."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np

from threepc.errors import InputError
from threepc.files import read_json, write_atomically
from threepc.model.served import PublicModel

MANIFEST = "manifest.json"
VERSION = 1


class KeptOutputs:
    """A folder of one model: `manifest.json` says which, and an array for each image, under the SHA-256 of the network's input.

    So an image is asked for once, however it is called and wherever it lies. Each file is whole or not there.
    """

    def __init__(self, folder: Path, model: PublicModel) -> None:
        """Open or make it. Raises InputError where it is of another model, or cannot be written."""
        self._folder = folder
        ours = {"version": VERSION, "model": model.card.name, "fingerprint": model.fingerprint}
        path = folder / MANIFEST
        if path.exists():
            theirs = read_json(path, "the manifest")
            if not isinstance(theirs, dict) or any(theirs.get(key) != ours[key] for key in ("version", "fingerprint")):
                name = theirs.get("model") if isinstance(theirs, dict) else None
                known = f"{name!r:.80}, fingerprint {theirs.get('fingerprint')!s:.12}" if name else "something else"
                raise InputError(
                    f"{folder} holds outputs of {known}, but the server has {ours['model']!r}, fingerprint {model.fingerprint:.12}: "
                    "name another folder"
                )
        elif folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} holds other files: name a new folder, or an empty one")
        else:
            write_atomically(path, (json.dumps(ours, indent=1) + "\n").encode())

    def find(self, pixels: np.ndarray) -> np.ndarray | None:
        """The output for one input (C, H, W), or None. Raises InputError for a file that is no array."""
        path = self._path(pixels)
        try:
            return np.asarray(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            raise InputError(f"{path} cannot be read as an array: remove it, and its image is asked for again") from None

    def add(self, images: np.ndarray, outputs: np.ndarray) -> None:
        """Keep the outputs (N, ...) of inputs (N, C, H, W); of a network that returns several tensors all decoded numbers (N, numbers)."""
        for pixels, output in zip(images, outputs, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, output)
            write_atomically(self._path(pixels), buffer.getvalue())

    def _path(self, pixels: np.ndarray) -> Path:
        pixels = np.ascontiguousarray(pixels)
        return self._folder / f"{hashlib.sha256(f'{pixels.dtype}{pixels.shape}'.encode() + pixels.tobytes()).hexdigest()}.npy"
