"""Many threads wait for messages of one socket: the first of them operates it for all, and passes the turn on when it leaves.

A thread of its own for the socket would cost every message a hand-over between threads, which on a busy machine is more than all
the rest (85 of 160 microseconds of a round trip, measured). Here a message usually wakes just the thread that wants it.
"""

from __future__ import annotations

import queue
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from threepc.transport.waker import Waker, poll

Item = TypeVar("Item")
Inbox = queue.SimpleQueue[Any]
_YOUR_TURN = object()
_YIELD_S = 1e-4


class Turns:
    """Waiting on queues that `drain` fills from some file descriptors."""

    def __init__(self, drain: Callable[[], bool], descriptors: Iterable[int]) -> None:
        """`drain` moves what has arrived into the queues, without waiting; the descriptors say when it is worth calling.

        It returns True when more may be there: a flood must not keep a thread from its own message, and the others from the socket.
        """
        self._drain = drain
        self._waker = Waker()
        self._poller = select.poll()
        for descriptor in (*descriptors, self._waker.fileno()):
            self._poller.register(descriptor, select.POLLIN)
        self._changed = threading.Condition()
        self._leader: Inbox | None = None
        self._followers: list[Inbox] = []

    def get(self, inbox: queue.SimpleQueue[Item], timeout: float | None) -> Item:
        """The next item of `inbox`, for which nobody else may wait meanwhile. Raises queue.Empty after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._enter(inbox)
        try:
            while True:
                remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
                item: Item = self._lead(inbox, remaining) if self._leader is inbox else inbox.get(timeout=remaining)
                if item is not _YOUR_TURN:
                    return item
        finally:
            self._leave(inbox)

    def wake(self) -> None:
        """Let whoever has the turn look again, after something other than the descriptors has changed."""
        if self._leader is not None:
            self._waker.set()

    def close(self) -> None:
        """Wait until nobody waits any more; every inbox must have been given its last item."""
        with self._changed:
            self._waker.set()
            self._changed.wait_for(lambda: self._leader is None)
        self._waker.close()

    def _lead(self, inbox: Inbox, timeout: float | None) -> Any:
        """An item for oneself, or _YOUR_TURN when there is none yet but time is left."""
        if self._drain():
            time.sleep(_YIELD_S)
        elif inbox.empty():
            poll(self._poller, self._waker, None if timeout is None else timeout * 1000)
            self._drain()
        try:
            return inbox.get_nowait()
        except queue.Empty:
            if timeout == 0:
                raise
            return _YOUR_TURN

    def _enter(self, inbox: Inbox) -> None:
        with self._changed:
            if self._leader is None:
                self._leader = inbox
            else:
                self._followers.append(inbox)

    def _leave(self, inbox: Inbox) -> None:
        with self._changed:
            if self._leader is not inbox:
                self._followers.remove(inbox)
                return
            self._leader = self._followers.pop(0) if self._followers else None
            if self._leader is None:
                self._changed.notify_all()
            else:
                self._leader.put(_YOUR_TURN)
