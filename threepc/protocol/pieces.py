"""A layer in pieces of consecutive channels or rows, each of which runs a protocol of its own with addresses of its own, so that links and parties work at once.

While one piece's message is on its way, the next one is computed and sent, and answers to the first come back the other way: a layer takes its one-way
delays, and beyond them the time of the busier direction alone, where whole messages take that of both. S and C go through the pieces in turn,
a message of each, so both know the order; P deals in the order in which S begins. What a piece sends is what its protocol sends for a layer of
its channels or rows: nothing is new to anybody but how many there are, which is public.

Layers of two messages are cut by rows, so that the next layer begins while the last answers of this one are on their way, see rows.py.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from threepc.protocol.cost import Cost
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.relu_layer import ReluLayer
from threepc.protocol.roles import Client, Provider, Server, Turns, finished
from threepc.protocol.rows import Rows, rows_of

Result = TypeVar("Result")

CHANNELS, ROWS = 1, 2
"""Axes along which a layer is cut."""

MOST = {CHANNELS: 8, ROWS: 16}
"""Pieces of a layer."""


def evenly(count: int, pieces: int) -> list[slice]:
    """`count` channels or rows in so many pieces of nearly the same size, of at least one each."""
    bounds = np.linspace(0, count, min(count, pieces) + 1).astype(int).tolist()
    return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


@dataclass(frozen=True)
class InPieces:
    """The pieces of a layer, in the order of its channels or rows; of one protocol, with addresses one after the other."""

    parts: tuple[ReluLayer | MaxPool, ...]
    axis: int = CHANNELS

    @cached_property
    def cost(self) -> Cost:
        """Bytes of all pieces, and messages of one after the other: those of the others are under way beside them."""
        costs = [part.cost for part in self.parts]
        total = sum(costs, Cost())
        rows = len(costs) if self.axis == ROWS else 0
        return Cost(total.offline, total.online, total.setup, max(cost.messages for cost in costs), rows)

    @cached_property
    def _slices(self) -> list[slice]:
        ends = itertools.accumulate((part.shape[self.axis] for part in self.parts), initial=0)
        return [slice(begin, end) for begin, end in itertools.pairwise(ends)]

    def _each(self, z: np.ndarray, begin: Callable[[ReluLayer | MaxPool, np.ndarray], Turns[np.ndarray]]) -> np.ndarray:
        parts = zip(self.parts, self._slices, strict=True)
        return np.concatenate(in_turn([begin(part, z[(slice(None),) * self.axis + (where,)]) for part, where in parts]), axis=self.axis)

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """P: deal every piece. z: P's summand (N, C, H, W)."""
        return self._each(z, lambda part, piece: part.dealing(provider, piece))

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline. z: C's summand (N, C, H, W)."""
        return self._each(z, lambda part, piece: part.preparing(client, piece))

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S, online. z: S's summand (N, C, H, W)."""
        return self._each(z, lambda part, piece: part.serving(server, piece))

    def serve_by_rows(self, server: Server, word: np.dtype[Any] | type, z: np.ndarray | Rows) -> Rows:
        """S, online: as `serve`, of a layer of two messages cut by rows, whose result is of type `word`. Every piece has begun, and its message has gone, when this returns."""
        earlier, begun = server.coming, deque[tuple[Turns[np.ndarray], slice]]()
        for part, where in zip(self.parts, self._slices, strict=True):
            rows = rows_of(z, where.start, where.stop)
            run = part.serving(server, rows)
            next(run)
            begun.append((run, where))

        before = None if earlier is None or earlier.is_whole else earlier  # what nobody waits for is let go

        def fill(words: np.ndarray, there: int, end: int) -> int:
            if before is not None:
                before.whole()  # the client answered that layer first
            while there < end:
                run, where = begun.popleft()
                words[:, :, where], there = finished(run), where.stop
            return there

        n, channels, _, width = self.parts[0].shape
        server.coming = Rows((n, channels, self._slices[-1].stop, width), word, fill)
        return server.coming

    def infer(self, client: Client) -> None:
        """C, online."""
        in_turn([part.inferring(client) for part in self.parts])


def in_turn(runs: Sequence[Turns[Result]]) -> list[Result]:
    """The results of runs that go on in turn, each to where it next waits for a message."""
    results: dict[int, Result] = {}
    while len(results) < len(runs):
        for index, run in enumerate(runs):
            if index not in results:
                try:
                    next(run)
                except StopIteration as stopped:
                    results[index] = stopped.value
    return [results[index] for index in range(len(runs))]
