"""A file descriptor that another thread can make readable, to interrupt a poll."""

from __future__ import annotations

import os


class Waker:
    """Set by any thread, cleared by the one that polls."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_set = False

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        self._is_set = True
        os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        # The flag spares the system call of the usual case. It is raised before the descriptor and lowered before the read, so a set
        # that comes in between costs one idle turn of the poll and is never lost.
        if self._is_set:
            self._is_set = False
            try:
                os.eventfd_read(self._descriptor)
            except BlockingIOError:
                self._is_set = True  # its write is still on its way

    def close(self) -> None:
        os.close(self._descriptor)
