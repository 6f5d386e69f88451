"""Places for sessions: a limited number at once, and a queue in which no key can keep the others out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class _Ticket:
    """One who waits for a place."""

    key: Hashable


class Places:
    """The key that holds the fewest places comes first; among those that hold as many, who came first.

    A key holds `of_one` places at most, whatever is free; whoever has none, such as a thread of this process, as many as there are.
    """

    def __init__(self, count: int, of_one: int | None = None) -> None:
        self._free, self._of_one = count, count if of_one is None else of_one
        self._held: Counter[Hashable] = Counter()
        self._waiting: list[_Ticket] = []
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, key: Hashable, tell: Callable[[int], None], every: float) -> Iterator[None]:
        """Hold a place for `key`, after waiting for one.

        While it waits, `tell` is called every so many seconds with its number in the queue, from 1; what that raises ends the wait.
        """
        ticket = _Ticket(key)
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not self._free or self._is_full(key) or self._order()[0] is not ticket:
                    tell(self._order().index(ticket) + 1)
                    self._changed.wait(every)
                self._free -= 1
                self._held[key] += 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._held[key] -= 1
                self._changed.notify_all()

    def _order(self) -> list[_Ticket]:
        """Who waits, in the order in which they get their places if nobody leaves: each one's key then holds one more."""
        held, ranked = self._held.copy(), []
        for ticket in self._waiting:
            ranked.append((self._is_full(ticket.key), held[ticket.key], ticket))
            held[ticket.key] += 1
        return [ticket for *_, ticket in sorted(ranked, key=lambda entry: entry[:2])]

    def _is_full(self, key: Hashable) -> bool:
        return key is not None and self._held[key] >= self._of_one
