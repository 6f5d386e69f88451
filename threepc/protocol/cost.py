"""What a protocol declares: bytes on every link, offline and online, and one-way messages on the online critical path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Payload bytes by link ("server->client", ...), headers not counted; messages: one-way online messages.

    rows: pieces that a layer has whose successor begins when the first of them are there, see rows.py; 0 for other steps, and for their sum.
    """

    offline: Mapping[str, int] = field(default_factory=dict)
    online: Mapping[str, int] = field(default_factory=dict)
    setup: Mapping[str, int] = field(default_factory=dict)
    messages: int = 0
    rows: int = 0

    def __add__(self, other: Cost) -> Cost:
        pairs = (self.offline, other.offline), (self.online, other.online), (self.setup, other.setup)
        offline, online, setup = ({link: a.get(link, 0) + b.get(link, 0) for link in {**a, **b}} for a, b in pairs)
        return Cost(offline, online, setup, self.messages + other.messages)

    def total(self, phase: str) -> int:
        """Bytes of a phase ("offline", "online", "setup") over all links."""
        return sum(getattr(self, phase).values())
