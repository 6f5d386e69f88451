"""Bilinear resizes as torch does them. A segmentation network ends with one; it is linear and public, so the client does it after decoding."""

import numpy as np
from numpy.typing import DTypeLike


def bilinear(maps: np.ndarray, height: int, width: int, align_corners: bool) -> np.ndarray:
    """Resize (N, C, H, W) floats to (N, C, height, width), of the same dtype, as torch.nn.functional.interpolate does for a given size."""
    low, high, part = neighbours(maps.shape[2], height, align_corners, maps.dtype)
    maps = maps[:, :, low] * (1 - part)[:, None] + maps[:, :, high] * part[:, None]
    low, high, part = neighbours(maps.shape[3], width, align_corners, maps.dtype)
    resized: np.ndarray = maps[..., low] * (1 - part) + maps[..., high] * part
    return resized


def neighbours(size: int, target: int, align_corners: bool, dtype: DTypeLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis, for each of `target` cells the two of `size` cells that it lies between, and how far (0 to 1) from the first."""
    # Aligned corners: first and last cell centres meet. Otherwise the outer edges of the cells do, and centres are half a cell in.
    if align_corners:
        position = np.arange(target) * ((size - 1) / (target - 1) if target > 1 else 0.0)
    else:
        position = np.maximum((np.arange(target) + 0.5) * (size / target) - 0.5, 0.0)
    low = np.minimum(position.astype(np.intp), size - 1)
    return low, np.minimum(low + 1, size - 1), (position - low).astype(dtype)
