"""What a channel needs of a connection: ordered multi-frame messages between two parties, without copies of large frames."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from threepc.errors import RunError
from threepc.transport.wires import Wire

Buffer = bytes | bytearray | memoryview | NDArray[Any]


class NoAnswerError(RunError):
    """Nothing arrived within the time allowed; the connection itself still stands."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "silent")


class Connection(ABC):
    """An ordered, reliable, two-way connection to one peer.

    Any thread may send, receive or close, also while another thread waits in `receive`. One thread receives at a time;
    others wait their turn, beyond their own timeout if need be.
    """

    peer: bytes | None
    """The peer's authenticated public key (40 characters of z85), or None where the operating system vouches for it."""

    process: int | None = None
    """The peer's process, where that is of this host and the operating system tells which."""

    where: str
    """Where the peer is, for messages, for example tcp://192.0.2.10:7001."""

    name: str
    """What messages call the peer; a channel that knows its role replaces the default."""

    note: Callable[[list[memoryview]], None] | None = None
    """Hears of every message as it arrives, before anybody receives it; a simulated network asks for that."""

    wire: Wire | None = None
    """What is known of the TCP connection below; None for ipc and memory."""

    def __init__(self, where: str, peer: bytes | None = None) -> None:
        self.where = where
        self.name = f"the party at {where}"
        self.peer = peer

    @abstractmethod
    def send(self, frames: Sequence[Buffer]) -> None:
        """Queue one message; never waits for the peer.

        `frames`: at least one buffer, the first not empty. Large buffers are sent from where they lie: nobody may write to them
        afterwards. Raises RunError when the connection has ended.
        """

    @abstractmethod
    def receive(self, timeout: float | None = None) -> list[memoryview]:
        """The next message, as one read-only view of bytes for each frame.

        Waits `timeout` seconds, or for ever when None. Raises NoAnswerError after that time; RunError, naming the peer, when the
        connection has ended and everything sent before its end has been received.
        """

    @abstractmethod
    def close(self) -> None:
        """End the connection, delivering what was sent; a waiting `receive` raises RunError. Closing twice is harmless."""

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it is known already that nothing more can be sent; what has arrived may still be received."""

    def collect(self) -> None:  # noqa: B027 - nothing to do where messages are delivered at once
        """Take in what has arrived, without receiving it."""

    def wire_bytes(self, sizes: Sequence[int]) -> int:
        """The bytes that a message with frames of these sizes takes on the wire."""
        return sum(sizes)

    def allow(self, size: int) -> None:
        """From now on up to `size` bytes, and some slack, may wait to be read. Over TCP the connection is cut when more do."""
        if self.wire is not None:
            self.wire.allow(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class QueuedConnection(Connection):
    """A connection whose incoming messages another thread delivers into a queue."""

    def __init__(self, where: str, peer: bytes | None = None) -> None:
        super().__init__(where, peer)
        self._incoming: queue.SimpleQueue[list[memoryview] | None] = queue.SimpleQueue()
        self._receiving = threading.Lock()
        self._end: str | None = None
        self._closed = False

    def receive(self, timeout: float | None = None) -> list[memoryview]:
        """What `deliver` was given, in its order."""
        with self._receiving:
            if self._closed:
                raise closed_here(self)
            try:
                frames = self._take(None if timeout is None else max(timeout, 0))
            except queue.Empty:
                raise no_answer(self, timeout) from None
            if frames is None:
                self._incoming.put(None)  # the end stays the end, for every later call
                raise closed_here(self) if self._closed else RunError(f"{self.name} {self._end}", "lost")
            return frames

    @property
    def has_ended(self) -> bool:
        """Whether either side has closed it, or its wire broke."""
        return self._closed or self._end is not None

    def deliver(self, frames: list[memoryview]) -> None:
        """Hand a message to the receiver."""
        if self.note is not None:
            self.note(frames)
        self._incoming.put(frames)

    def end(self, reason: str) -> None:
        """Nothing more will come; `reason` completes the sentence "the server ..."."""
        if self._end is None:
            self._end = reason
            self._incoming.put(None)

    def _take(self, timeout: float | None) -> list[memoryview] | None:
        """The next item of the queue. Raises queue.Empty after `timeout` seconds."""
        return self._incoming.get(timeout=timeout)

    def _check_sending(self) -> None:
        if self._closed:
            raise closed_here(self)
        if self._end is not None:
            raise RunError(f"{self.name} {self._end}", "lost")


def closed_here(connection: Connection) -> RunError:
    """What using a connection raises once this party has closed it."""
    return RunError(f"the connection to {connection.name} was closed on this side")


def no_answer(connection: Connection, timeout: float | None) -> NoAnswerError:
    """What a `receive` raises after `timeout` seconds."""
    return NoAnswerError(f"{connection.name} has not answered for {timeout:g} s")


def byte_view(buffer: Buffer) -> memoryview:
    """A buffer's bytes as one flat view. Raises ValueError when they are not contiguous."""
    view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError("only C-contiguous buffers are sent")
    return view.cast("B") if view.nbytes else memoryview(b"")
