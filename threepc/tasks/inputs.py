"""The images of a run, checked before anything is started or sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threepc.errors import InputError
from threepc.images.card import ModelCard
from threepc.images.read import check_range, load_images, load_labels, read_image
from threepc.images.sliding import image_inputs
from threepc.plan.precision import Precision


@dataclass(frozen=True)
class Inputs:
    """pixels: float32 (N, C, H, W), preprocessed. names and paths: of each image. truths: their true classes, or None.

    windows: how many of the N inputs, in their order, are of each image, where windows slide over it; () where every image is one input.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    truths: tuple[int, ...] | None = None
    windows: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """The pixels, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self), size):
            yield self.pixels[start : start + size]

    def of(self, image: int) -> slice:
        """Which of the inputs are an image's."""
        if not self.windows:
            return slice(image, image + 1)
        first = sum(self.windows[:image])
        return slice(first, first + self.windows[image])

    def facts(self) -> dict[str, int]:
        """For the report: how many windows the images have, if any slide over them."""
        return {"images": len(self.names), "windows": len(self)} if self.windows else {}

    def note(self, card: ModelCard) -> list[str]:
        """A line that says how many windows the images have, if any slide over them."""
        height, width = card.preprocessing.size
        many = "1 image" if len(self.names) == 1 else f"{len(self.names)} images"
        return [f"{len(self):,} windows of {height}x{width} pixels slide over {many}, each an input of the network"] if self.windows else []

    def check_range(self, card: ModelCard, out_of_range: str, warn: Callable[[str], None]) -> None:
        """Hold every image against the largest input that the model is made for, see `threepc.images.read.check_range`."""
        for index, name in enumerate(self.names):
            check_range(self.pixels[self.of(index)], card, out_of_range, warn, name)


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
    parts, names, origins, windows = [], [], [], []
    for path in map(Path, paths):
        slides = card.sliding is not None and path.suffix.lower() != ".npy"
        if slides:
            part = image_inputs(read_image(path, card.preprocessing.channels), card, str(path))
        else:
            part = load_images([path], card.preprocessing, shape)
        precision.image_words(part, shape, str(path))
        parts.append(part)
        images = 1 if slides else len(part)
        names += [path.name] if images == 1 else [f"{path.name}[{index}]" for index in range(images)]
        origins += [path] * images
        windows += [len(part) // images] * images
    if not parts:
        raise InputError("no image given")
    truths = None if labels is None else tuple(load_labels(labels, origins, card))
    return Inputs(np.concatenate(parts), tuple(names), tuple(origins), truths, tuple(windows) if card.sliding else ())
