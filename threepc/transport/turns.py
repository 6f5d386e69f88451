"""Many threads wait for messages of one socket: the first of them operates it for all, and passes the turn on when it leaves.

A thread of its own for the socket would cost every message a hand-over between threads, which on a busy machine is more than all
the rest (85 of 160 microseconds of a round trip, measured). Here a message usually wakes just the thread that wants it. So the one thread that
nearly always waits, for new connections, is patient: while others come and go it leaves them the turn, and looks now and then.
"""

from __future__ import annotations

import contextlib
import math
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
LOOK_S, LONGEST_LOOK_S = 0.05, 0.25
QUIET_S = 0.5
"""How often a patient thread looks at what nobody waits for, and while others wait; it takes the turn itself when nobody had it for so long."""


class Turns:
    """Waiting on queues that `drain` fills from some file descriptors."""

    def __init__(self, drain: Callable[[Inbox | None], bool], descriptors: Iterable[int]) -> None:
        """`drain` moves what has arrived into the queues, without waiting; the descriptors say when it is worth calling.

        It may stop as soon as there is something in the queue that it is given. It returns True when more may be there: a flood must not keep
        a thread from its own message, and the others from the socket.
        """
        self._drain = drain
        self._waker = Waker()
        self._poller = select.poll()
        for descriptor in (*descriptors, self._waker.fileno()):
            self._poller.register(descriptor, select.POLLIN)
        self._changed = threading.Condition()
        self._leader: Inbox | None = None
        self._followers: list[Inbox] = []
        self._is_patient = False  # who leads
        self._led_until = -math.inf  # by somebody who is not

    def get(self, inbox: queue.SimpleQueue[Item], timeout: float | None, *, patient: bool = False) -> Item:
        """The next item of `inbox`, for which nobody else may wait meanwhile. Raises queue.Empty after `timeout` seconds.

        patient: in what others do not hand out meanwhile there is no hurry; for one thread at a time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        look_s = LOOK_S
        while not inbox.empty():
            item: Item = inbox.get_nowait()
            if item is not _YOUR_TURN:  # of an earlier wait, that ended as the turn came
                return item
        self._enter(inbox, patient)
        try:
            while True:
                remaining = None if deadline is None else max(deadline - time.monotonic(), 0)
                if self._leader is inbox:
                    item = self._lead(inbox, remaining)
                    if patient:
                        self._give_way()
                elif patient:
                    item = self._look(inbox, look_s, remaining)
                    look_s = LOOK_S if self._leader is None else min(2 * look_s, LONGEST_LOOK_S)
                else:
                    item = inbox.get(timeout=remaining)
                if item is not _YOUR_TURN:
                    return item
        finally:
            self._leave(inbox, patient)

    @property
    def taken(self) -> bool:
        """Whether somebody operates the socket, or is about to look at it."""
        return self._leader is not None

    def wake(self) -> None:
        """Let whoever has the turn look again, after something other than the descriptors has changed."""
        if self._leader is not None:
            with self._changed:  # once nobody leads the waker may be gone
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
        if self._drain(inbox):
            time.sleep(_YIELD_S)
        elif inbox.empty():
            poll(self._poller, self._waker, None if timeout is None else timeout * 1000)
            self._drain(inbox)
        try:
            return inbox.get_nowait()
        except queue.Empty:
            if timeout == 0:
                raise
            return _YOUR_TURN

    def _look(self, inbox: Inbox, look_s: float, timeout: float | None) -> Any:
        """As `_lead`, for who is patient and has not the turn."""
        last = timeout is not None and timeout <= look_s
        with contextlib.suppress(queue.Empty):
            return inbox.get(timeout=timeout if last else look_s)
        with self._changed:
            if self._leader is None and self._is_quiet:
                self._leader, self._is_patient = inbox, True
        if self._leader is None:
            self._drain(None)
            self.wake()  # who has taken the turn meanwhile may wait for what came between
        return inbox.get_nowait() if last else _YOUR_TURN

    @property
    def _is_quiet(self) -> bool:
        return time.monotonic() > self._led_until + QUIET_S

    def _enter(self, inbox: Inbox, patient: bool) -> None:
        with self._changed:
            if self._leader is None and (not patient or self._is_quiet):
                self._leader, self._is_patient = inbox, patient
            elif not patient:
                self._followers.append(inbox)
                if self._is_patient:
                    self._waker.set()

    def _give_way(self) -> None:
        """From who is patient to the others, if any wait."""
        with self._changed:
            if self._followers:
                self._pass_on()

    def _leave(self, inbox: Inbox, patient: bool) -> None:
        with self._changed:
            if self._leader is inbox:
                self._pass_on()
            elif not patient:
                self._followers.remove(inbox)
            if not patient:
                self._led_until = time.monotonic()

    def _pass_on(self) -> None:
        self._leader, self._is_patient = self._followers.pop(0) if self._followers else None, False
        if self._leader is None:
            self._changed.notify_all()
        else:
            self._leader.put(_YOUR_TURN)
