"""Operations without a message: each party does the same to its summand. Sums, scales, concatenation, window sums, shape.

A value is c + s - p with one summand at each party. In the reduced form c = d, s = u and p = 0, yet P also knows d: an operation on reduced values
alone is done by P on its d; where the result is not reduced, P's summand of a reduced operand is zero (None).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from threepc.graph import resampling
from threepc.graph.moves import Moves, apply
from threepc.kernels.elementwise import add_multiple, add_shifted, scale, shift_left, sum_windows
from threepc.kernels.gate import Cut, add_cut
from threepc.kernels.packing import Tiles
from threepc.kernels.product import multiply_matrices
from threepc.ring import word_constant, word_of

Summand = np.ndarray | None


def add(inputs: Sequence[Summand], lefts: Sequence[int]) -> Summand:
    """Sum of x << left over all inputs."""
    present = [(x, left) for x, left in zip(inputs, lefts, strict=True) if x is not None]
    if not present:
        return None
    (first, left), *rest = present
    out = np.empty(first.shape, first.dtype)
    shift_left(first.reshape(-1), left, out.reshape(-1))
    for x, left in rest:
        add_shifted(out.reshape(-1), x.reshape(-1), left)
    return out


def add_signed(inputs: Sequence[Summand], factors: Sequence[int]) -> Summand:
    """Sum of x * factor over all inputs; factors: public integers."""
    present = [(x, factor) for x, factor in zip(inputs, factors, strict=True) if x is not None]
    if not present:
        return None
    (first, factor), *rest = present
    out = np.empty(first.shape, first.dtype)
    scale(first.reshape(-1), word_constant(factor, first.dtype), out.reshape(-1))
    for x, factor in rest:
        add_multiple(out.reshape(-1), x.reshape(-1), word_constant(factor, x.dtype))
    return out


def add_constant(inputs: Sequence[Summand], constant: int) -> Summand:
    """A value plus a public word: what the server alone does."""
    (x,) = inputs
    return None if x is None else x + x.dtype.type(constant)


def concat(inputs: Sequence[Summand], lefts: Sequence[int], shapes: Sequence[tuple[int, int, int, int]]) -> Summand:
    """Concatenation of x << left along channels; shapes: those of the inputs."""
    word = next((x.dtype for x in inputs if x is not None), None)
    if word is None:
        return None
    n, _, h, w = shapes[0]
    out, at = np.zeros((n, sum(s[1] for s in shapes), h, w), word), 0
    for x, left, shape in zip(inputs, lefts, shapes, strict=True):
        if x is not None:
            np.left_shift(x, word.type(left), out=out[:, at : at + shape[1]])
        at += shape[1]
    return out


def every_second(inputs: Sequence[Summand], first: int) -> Summand:
    """The channels first, first + 2, ... of the only input."""
    (x,) = inputs
    return None if x is None else np.ascontiguousarray(x[:, first::2])


def multiply(x: Summand, factor: int) -> Summand:
    """x * factor, a public integer."""
    if x is None:
        return None
    out = np.empty(x.shape, x.dtype)
    scale(x.reshape(-1), word_constant(factor, x.dtype), out.reshape(-1))
    return out


def times(x: Summand, words: np.ndarray, matrix: bool, reverse: bool) -> Summand:
    """x times a public array of words, elementwise or as matrices; reverse: the array is the first factor. Shapes (N, C, H, W)."""
    if x is None:
        return None
    factors = [words, x] if reverse else [x, words]
    if not matrix:
        product: np.ndarray = factors[0] * factors[1]
        return product
    one, other = (repeated(factor, (len(x), *factor.shape[1:])) for factor in factors)
    out = np.zeros((*one.shape[:3], other.shape[3]), x.dtype)
    maps = out.shape[0] * out.shape[1]
    multiply_matrices(
        *(array.reshape(maps, *array.shape[2:]) for array in (one, other)), Tiles(0, maps, maps), out.reshape(maps, *out.shape[2:])
    )
    return out


def window_sums(
    x: Summand, kernel: tuple[int, int], stride: tuple[int, int], padding: Sequence[int], shape: tuple[int, int, int, int]
) -> Summand:
    """Sums over windows; padding: top, left, ...; shape: that of the result (N, C, OH, OW)."""
    if x is None:
        return None
    n, c, h, w = x.shape
    if tuple(kernel) == (h, w) and not any(padding):
        return np.ascontiguousarray(x.reshape(n, c, h * w).sum(axis=2, dtype=x.dtype).reshape(n, c, 1, 1))
    out = np.empty(shape, x.dtype)
    sum_windows(x.reshape(n * c, h, w), *kernel, *stride, padding[0], padding[1], out.reshape(n * c, *shape[2:]))
    return out


def reshape(x: Summand, shape: tuple[int, int, int, int]) -> Summand:
    """The same elements in another shape."""
    return None if x is None else x.reshape(shape)


def gather(x: Summand, moves: Moves) -> Summand:
    """Cells moved as graph/moves.py says."""
    return None if x is None else apply(x, moves)


def resample(x: Summand, axes: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> Summand:
    """Sums of whole weights times cells, along one axis after the other: (axis, cells, weights), see graph/resampling.py."""
    if x is None:
        return None
    for axis, cells, weights in axes:
        x = resampling.apply(x, axis, cells, weights.astype(x.dtype))
    return x


def broadcast(x: Summand, shape: tuple[int, int, int, int]) -> Summand:
    """A (N, C, 1, 1) map at every position of `shape`."""
    return None if x is None else repeated(x, shape)


def repeated(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A copy of x, repeated to `shape`. What numpy gives without one is read-only, and kernels would be compiled for that apart."""
    return np.array(np.broadcast_to(x, shape), order="C")


def cut_summand(x: np.ndarray, cut: Cut, at_server: bool) -> np.ndarray:
    """Cut words of a summand, of x's shape; S adds half a unit. See opening.py."""
    out = np.zeros(x.size, word_of(cut.kept_bits))
    add_cut(x.reshape(-1), cut, (1 << cut.shift) >> 1 if at_server else 0, out)
    return out.reshape(x.shape)
