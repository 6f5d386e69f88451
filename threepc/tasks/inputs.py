"""The images of a run, checked before anything is started or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threepc.errors import InputError
from threepc.images.card import ModelCard
from threepc.images.read import check_range, load_images, load_labels, read_image
from threepc.plan.precision import Precision


@dataclass(frozen=True)
class Inputs:
    """pixels: float32 (N, C, H, W), preprocessed. names and paths: of each of the N. truths: their true classes, or None."""

    pixels: np.ndarray
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    truths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """The pixels, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size]

    def check_range(self, card: ModelCard, out_of_range: str, warn: Callable[[str], None]) -> None:
        """Hold every image against the largest input that the model is made for, see `threepc.images.read.check_range`."""
        for name, image in zip(self.names, self.pixels, strict=True):
            check_range(image[None], card, out_of_range, warn, name)


def check_files(paths: Sequence[str | Path]) -> None:
    """Raise InputError unless every path is a readable image or a `.npy` file: what can be said before the model is known."""
    for path in map(Path, paths):
        if path.suffix.lower() != ".npy":
            read_image(path)
        elif not path.is_file():
            raise InputError(f"{path} does not exist")


def load_inputs(
    paths: Sequence[str | Path], card: ModelCard, precision: Precision, shape: Sequence[int], labels: Path | None = None
) -> Inputs:
    """Read image files and `.npy` arrays as inputs of shape (C, H, W), and their true classes from a JSON file.

    Raises InputError naming the file: missing, unreadable, of a wrong shape, not finite or beyond what the ring can hold; a label missing.
    """
    parts, names, origins = [], [], []
    for path in map(Path, paths):
        part = load_images([path], card.preprocessing, shape)
        precision.image_words(part, shape, str(path))
        parts.append(part)
        names += [path.name] if len(part) == 1 else [f"{path.name}[{index}]" for index in range(len(part))]
        origins += [path] * len(part)
    if not parts:
        raise InputError("no image given")
    truths = None if labels is None else tuple(load_labels(labels, origins, card))
    return Inputs(np.concatenate(parts), tuple(names), tuple(origins), truths)
