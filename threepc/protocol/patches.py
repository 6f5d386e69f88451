"""The public geometry of a block ReLU: which channels decide by patches, which pass, which are zero, and which pixels share a decision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.errors import InputError
from threepc.kernels.packing import padded
from threepc.kernels.patch import spread_bits, sum_patches
from threepc.protocol.roles import plane_words


@dataclass(frozen=True)
class Patches:
    """Patch sizes (h, w) of the channels that decide (all others removed), on maps of `height` x `width`, cut at the right and bottom edge.

    Raises InputError for a size below 1.
    """

    sizes: tuple[tuple[int, int], ...]
    height: int
    width: int

    def __post_init__(self) -> None:
        # the kernels trust these numbers
        if min(self.height, self.width, *(side for size in self.sizes for side in size)) < 1:
            raise InputError(f"a map of {self.height}x{self.width} and its patches must have at least one pixel")

    @cached_property
    def _clipped(self) -> np.ndarray:
        """Sizes (channels, 2) int64, none larger than the map."""
        return np.minimum(np.array(self.sizes, np.int64).reshape(-1, 2), (self.height, self.width))

    @property
    def pixels(self) -> int:
        """Of one image, in all channels."""
        return len(self.sizes) * self.height * self.width

    @cached_property
    def count(self) -> int:
        """Patches of one image, in all channels."""
        rows, columns = -(-np.array((self.height, self.width)) // self._clipped).T
        return int(rows @ columns)

    @property
    def plain(self) -> bool:
        """Whether every pixel is a patch of its own."""
        return self.count == self.pixels

    def sums(self, values: np.ndarray, images: int, low_bit: int, high_bit: int) -> np.ndarray:
        """Sums of the bits low_bit..high_bit-1 of cut words (padded run of pixels) over every patch, padded run of patches."""
        out = np.empty(padded(images * self.count), values.dtype)
        sum_patches(values, low_bit, high_bit, self._clipped, self.height, self.width, images, out)
        return out

    def spread(self, planes: np.ndarray, images: int) -> np.ndarray:
        """Planes of pixels from planes of patches."""
        out = np.empty(plane_words(images * self.pixels, 1), np.uint64)
        spread_bits(planes, self._clipped, self.height, self.width, images, out)
        return out
