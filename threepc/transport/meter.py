"""What travelled: payload bytes and messages for each link direction, phase and op.

The payload is what protocols declare as their cost. Headers, control messages and the wire's own framing are counted
apart, as overhead. A party's meter sees both directions of its own links, so every link is counted by two parties,
whose counts agree; a party needs one meter, not one for each end.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

PHASES = ("setup", "offline", "online")

Link = tuple[str, str]
"""Sender and receiver of one direction, for example ("client", "server")."""


@dataclass(frozen=True)
class Count:
    """Payload bytes and the number of messages that carried them."""

    bytes: int = 0
    messages: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.bytes + other.bytes, self.messages + other.messages)


class Meter:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[Link, str, int], list[int]] = defaultdict(lambda: [0, 0])  # bytes, messages
        self._overhead: dict[Link, int] = defaultdict(int)

    def add(self, link: Link, phase: str, op: int, payload: int, overhead: int = 0) -> None:
        """Count one message of `payload` bytes and the bytes around it. Raises ValueError for an unknown phase."""
        if phase not in PHASES:
            raise ValueError(f"a phase is one of {', '.join(PHASES)}, not {phase!r}")
        with self._lock:
            counter = self._counts[link, phase, op]
            counter[0] += payload
            counter[1] += 1
            self._overhead[link] += overhead

    def add_overhead(self, link: Link, count: int) -> None:
        """Count bytes of a message without payload, such as a control message."""
        with self._lock:
            self._overhead[link] += count

    def count(self, link: Link | None = None, phase: str | None = None, op: int | None = None) -> Count:
        """The sum over everything that matches; None matches all."""
        return sum((counted for key, counted in self.counts().items() if _matches(key, (link, phase, op))), Count())

    def counts(self) -> dict[tuple[Link, str, int], Count]:
        """A copy of the single counters, by (link, phase, op)."""
        with self._lock:
            return {key: Count(*counter) for key, counter in self._counts.items()}

    def overhead(self, link: Link | None = None) -> int:
        """Bytes that were no payload, on one link direction or on all."""
        with self._lock:
            return sum(count for key, count in self._overhead.items() if link is None or key == link)

    def as_report(self) -> dict:
        """The counts as the report's plain values: `bytes` by phase over all links, and `links` by "sender->receiver"."""
        with self._lock:
            links = sorted({link for link, _, _ in self._counts} | set(self._overhead))
        return {"bytes": self._by_phase(None), "links": {"->".join(link): self._link_report(link) for link in links}}

    def _link_report(self, link: Link) -> dict:
        messages = {phase: self.count(link, phase).messages for phase in PHASES}
        return {**self._by_phase(link), "messages": messages, "overhead": self.overhead(link)}

    def _by_phase(self, link: Link | None) -> dict[str, int]:
        sums = {phase: self.count(link, phase).bytes for phase in PHASES}
        return {**sums, "total": sum(sums.values())}


def _matches(key: tuple, wanted: tuple) -> bool:
    return all(want is None or have == want for have, want in zip(key, wanted))
