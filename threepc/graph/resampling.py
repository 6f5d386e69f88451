"""Maps of another size whose rows and columns are weighted sums of the old ones with public weights: what a node of kind resample does.

Each axis has a rule (plain JSON), or none ([]) where it stays:

["linear", size, aligned, ratio]                  linear interpolation to `size` cells. aligned: first and last cells stay where they are
                                                  (align_corners); else cell i is at (i + 1/2) ratio - 1/2 of the old axis
["adaptive", size]                                averages over floor(i n / size) to ceil((i + 1) n / size), of an axis of n cells
["window", size, kernel, stride, before, after]   averages over windows of `kernel` cells, counting real cells alone, of an axis with
                                                  `before` and `after` cells of padding
["counted", size, kernel, stride, before, after]  the same, counting the cells of the padding too

No message is needed: the weights are rounded to whole numbers over a power of two, and every party does the sums on its own summand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from threepc.errors import InputError

MOST_SIZE = 1 << 16
MOST_WEIGHTS = 1 << 22
"""Of one axis."""

EXACT_BITS = 8
"""Weights with more fractional bits than that are rounded."""

Taps = tuple[np.ndarray, np.ndarray]
"""Cells (int64) and their weights, each (size, terms)."""


def check_rule(rule: Any) -> None:
    """Raise InputError unless this is the rule of an axis."""
    match rule:
        case [] | ["adaptive", _] if all(_is_from(number, 1, MOST_SIZE) for number in rule[1:]):
            return
        case ["linear", size, bool(), float(ratio)] if _is_from(size, 1, MOST_SIZE) and 0 < ratio <= MOST_SIZE:
            return
        case ["window" | "counted", *numbers] if len(numbers) == 5:
            size, kernel, stride, before, after = numbers
            in_range = all(_is_from(number, 1, MOST_SIZE) for number in (size, kernel, stride))
            if in_range and all(_is_from(number, 0, kernel - 1) for number in (before, after)):
                return
    raise InputError("must be the rule of an axis, see resampling.py")


def _is_from(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def resampled(rule: list[Any], cells: int) -> int:
    """The size that a rule gives an axis of `cells`. Raises InputError for a rule of too many weights, or windows that hold no cell."""
    if not rule:
        return cells
    name, size, *numbers = rule
    terms = {"linear": 2, "adaptive": -(-cells // size) + 1}.get(name) or min(numbers[0], cells)
    if size * terms > MOST_WEIGHTS:
        raise InputError(f"an axis with {size * terms} weights; at most {MOST_WEIGHTS} are possible")
    if name in ("window", "counted"):
        _, stride, before, _ = numbers
        if (size - 1) * stride - before >= cells:
            raise InputError("a window that holds padding only")
    return int(size)


def taps(rule: list[Any], cells: int) -> Taps:
    """Which old cells make each new one, with which real weights; the terms that are too many have weight 0."""
    name, size, *numbers = rule
    new = np.arange(size, dtype=np.int64)
    if name == "linear":
        aligned, ratio = numbers
        place = new * ((cells - 1) / max(size - 1, 1)) if aligned else np.maximum((new + 0.5) * ratio - 0.5, 0)
        first = np.minimum(place.astype(np.int64), cells - 1)
        part = np.clip(place - first, 0, 1)
        return np.stack([first, np.minimum(first + 1, cells - 1)], 1), np.stack([1 - part, part], 1)
    if name == "adaptive":
        start, stop = new * cells // size, -(-(new + 1) * cells // size)
        count = stop - start
    else:
        kernel, stride, before, after = numbers
        from_, to = new * stride - before, np.minimum(new * stride - before + kernel, cells + after)
        start, stop = np.maximum(from_, 0), np.minimum(to, cells)
        count = (to - from_) if name == "counted" else stop - start
    chosen = start[:, None] + np.arange(int((stop - start).max()))
    weights = np.where(chosen < stop[:, None], 1 / count[:, None], 0.0)
    return np.minimum(chosen, cells - 1), weights


def exact_bits(found: Taps) -> int | None:
    """The fewest fractional bits with which all weights are exact, None where more than EXACT_BITS are needed."""
    for bits in range(EXACT_BITS + 1):
        scaled = found[1] * 2**bits
        if np.array_equal(scaled, np.rint(scaled)):
            return bits
    return None


def whole(weights: np.ndarray, bits: int) -> np.ndarray:
    """Weights as whole numbers over 2^bits, int64.

    Each is within a unit, and so is the sum of any that are neighbours: an average over many cells, whose weights are a few units each, loses
    nothing of what neighbours have in common.
    """
    sums = np.rint(weights.cumsum(axis=1) * 2**bits).astype(np.int64)
    return np.diff(sums, axis=1, prepend=0)


def apply(x: np.ndarray, axis: int, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums of weight * cell along an axis of words or numbers; weights of x's dtype."""
    shape = [1] * x.ndim
    shape[axis] = len(cells)
    out: np.ndarray = np.zeros([len(cells) if one == axis else size for one, size in enumerate(x.shape)], x.dtype)
    for cell, weight in zip(cells.T, weights.T, strict=True):
        out += x.take(cell, axis) * weight.reshape(shape)
    return out
