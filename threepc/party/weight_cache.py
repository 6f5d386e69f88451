"""Masked weights that a client keeps on disk from one session to the next, so that a known model need not be sent again.

A file holds what the server sent, and is called by the SHA-256 of it, which the server names with its model; what does not give that digest is
never used. The weights stay masked there as they were on their way: the mask is the server's and the provider's. A server that starts
anew masks its weights anew, and then the files of before are of no use; the oldest go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from threepc.errors import ThreepcError
from threepc.files import write_atomically
from threepc.kernels.convolution import PackedWeight

MOST_BYTES = 4 << 30
"""Of all files together."""
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_of(parts: Iterable[np.ndarray]) -> str:
    """SHA-256 (hex) of the masked weights of all layers, in order, each an array of bytes."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.data)
    return sha.hexdigest()


class HeldWeights:
    """The masked weights of the model that a client's sessions use, in memory, as kernels take them: for all of them they are sent and packed once.

    They are known by the digest that the server names and by the model's fingerprint. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._held: tuple[tuple[str, str], dict[int, PackedWeight]] | None = None

    def get(self, digest: str, fingerprint: str) -> dict[int, PackedWeight] | None:
        """By op, or None where there are none under this name."""
        held = self._held
        return held[1] if held is not None and held[0] == (digest, fingerprint) else None

    def keep(self, digest: str, fingerprint: str, weights: dict[int, PackedWeight]) -> None:
        """Hold these, in place of those of before."""
        self._held = (digest, fingerprint), weights


class WeightCache:
    """A folder of masked weights, of this user alone. tell: hears why something could not be kept; that never fails a session."""

    def __init__(self, tell: Callable[[str], None], folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        """folder: by default what THREEPC_WEIGHTS says, or ~/.cache/threepc/weights."""
        self._folder = (folder or Path(os.environ.get("THREEPC_WEIGHTS") or "~/.cache/threepc/weights")).expanduser()
        self._tell, self._most_bytes = tell, most_bytes

    def read(self, digest: str, sizes: Sequence[int]) -> list[np.ndarray] | None:
        """The masked weights of each layer, uint8 arrays of these sizes, or None where they are not here, whole and unchanged."""
        path = self._path(digest)
        if path is None:
            return None
        try:
            if path.stat().st_size != sum(sizes):
                return None
            content = np.fromfile(path, np.uint8)
        except OSError:
            return None
        if digest_of([content]) != digest:
            self._tell(f"{path} was changed or damaged: it is not used, and the weights come from the server again")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the oldest go first
        return np.split(content, np.cumsum(sizes)[:-1])

    def keep(self, digest: str, parts: Sequence[np.ndarray]) -> None:
        """Keep what a server sent, unless it is not what its digest says or is more than may be kept."""
        path, size = self._path(digest), sum(part.nbytes for part in parts)
        if path is None or size > self._most_bytes or digest_of(parts) != digest:
            self._tell("the masked weights are not kept: they are too large, or not what the server called them")
            return

        def write(file: BinaryIO) -> None:
            for part in parts:
                file.write(part.data)

        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size)
            write_atomically(path, write, mode=0o600)
        except (OSError, ThreepcError) as error:
            self._tell(f"the masked weights are not kept: {error}")

    def _path(self, digest: str) -> Path | None:
        return self._folder / digest if _DIGEST.fullmatch(digest) else None

    def _make_room(self, size: int) -> None:
        files = sorted((path for path in self._folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
        total = size + sum(path.stat().st_size for path in files)
        for path in files:
            if total <= self._most_bytes:
                return
            total -= path.stat().st_size
            path.unlink(missing_ok=True)
