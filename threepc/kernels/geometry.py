"""What the kernels of a convolution are told: its sizes and its arrays."""

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """The sizes of a convolution (N, C, H, W) to (N, O, OH, OW)."""

    groups: int
    inputs: int  # channels of a group: C / groups
    outputs: int  # channels of a group: O / groups
    height: int
    width: int
    kernel_height: int
    kernel_width: int
    stride_down: int
    stride_across: int
    top: int  # rows of padding above the map; what is below follows
    left: int
    dilation_down: int
    dilation_across: int
    out_height: int
    out_width: int
    short: bool  # whether the ring is one that IFMA multiplies


class Operands(NamedTuple):
    """The arrays of a convolution, flat and of one word type; all but `out` read-only."""

    weight: np.ndarray  # as `pack_weight` lays it out
    x: np.ndarray
    bias: np.ndarray  # of each group, with zeros up to whole panels of ROWS
    out: np.ndarray


def read_only(words: np.ndarray) -> np.ndarray:
    """A flat read-only view, so that numba compiles for one type whoever owns the memory; a copy if it is not contiguous or aligned."""
    plain = words.flags.c_contiguous and words.flags.aligned
    flat = (words if plain else np.require(words, requirements=["C", "A"])).reshape(-1)
    flat.flags.writeable = False
    return flat
