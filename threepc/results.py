"""What the client makes of decoded outputs: classes, segmentation maps, files, and the report."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .brelu.spec import write_atomically
from .card import ModelCard
from .errors import InputError
from .graph.ir import Graph
from .graph.resize import bilinear
from .imaging import read_image
from .inputs import Inputs
from .segmentation import pixel_labels, write_overlay


@dataclass(frozen=True)
class Comparison:
    """Secure outputs against those of PyTorch in the clear, for the same inputs.

    errors: largest difference for each image; agreement: share of its argmaxes that are equal (for a classification 0 or 1).
    """

    plain: np.ndarray
    errors: np.ndarray
    agreement: np.ndarray
    seconds: float

    def fields(self) -> dict:
        """For the report."""
        return {
            "max_abs_error": float(self.errors.max()),
            "max_abs_plain": float(np.abs(self.plain).max()),
            "argmax_equal": bool((self.agreement == 1).all()),
            "argmax_agreement": float(self.agreement.mean()),
            "plain_seconds": self.seconds,
        }


def compare(secure: np.ndarray, plain: np.ndarray, seconds: float) -> Comparison:
    """Compare outputs (N, K, ...) of one shape."""
    count = len(secure)
    errors = np.abs(secure - plain).reshape(count, -1).max(axis=1)
    agreement = (secure.argmax(axis=1) == plain.argmax(axis=1)).reshape(count, -1).mean(axis=1)
    return Comparison(plain, errors, agreement, seconds)


def finished(graph: Graph, outputs: np.ndarray) -> np.ndarray:
    """Decoded outputs (N, C, H, W) as the network itself gives them: its last resize done, vectors as (N, C)."""
    if "resize" in graph.output.attrs:
        outputs = bilinear(outputs, *graph.output.attrs["resize"])
    return outputs.reshape(len(outputs), -1) if outputs.shape[2:] == (1, 1) else outputs


def is_map(outputs: np.ndarray, card: ModelCard) -> bool:
    """Whether outputs are one class a pixel."""
    return card.segmentation and outputs.ndim == 4


def class_text(card: ModelCard, index: int) -> str:
    """A class for people: its number, and its name where that says more."""
    return f"{index} {card.classes[index]}" if index < len(card.classes) and card.classes[index] != str(index) else str(index)


def image_labels(inputs: Inputs, index: int, output: np.ndarray, card: ModelCard) -> tuple[np.ndarray | None, np.ndarray]:
    """The image file's pixels (None for a `.npy`) and a class for each of them, uint16 (H, W), of a segmentation's output (K, h, w)."""
    path = inputs.paths[index]
    image = None if path.suffix.lower() == ".npy" else read_image(path, card.preprocessing.channels)
    size = card.preprocessing.size if image is None else image.shape[:2]
    return image, pixel_labels(output, card, size)


def largest_classes(labels: np.ndarray, card: ModelCard, count: int = 3) -> str:
    """The classes of most pixels with their shares."""
    common = Counter(labels.reshape(-1).tolist()).most_common(count)
    return ", ".join(f"{card.class_name(index)} {pixels / labels.size:.0%}" for index, pixels in common)


def write_outputs(directory: Path, inputs: Inputs, outputs: np.ndarray, card: ModelCard) -> list[Path]:
    """Write `logits.npy`, or for a segmentation a PNG over the image and an array of classes for each input; returns the paths."""
    if not is_map(outputs, card):
        return [_write_array(directory / "logits.npy", outputs)]
    written = []
    for index, output in enumerate(outputs):
        stem = _unique_stem(inputs, index)
        image, labels = image_labels(inputs, index, output, card)
        written.append(_write_array(directory / f"{stem}_classes.npy", labels))
        if image is not None:
            written.append(directory / f"{stem}_segmentation.png")
            write_overlay(written[-1], image, labels, card)
    return written


def write_report(path: Path, report: dict) -> None:
    """Write a report as JSON, whole or not at all."""
    write_atomically(path, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def check_writable(path: Path | None, is_directory: bool = False) -> None:
    """Make the directory that results will go to. Raises InputError where nothing can be written there."""
    if path is None:
        return
    directory = path if is_directory else path.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK) or (not is_directory and path.is_dir()):
        raise InputError(f"{path} cannot be written")


def _write_array(path: Path, array: np.ndarray) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())
    return path


def _unique_stem(inputs: Inputs, index: int) -> str:
    stems = [path.stem for path in inputs.paths]
    return stems[index] if stems.count(stems[index]) == 1 else f"{index}_{stems[index]}"
