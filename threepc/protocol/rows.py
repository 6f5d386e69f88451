"""Values of the server's whose rows come one after the other: what follows from the first ones is computed and sent while the others are on their way.

A layer of two messages in pieces of rows (pieces.py) needs all of its input only for its last piece. So S begins each piece as soon as the
rows under it are there, although the client's answers for the layer before have not all come; convolutions and sums between the two layers compute
the rows that are asked for. S sends in the order of layers, as it would otherwise, C answers in the order in which it hears, and S takes the
answers in that order: nobody needs to know how far the other one is. C's view is the same, message by message, and so is S's; a message of S may
leave before S has heard an answer that it does not depend on, and holds what it would hold later: the same words of the same streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import numpy as np

from threepc.protocol.summands import Summand

Fill = Callable[[np.ndarray, int, int], int]
"""Writes rows into words (N, C, H, W) from one on, to another one or further; returns before which row all are there."""


class Rows:
    """Words (N, C, H, W), of which rows are filled in as they are asked for."""

    def __init__(self, shape: tuple[int, int, int, int], word: np.dtype[Any] | type, fill: Fill) -> None:
        self._words, self._there, self._fill = np.empty(shape, word), 0, fill

    def before(self, end: int) -> np.ndarray:
        """The words, in which the rows before `end` are there."""
        while self._there < end:
            self._there = self._fill(self._words, self._there, end)
            if self._there == self._words.shape[2]:
                self._fill = _nothing_left  # and with it goes what they were computed from
        return self._words

    @property
    def is_whole(self) -> bool:
        """Whether all are there already."""
        return self._there == self._words.shape[2]

    def whole(self) -> np.ndarray:
        """The words, when all are there."""
        return self.before(self._words.shape[2])


def _nothing_left(_words: np.ndarray, _begin: int, end: int) -> int:
    return end


Held = Summand | Rows
"""What S has of a value."""


def whole(held: Held) -> Summand:
    """All of it."""
    return held.whole() if isinstance(held, Rows) else held


@overload
def rows_of(held: np.ndarray | Rows, begin: int, end: int) -> np.ndarray: ...
@overload
def rows_of(held: Held, begin: int, end: int) -> Summand: ...
def rows_of(held: Held, begin: int, end: int) -> Summand:
    """Rows of it, an array of their own."""
    words = held.before(end) if isinstance(held, Rows) else held
    return None if words is None else np.ascontiguousarray(words[:, :, begin:end])
