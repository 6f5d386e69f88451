"""Windows that slide over an image, each an input of a segmentation network, whose logits are averaged where they overlap. Without torch.

As mmsegmentation does it where a config's test_cfg says mode='slide', but for an image that is smaller than a window: that one is padded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import preprocess
from threepc.images.segmentation import bilinear_matrix, largest


@dataclass(frozen=True)
class Sliding:
    """scale: pixels (long side, short side) within which an image is resized, keeping its aspect ratio. stride: of windows, rows and columns."""

    scale: tuple[int, int]
    stride: tuple[int, int]

    def resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) that an image of `size` is resized to; rounds as mmcv does."""
        factor = min(max(self.scale) / max(size), min(self.scale) / min(size))
        return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))

    def inputs(self, image: np.ndarray, preprocessing: Preprocessing, source: str) -> np.ndarray:
        """An image, as `threepc.images.read.read_image` gives it, to float32 (windows, C, H, W), each of the size that `preprocessing` says."""
        size = self.resized_size((image.shape[0], image.shape[1]))
        whole = preprocess(image, dataclasses.replace(preprocessing, size=size, resize="stretch", multiple=1), source)
        missing = [max(0, side - own) for side, own in zip(preprocessing.size, size, strict=True)]
        padded = np.pad(whole, [(0, 0), (0, missing[0]), (0, missing[1])])
        return np.stack([padded[:, rows, columns] for rows, columns in self._windows(size, preprocessing.size)])

    def labels(self, outputs: np.ndarray, card: ModelCard, image_size: tuple[int, int]) -> np.ndarray:
        """The class of every pixel of the image, uint16 (H, W). outputs: logits (windows, K, h, w) of `inputs`; image_size: (H, W) of the file."""
        crop, size = card.preprocessing.size, self.resized_size(image_size)
        whole = [max(side, own) for side, own in zip(crop, size, strict=True)]
        to_rows, to_columns = (
            bilinear_matrix(small, side, card.align_corners) for small, side in zip(outputs.shape[2:], crop, strict=True)
        )
        sums, counts = np.zeros((outputs.shape[1], *whole), np.float32), np.zeros(whole, np.float32)
        for (rows, columns), logits in zip(self._windows(size, crop), outputs, strict=True):
            sums[:, rows, columns] += to_rows @ logits.astype(np.float32) @ to_columns.T
            counts[rows, columns] += 1
        averages = (sums / counts)[:, : size[0], : size[1]]
        axes = (bilinear_matrix(fitted, full, card.align_corners) for fitted, full in zip(size, image_size, strict=True))
        return largest(averages, *axes)

    def _windows(self, size: tuple[int, int], crop: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each, the last ones moved back to the edge."""
        axes = []
        for own, side, stride in zip(size, crop, self.stride, strict=True):
            count = max(0, own - side + stride - 1) // stride + 1
            starts = (max(0, min(index * stride, own - side)) for index in range(count))
            axes.append([slice(start, start + side) for start in starts])
        return ((rows, columns) for rows in axes[0] for columns in axes[1])
