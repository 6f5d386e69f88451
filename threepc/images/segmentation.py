"""From the logits of a segmentation network to a label for every pixel of the image, and a picture of it. On the client, without torch."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from threepc.errors import InputError
from threepc.files import write_atomically
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import resized_size
from threepc.images.resize import neighbours

ROWS_AT_ONCE = 32  # bounds memory: K x 32 x width floats at a time
OPACITY = 0.6
ENTRY_HEIGHT = 24  # of the legend, in pixels
LEGEND_WIDTH = 300
LEGEND_ENTRIES = 12  # at least; more where the image is high enough


def pixel_labels(output: np.ndarray, card: ModelCard, image_size: tuple[int, int]) -> np.ndarray:
    """The class of every pixel of the image.

    output: logits (K, h, w) at the network's output stride; or the classes themselves, integers (h, w), where only these were revealed.
    image_size: (H, W) of the image file before preprocessing.
    Returns uint16 (H, W). Logits are resized twice as mmsegmentation does, to the network's input and, less the padding, to the image,
    and the largest taken; classes are repeated to the nearest pixel.
    """
    if output.ndim == 2:
        rows, columns = (_nearest(*sizes) for sizes in _axes(output.shape, card.preprocessing, image_size))
        repeated: np.ndarray = output[np.ix_(rows, columns)].astype(np.uint16)
        return repeated
    to_rows, to_columns = (
        bilinear_matrix(fitted, full, card.align_corners) @ bilinear_matrix(small, padded, card.align_corners)[:fitted]
        for (small, padded, fitted, full) in _axes(output.shape[1:], card.preprocessing, image_size)
    )
    return _largest(output.astype(np.float32), to_rows, to_columns)


def _largest(logits: np.ndarray, to_rows: np.ndarray, to_columns: np.ndarray) -> np.ndarray:
    """The class of the largest logit, uint16 (H, W), of logits (K, h, w) after a linear map of rows (H, h) and of columns (W, w); all float32."""
    labels = np.empty((len(to_rows), len(to_columns)), np.uint16)
    by_columns = logits @ to_columns.T
    for start in range(0, len(labels), ROWS_AT_ONCE):
        labels[start : start + ROWS_AT_ONCE] = (to_rows[start : start + ROWS_AT_ONCE] @ by_columns).argmax(axis=0)
    return labels


def write_overlay(path: str | Path, image: np.ndarray, labels: np.ndarray, card: ModelCard) -> None:
    """Write a PNG of the image under the colours of its labels, with a legend of the classes in it, the largest first.

    image: uint8 (H, W, 3), blue first, or (H, W), as `threepc.images.read.read_image` gives it. labels: integers (H, W).
    Raises InputError where the file cannot be written.
    """
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    classes, counts = np.unique(labels, return_counts=True)
    colours = _colours(card, int(classes[-1]) + 1)
    painted = cv2.addWeighted(colours[labels], OPACITY, image, 1 - OPACITY, 0)
    order = np.argsort(-counts, kind="stable")
    most = max(LEGEND_ENTRIES, image.shape[0] // ENTRY_HEIGHT - 1)
    legend = _legend(card, colours, classes[order], counts[order] / labels.size, most)
    height = max(painted.shape[0], legend.shape[0])
    page = np.full((height, painted.shape[1] + legend.shape[1], 3), 255, np.uint8)
    page[: painted.shape[0], : painted.shape[1]] = painted
    page[: legend.shape[0], painted.shape[1] :] = legend
    write_atomically(Path(path), cv2.imencode(".png", page)[1].tobytes())


def _axes(output_size: Sequence[int], preprocessing: Preprocessing, image_size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """For rows and columns: pixels of the output, of the network's input, of the image within that, and of the image itself."""
    if preprocessing.resize in ("short_edge", "centre") or preprocessing.stretched:
        raise InputError("a segmentation whose preprocessing cuts off a part of the image cannot be laid over it")
    return list(zip(output_size, preprocessing.size, resized_size(image_size, preprocessing), image_size, strict=True))


def bilinear_matrix(size: int, new_size: int, align_corners: bool) -> np.ndarray:
    """The matrix (new_size, size) of torch's bilinear resize along one axis, float32."""
    low, high, share = neighbours(size, new_size, align_corners, np.float64)
    matrix, every = np.zeros((new_size, size), np.float32), np.arange(new_size)
    matrix[every, low] = 1 - share
    matrix[every, high] += share
    return matrix


def _nearest(size: int, padded: int, fitted: int, full: int) -> np.ndarray:
    """For each of `full` pixels the index among `size` that covers its centre."""
    centre = (np.arange(full) + 0.5) * (fitted / full)
    nearest: np.ndarray = np.minimum((centre * (size / padded)).astype(int), size - 1)
    return nearest


def _colours(card: ModelCard, count: int) -> np.ndarray:
    """uint8 (count or more, 3), blue first: the card's palette, or hues a golden ratio apart."""
    if len(card.palette) >= count:
        return np.array(card.palette, np.uint8)[:, ::-1]
    hues = [colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65 + 0.35 * (index % 2), 0.95) for index in range(count)]
    return np.round(np.array(hues) * 255).astype(np.uint8)[:, ::-1]


def _legend(card: ModelCard, colours: np.ndarray, classes: np.ndarray, shares: np.ndarray, most: int) -> np.ndarray:
    """A white column with a coloured square, the name and the share of the image for each of the first `most` classes."""
    rows = len(classes) if len(classes) <= most else most + 1
    legend = np.full((ENTRY_HEIGHT * rows + 8, LEGEND_WIDTH, 3), 255, np.uint8)
    for row in range(rows):
        top = 4 + row * ENTRY_HEIGHT
        if row < most:
            index = int(classes[row])
            cv2.rectangle(legend, (8, top + 4), (24, top + 20), colours[index].tolist(), cv2.FILLED)
            text = f"{card.class_name(index)[:22]} {shares[row]:.1%}"
        else:
            text = f"and {len(classes) - most} more {shares[most:].sum():.1%}"
        cv2.putText(legend, text, (32, top + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return legend
