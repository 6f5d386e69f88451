"""The public geometry of a block ReLU: which channels decide by patches, which pass, which are zero, and which pixels share a decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.kernels.packing import padded
from threepc.kernels.patch import spread_bits, sum_patches
from threepc.protocol.roles import plane_words

IDENTITY, ZERO = (0, 1), (1, 0)


@dataclass(frozen=True)
class Patches:
    """Patch sizes (h, w) of the channels that decide (all others removed), on maps of `height` x `width`, cut at the right and bottom edge."""

    sizes: tuple[tuple[int, int], ...]
    height: int
    width: int

    def __post_init__(self):
        clipped = np.minimum(np.array(self.sizes, np.int64).reshape(-1, 2), (self.height, self.width))
        rows, columns = -(-np.array((self.height, self.width)) // clipped).T
        object.__setattr__(self, "_clipped", clipped)
        object.__setattr__(self, "pixels", len(self.sizes) * self.height * self.width)
        object.__setattr__(self, "count", int(rows @ columns))

    @property
    def plain(self) -> bool:
        """Whether every pixel is a patch of its own."""
        return self.count == self.pixels

    def sums(self, values: np.ndarray, images: int, shift: int, cut: int) -> np.ndarray:
        """Sums of the bits shift..cut-1 of cut words (padded run of pixels) over every patch, padded run of patches."""
        out = np.empty(padded(images * self.count), values.dtype)
        sum_patches(values, shift, cut, self._clipped, self.height, self.width, images, out)
        return out

    def spread(self, planes: np.ndarray, images: int) -> np.ndarray:
        """Planes of pixels from planes of patches."""
        out = np.empty(plane_words(images * self.pixels, 1), np.uint64)
        spread_bits(planes, self._clipped, self.height, self.width, images, out)
        return out
