"""Inputs of an image and, from their outputs, its labels: one input that shows the whole image, or windows that slide over it. Without torch.

Windows and averages are those of mmsegmentation where a config's test_cfg says mode='slide', but for an image that is smaller than a window:
that one is padded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from threepc.errors import InputError
from threepc.images.card import ModelCard, Sliding
from threepc.images.read import preprocess
from threepc.images.resize import neighbours
from threepc.images.segmentation import ROWS_AT_ONCE, bilinear_matrix, pixel_labels

MOST_LOGITS = 1 << 29
"""Averaged logits of one image that are held at once; labels need no such array."""


def image_inputs(image: np.ndarray, card: ModelCard, source: str = "the image") -> np.ndarray:
    """An image, as `threepc.images.read.read_image` gives it, to float32 (inputs, C, H, W): its windows, or one input. Raises as `preprocess`."""
    preprocessing, sliding = card.preprocessing, card.sliding
    if sliding is None:
        return preprocess(image, preprocessing, source)[None]
    size = sliding.resized_size((image.shape[0], image.shape[1]))
    whole = preprocess(image, dataclasses.replace(preprocessing, size=size, resize="stretch"), source)
    return windows_of(whole[None], sliding, preprocessing.size)[:, 0]


def windows_of(images: np.ndarray, sliding: Sliding, window: tuple[int, int]) -> np.ndarray:
    """Images (N, C, H, W), resized and normalised already, cut to windows (windows, N, C, h, w) of the size `window`, padded where they are smaller."""
    size = (images.shape[2], images.shape[3])
    missing = [(0, max(0, side - own)) for side, own in zip(window, size, strict=True)]
    padded = np.pad(images, [(0, 0), (0, 0), *missing])
    return np.stack([padded[..., rows, columns] for rows, columns in _windows(sliding, size, window)])


def image_labels(outputs: np.ndarray, card: ModelCard, image_size: tuple[int, int]) -> np.ndarray:
    """The class of every pixel of an image of `image_size` (H, W), uint16 (H, W).

    outputs: logits (inputs, K, h, w) of what `image_inputs` gave, or of a whole image its classes (1, h, w).
    """
    if card.sliding is None:
        return pixel_labels(outputs[0], card, image_size)
    labels = np.empty(image_size, np.uint16)
    for rows, logits in _averages(outputs, card, card.sliding, image_size):
        labels[rows] = logits.argmax(axis=0)
    return labels


def check_logits(classes: int, image_size: tuple[int, int]) -> None:
    """Raises InputError where an image of `image_size` (H, W) has more logits than `image_logits` holds: who wants them asks before an inference is spent."""
    height, width = image_size
    if classes * height * width > MOST_LOGITS:
        raise InputError(f"logits of {classes} classes for {width}x{height} pixels are too many to hold: make the image smaller")


def image_logits(outputs: np.ndarray, card: ModelCard, sliding: Sliding, image_size: tuple[int, int]) -> np.ndarray:
    """The windows' logits (windows, K, h, w), averaged and resized to the image: float64 (K, H, W), whose argmaxes are `image_labels`.

    Raises InputError where these are too many to hold.
    """
    check_logits(outputs.shape[1], image_size)
    averages = np.empty((outputs.shape[1], *image_size))
    for rows, logits in _averages(outputs, card, sliding, image_size):
        averages[:, rows] = logits
    return averages


def _windows(sliding: Sliding, size: tuple[int, int], window: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Rows and columns of each, the last ones moved back to the edge."""
    axes = []
    for own, side, step, count in zip(size, window, sliding.stride, sliding.counts(size, window), strict=True):
        starts = (max(0, min(index * step, own - side)) for index in range(count))
        axes.append([slice(start, start + side) for start in starts])
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def _averages(outputs: np.ndarray, card: ModelCard, sliding: Sliding, image_size: tuple[int, int]) -> Iterator[tuple[slice, np.ndarray]]:
    """Averaged logits at the image's size, a few of its rows at a time, which bounds memory: which rows, and float32 (K, rows, W).

    As mmsegmentation does it, a window's logits are resized to the window, and their averages to the image.
    """
    window, size = card.preprocessing.size, sliding.resized_size(image_size)
    logits = outputs.astype(np.float32)
    to_rows, to_columns = (bilinear_matrix(small, side, card.align_corners) for small, side in zip(outputs.shape[2:], window, strict=True))
    spans = list(zip(_windows(sliding, size, window), logits, strict=True))
    above, below, down = neighbours(size[0], image_size[0], card.align_corners, np.float32)
    left, right, across = neighbours(size[1], image_size[1], card.align_corners, np.float32)
    for start in range(0, image_size[0], ROWS_AT_ONCE):
        band = slice(start, min(start + ROWS_AT_ONCE, image_size[0]))
        wanted, places = np.unique(np.concatenate([above[band], below[band]]), return_inverse=True)
        upper, lower = np.split(places, 2)
        sums = np.zeros((outputs.shape[1], len(wanted), max(window[1], size[1])), np.float32)
        counts = np.zeros(sums.shape[1:], np.float32)
        for (rows, columns), own in spans:
            first, last = np.searchsorted(wanted, (rows.start, rows.stop))
            if first < last:
                sums[:, first:last, columns] += to_rows[wanted[first:last] - rows.start] @ own @ to_columns.T
                counts[first:last, columns] += 1
        averages = sums[..., : size[1]] / counts[:, : size[1]]
        averages = averages[:, upper] * (1 - down[band])[:, None] + averages[:, lower] * down[band][:, None]
        yield band, averages[..., left] * (1 - across) + averages[..., right] * across
