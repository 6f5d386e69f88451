"""How parties reach each other: the one interface that sessions use, over ZeroMQ or within a process."""
from __future__ import annotations

import queue
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import RunError
from ..transport import memory
from ..transport.connection import Connection


class Listener(Protocol):
    """Where a party is reached."""

    def accept(self, timeout: float | None = None) -> Connection | None:
        """The next connection, None after `timeout` seconds; raises RunError once closed."""

    def close(self) -> None:
        """Stop listening."""


class Network(Protocol):
    """The server and the provider listen; the client connects to both, the server to the provider."""

    def listen(self, role: str) -> Listener:
        """Listen as `role`."""

    def connect(self, role: str) -> Connection:
        """A new connection to `role`."""


@dataclass
class MemoryNetwork:
    """Parties in threads of one process."""

    waiting: dict[str, queue.SimpleQueue] = field(default_factory=lambda: {"server": queue.SimpleQueue(), "provider": queue.SimpleQueue()})

    def listen(self, role: str) -> MemoryListener:
        """See `Network`."""
        return MemoryListener(self.waiting[role])

    def connect(self, role: str) -> Connection:
        """See `Network`."""
        mine, theirs = memory.pair()
        self.waiting[role].put(theirs)
        return mine


class MemoryListener:
    """Accepts what was connected in this process."""

    def __init__(self, waiting: queue.SimpleQueue):
        self._waiting = waiting

    def accept(self, timeout: float | None = None) -> Connection | None:
        """See `Listener`."""
        try:
            connection = self._waiting.get(timeout=timeout)
        except queue.Empty:
            return None
        if connection is None:
            self._waiting.put(None)
            raise RunError("this party no longer listens")
        return connection

    def close(self) -> None:
        """See `Listener`."""
        self._waiting.put(None)
