"""A file descriptor that another thread can make readable, to interrupt a poll."""

from __future__ import annotations

import os
import select


class Waker:
    """Set by any thread, cleared by the one that polls."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._descriptor

    def set(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Make a descriptor that a poll has found readable unreadable again."""
        os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back; nobody may poll it any more."""
        os.close(self._descriptor)


def poll(poller: select.poll, waker: Waker, timeout_ms: float | None) -> list[int]:
    """Wait until one of the poller's descriptors, the waker's among them, is readable: those that are, none after `timeout_ms` without."""
    ready = [descriptor for descriptor, _ in poller.poll(timeout_ms)]
    if waker.fileno() in ready:
        waker.clear()
    return ready
