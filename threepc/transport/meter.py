"""What travelled: payload bytes and messages for each link direction, phase and op.

The payload is what protocols declare as their cost; headers, control messages and the wire's own framing are none of it. A party's
meter sees both directions of its own links, so every link is counted by two parties, whose counts agree; a party needs one meter, not
one for each end.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import NamedTuple

PHASES = ("setup", "offline", "online")

Link = tuple[str, str]
"""Sender and receiver of one direction, for example ("client", "server")."""


class Count(NamedTuple):
    """Payload bytes and the number of messages that carried them."""

    bytes: int
    messages: int


class Meter:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[Link, str, int], list[int]] = defaultdict(lambda: [0, 0])  # bytes, messages

    def add(self, link: Link, phase: str, op: int, payload: int) -> None:
        """Count one message of `payload` bytes. Raises ValueError for an unknown phase."""
        if phase not in PHASES:
            raise ValueError(f"a phase is one of {', '.join(PHASES)}, not {phase!r}")
        with self._lock:
            counter = self._counts[link, phase, op]
            counter[0] += payload
            counter[1] += 1

    def counts(self) -> dict[tuple[Link, str, int], Count]:
        """A copy of the single counters, by (link, phase, op)."""
        with self._lock:
            return {key: Count(*counter) for key, counter in self._counts.items()}
