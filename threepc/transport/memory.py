"""Connections between threads of one process: the same interface as over a network, for tests and for `transport="memory"`."""

from __future__ import annotations

from collections.abc import Sequence

from threepc.transport.connection import Buffer, QueuedConnection, byte_view


class MemoryConnection(QueuedConnection):
    """One end of a `pair`. Frames are views of the sender's own buffers, never copies."""

    _other: MemoryConnection

    def send(self, frames: Sequence[Buffer]) -> None:
        """Hand views of the frames to the other end."""
        self._check_sending()
        self._other.deliver([byte_view(frame).toreadonly() for frame in frames])

    def close(self) -> None:
        """End both ends; what the other one has not yet received, it still receives."""
        if not self._closed:
            self._closed = True
            self.end("was closed")
            self._other.end("closed the connection")


def pair() -> tuple[MemoryConnection, MemoryConnection]:
    """Two ends of a new connection."""
    one, two = MemoryConnection("memory"), MemoryConnection("memory")
    one._other, two._other = two, one
    return one, two
