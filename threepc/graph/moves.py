"""Rearrangements of a tensor's cells that are known to everybody: what a node of kind gather does, in elementary moves.

Each move maps a tensor (without its batch) of any rank to another:

["reshape", [size, ...]]              the same cells in C order
["permute", [axis, ...]]              axes in another order
["take", axis, start, step, count]    cells start, start + step, ... of an axis; those outside of it are zeros
["index", axis, [i, ...]]             cells i of an axis; -1 stands for zeros

A slice, a flip and zero padding are takes, a repetition is one of step 0, nearest neighbours are an index. No message is needed: every
party moves its own summand. Moves come from strangers: `moved_shape` bounds every tensor on the way before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from threepc.errors import InputError

MAX_MOVES = 64
MAX_RANK = 8
MAX_COUNT = 1 << 28

Moves = Sequence[Sequence[Any]]


def moved_shape(shape: Sequence[int], moves: Any) -> tuple[int, ...]:
    """The shape that `moves` give a tensor of `shape`. Raises InputError unless they are moves, and no tensor on the way exceeds both ends."""
    if type(moves) is not list or len(moves) > MAX_MOVES:
        raise InputError(f"moves: must be a list of at most {MAX_MOVES}")
    sizes, largest = tuple(shape), math.prod(shape)
    for number, move in enumerate(moves):
        try:
            sizes = _moved(sizes, move)
        except InputError as error:
            raise InputError(f"moves: number {number}: {error}") from None
        largest = max(largest, math.prod(sizes))
    if largest > max(math.prod(shape), math.prod(sizes)):
        raise InputError("moves: a tensor on the way is larger than both the first and the last")
    return sizes


def are_bounded(shape: Sequence[int], moves: Sequence[list[Any]]) -> bool:
    """Whether a node may have these moves."""
    try:
        moved_shape(shape, list(moves))
    except InputError:
        return False
    return True


def _moved(sizes: tuple[int, ...], move: Any) -> tuple[int, ...]:
    match move:
        case ["reshape", [*wanted]] if len(wanted) <= MAX_RANK and all(_is_from(size, 1, MAX_COUNT) for size in wanted):
            if math.prod(wanted) == math.prod(sizes):
                return tuple(wanted)
        case ["permute", [*order]] if len(order) == len(sizes) and all(_is_from(axis, 0, MAX_RANK) for axis in order):
            if sorted(order) == list(range(len(sizes))):
                return tuple(sizes[axis] for axis in order)
        case ["take", axis, start, step, count] if _is_from(axis, 0, len(sizes) - 1) and _is_from(count, 1, MAX_COUNT):
            if _is_from(start, -MAX_COUNT, MAX_COUNT) and _is_from(step, -MAX_COUNT, MAX_COUNT):
                return _bounded((*sizes[:axis], count, *sizes[axis + 1 :]))
        case ["index", axis, [*cells]] if _is_from(axis, 0, len(sizes) - 1) and cells:
            if all(_is_from(cell, -1, sizes[axis] - 1) for cell in cells):
                return _bounded((*sizes[:axis], len(cells), *sizes[axis + 1 :]))
    raise InputError(f"is no move of a tensor of shape {sizes}")


def _bounded(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(sizes) > MAX_COUNT:
        raise InputError(f"would give more than {MAX_COUNT} cells")
    return sizes


def _is_from(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def simplified(shape: Sequence[int], moves: Sequence[list[Any]]) -> list[list[Any]]:
    """Fewer moves that do the same to a tensor of `shape`: neighbours that are reshapes or permutations become one, and what does nothing goes."""
    kept: list[tuple[tuple[int, ...], list[Any]]] = []
    sizes = tuple(shape)
    for move in moves:
        before, joined = sizes, move
        if kept and kept[-1][1][0] == move[0] == "reshape":
            before, _ = kept.pop()
        elif kept and kept[-1][1][0] == move[0] == "permute":
            before, (_, order) = kept.pop()
            joined = ["permute", [order[axis] for axis in move[1]]]
        sizes = _moved(before, joined)
        same = sizes == before and (joined[0] == "reshape" or joined[-1] == list(range(len(before))) or joined[2:4] == [0, 1])
        if not same:
            kept.append((before, joined))
    return [move for _, move in kept]


def apply(x: np.ndarray, moves: Moves) -> np.ndarray:
    """x (N, ...) with every image moved; contiguous, and x itself where nothing but its shape changes."""
    for name, *arguments in moves:
        if name == "reshape":
            x = x.reshape(len(x), *arguments[0])
        elif name == "permute":
            x = x.transpose(0, *(axis + 1 for axis in arguments[0]))
        elif name == "take":
            x = _take(x, *arguments)
        else:
            x = _index(x, *arguments)
    return np.ascontiguousarray(x)


def cells(move: Sequence[Any], size: int) -> np.ndarray:
    """Which cells of an axis of `size` a take or an index gives, int64; -1 for zeros."""
    if move[0] == "index":
        return np.array(move[2], np.int64)
    _, _, start, step, count = move
    found = start + step * np.arange(count, dtype=np.int64)
    return np.where((found >= 0) & (found < size), found, -1)


def _take(x: np.ndarray, axis: int, start: int, step: int, count: int) -> np.ndarray:
    # where it can be, a view; else zeros around a view
    size, shape = x.shape[axis + 1], (*x.shape[: axis + 1], count, *x.shape[axis + 2 :])
    if step == 0 and 0 <= start < size:
        return np.broadcast_to(_along(x, axis, slice(start, start + 1)), shape)
    inside = np.flatnonzero(cells(("take", axis, start, step, count), size) >= 0)  # one run of neighbours
    if not inside.size:
        return np.zeros(shape, x.dtype)
    first, last = int(inside[0]), int(inside[-1])
    stop = start + step * last + (1 if step > 0 else -1)
    view = _along(x, axis, slice(start + step * first, stop if stop >= 0 else None, step))
    if inside.size == count:
        return view
    out = np.zeros(shape, x.dtype)
    _along(out, axis, slice(first, last + 1))[...] = view
    return out


def _index(x: np.ndarray, axis: int, chosen: Sequence[int]) -> np.ndarray:
    out = x.take(np.maximum(chosen, 0), axis + 1)
    out[(slice(None),) * (axis + 1) + (np.array(chosen) < 0,)] = 0
    return out


def _along(x: np.ndarray, axis: int, chosen: Any) -> np.ndarray:
    view: np.ndarray = x[(slice(None),) * (axis + 1) + (chosen,)]
    return view
