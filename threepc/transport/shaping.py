"""A slower network on one machine: messages arrive when links and hosts of given rates and delays would have delivered them.

A message goes through its sender's uplink, which all peers of that process share, then through the pipe of its link direction, both in the
order of sending, and is under way for the link's delay; then it goes through its receiver's downlink, which all connections of that process
share. The sender works out when the last byte would leave the pipe and arrive; the message carries that time. The receiver finds from it when
its own downlink has let the message through, and waits until then. A stretch begins with a message's first byte: a message that passes
three pipes of one rate takes the time of one.

Uplinks and pipes serve one message after the other, but what somebody waits for does not wait for all the bulk that was sent before: online and
control messages have half of the rate until they are through, as a connection of their own has beside a busy one. A downlink is divided equally
between the connections on which something arrives, as TCP does on the average, so that a small message does not wait behind all that somebody
else has sent. All read the machine's one CLOCK_MONOTONIC, so this is for parties on one machine. Other traffic, congestion control and losses
are not simulated.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from threepc.transport.connection import Connection
from threepc.transport.framing import NO_ARRIVAL, Header, MalformedError

Clock = Callable[[], int]
Sleep = Callable[[float], None]

_ALL = 0.5
"""Of a message so many bytes, or fewer, that are still to come are none: times are rounded to nanoseconds."""


class Pipe:
    """A stretch of a message's way that lets one byte after the other through; threads may share it."""

    def __init__(self, rate_bits_per_s: float) -> None:
        """Infinite rates are allowed. Raises ValueError for a rate that is not positive."""
        if not rate_bits_per_s > 0:
            raise ValueError("a link needs a positive rate and a delay that is not negative")
        self.ns_per_byte = 8e9 / rate_bits_per_s
        self._free_at = self._waited_at = 0  # when all that has entered is through, and all of it that somebody waits for
        self._lock = threading.Lock()

    def through(self, first: int, last: int, size: int, waited_for: bool = False) -> tuple[int, int]:
        """When the first and the last of `size` bytes leave it, which enter it at the times `first` and `last`, after all that entered before.

        waited_for: beside the bulk that entered before, at half of the rate; that keeps the time it was given, and what enters next comes later.
        """
        took = round(size * self.ns_per_byte)
        with self._lock:
            if not waited_for:
                begun = max(first, self._free_at)
                self._free_at = max(last, begun + took)
                return begun, self._free_at
            begun = max(first, self._waited_at)
            self._waited_at = max(last, begun + took + min(took, max(0, self._free_at - begun)))
            self._free_at = max(self._free_at + took, self._waited_at)
            return begun, self._waited_at


class _Message:
    """A message on its way through a downlink. first, last: when these bytes come to it; left: bytes; finished: when it is through, once known."""

    __slots__ = ("finished", "first", "last", "left")

    def __init__(self, first: float, last: int, size: int) -> None:
        self.first, self.last, self.left = first, last, float(size)
        self.finished: int | None = None


class Flow:
    """What arrives on one connection of a downlink. ns_per_byte: of what comes before the downlink, which may change."""

    def __init__(self, downlink: Downlink, connection: Connection, ns_per_byte: float) -> None:
        self.ns_per_byte, self.connection = ns_per_byte, connection
        self.coming: deque[_Message] = deque()
        """What the downlink has not yet let through."""
        self._downlink = downlink
        self._unread: deque[tuple[list[memoryview], _Message]] = deque()
        connection.note = self._note

    def _note(self, frames: list[memoryview]) -> None:
        """A message has come to this process; it has not yet come through the downlink."""
        with contextlib.suppress(MalformedError):  # whoever reads it will say so
            header = Header.unpack(frames[0])
            if header.arrival != NO_ARRIVAL:
                self._unread.append((frames, self._enter(frames, header.arrival)))

    def _enter(self, frames: list[memoryview], arrival: int) -> _Message:
        size = self.connection.wire_bytes([frame.nbytes for frame in frames])
        message = _Message(arrival - size * self.ns_per_byte, arrival, size)
        self._downlink.enter(self, message)
        return message

    def wait(self, frames: list[memoryview], arrival: int, timeout: float | None) -> bool:
        """Wait until a received message is through; False, after `timeout` seconds, when it is not, and then it may be waited for again."""
        if not self._unread or self._unread[0][0] is not frames:  # it was there before the flow was
            self._unread.appendleft((frames, self._enter(frames, arrival)))
        if not self._downlink.wait(self._unread[0][1], timeout):
            return False
        self._unread.popleft()
        return True

    def wait_for_all(self, timeout: float | None) -> bool:
        """As `wait`, for the last message that has arrived, which is not received by that."""
        self.connection.collect()
        return not self._unread or self._downlink.wait(self._unread[-1][1], timeout)


class Downlink:
    """What a process can receive, over all its connections; threads may share it.

    What has arrived is asked for only when somebody waits, and then from all connections, so the rate is divided as it would have been.
    """

    def __init__(self, rate_bits_per_s: float, clock: Clock = time.monotonic_ns, sleep: Sleep = time.sleep) -> None:
        """clock, sleep: as of `Shaper`. Raises ValueError for a rate that is not positive."""
        self._bytes_per_ns = 1 / Pipe(rate_bits_per_s).ns_per_byte
        self._clock, self._sleep = clock, sleep
        self._flows: list[Flow] = []
        self._now: float = clock()
        self._lock = threading.Lock()

    def join(self, connection: Connection, ns_per_byte: float) -> Flow:
        """Let a connection's messages come through here."""
        flow = Flow(self, connection, ns_per_byte)
        with self._lock:
            self._flows = [other for other in self._flows if other.coming or not other.connection.has_ended]
            self._flows.append(flow)
        return flow

    def enter(self, flow: Flow, message: _Message) -> None:
        """For `Flow`: something has arrived."""
        with self._lock:
            if flow not in self._flows:
                self._flows.append(flow)
            flow.coming.append(message)

    def wait(self, message: _Message, timeout: float | None) -> bool:
        """For `Flow`: wait until a message is through; False, after `timeout` seconds, when it is not."""
        end = None if timeout is None else self._clock() + round(max(timeout, 0) * 1e9)
        while True:
            for flow in list(self._flows):
                flow.connection.collect()
            now = self._clock()
            with self._lock:
                self._advance(now)
                due = self._due(message) if message.finished is None else message.finished
            if message.finished is not None and due <= now:
                return True
            if end is not None and due > end:
                self._sleep(max(end - now, 0) / 1e9)
                return False
            self._sleep(max(due - now, 0) / 1e9)

    def _advance(self, until: float) -> None:
        """Let through what comes through until that time: at any moment the rate is divided equally between flows on which something is there."""
        while self._now < until:
            heads = [flow.coming[0] for flow in self._flows if flow.coming]
            there = [message for message in heads if message.first <= self._now]
            change = min([until, *(message.first for message in heads if message.first > self._now)])
            if not there:
                self._now = change
                continue
            share = self._bytes_per_ns / len(there)
            step = min(change - self._now, min(message.left for message in there) / share)
            self._now += step
            for message in there:
                message.left -= step * share
                if message.left <= _ALL:
                    message.finished = max(math.ceil(self._now), message.last)
            for flow in self._flows:
                if flow.coming and flow.coming[0].finished is not None:
                    flow.coming.popleft()

    def _due(self, message: _Message) -> int:
        """When a message will be through if nothing else arrives: until then every flow gets as much as this one, or all that it has there."""
        mine = next(flow for flow in self._flows if message in flow.coming)
        before = sum(other.left for other in list(mine.coming)[: mine.coming.index(message) + 1])
        there = [sum(other.left for other in flow.coming if other.first <= self._now) for flow in self._flows if flow is not mine]
        all_of_them = before + sum(min(left, before) for left in there)
        return max(
            message.last, math.ceil(max(self._now + all_of_them / self._bytes_per_ns, message.first + message.left / self._bytes_per_ns))
        )


class Shaper:
    """One link direction as its sender has it, and the other one's messages as they come through this process's downlink; threads may share it."""

    def __init__(
        self,
        rate_bits_per_s: float,
        one_way_delay_s: float,
        clock: Clock = time.monotonic_ns,
        sleep: Sleep = time.sleep,
        *,
        uplink: Pipe | None = None,
        downlink: Downlink | None = None,
        peer_uplink: float = math.inf,
    ) -> None:
        """`clock` gives nanoseconds and `sleep` takes seconds; tests replace both. uplink, downlink: of this process; peer_uplink: bits/s.

        Raises ValueError for a rate that is not positive and for a negative delay.
        """
        if not one_way_delay_s >= 0:
            raise ValueError("a link needs a positive rate and a delay that is not negative")
        self._pipes = [pipe for pipe in (uplink, Pipe(rate_bits_per_s)) if pipe is not None]
        self._delay_ns = round(one_way_delay_s * 1e9)
        self._clock = clock
        self._sleep = sleep
        self._downlink = downlink
        self._ns_per_byte_of_peer = Pipe(min(rate_bits_per_s, peer_uplink)).ns_per_byte

    def arrival(self, size: int, waited_for: bool = False) -> int:
        """Send `size` bytes now; the clock's reading, in nanoseconds, when the last of them arrives at the receiver's downlink.

        waited_for: as of `Pipe.through`.
        """
        first = last = self._clock()
        for pipe in self._pipes:
            first, last = pipe.through(first, last, size, waited_for)
        return last + self._delay_ns

    def flow(self, connection: Connection, before: Flow | None = None) -> Flow | None:
        """What comes in on a connection, through this process's downlink if there is one. before: as it was with another shaper."""
        if self._downlink is None:
            return None
        if before is not None:
            before.ns_per_byte = self._ns_per_byte_of_peer
        return before or self._downlink.join(connection, self._ns_per_byte_of_peer)

    def wait(self, arrival: int, timeout: float | None = None) -> bool:
        """Wait until `arrival`; False, after `timeout` seconds, when it lies further ahead than that. Where there is no downlink."""
        remaining = (arrival - self._clock()) / 1e9
        if timeout is not None and remaining > timeout:
            self._sleep(max(timeout, 0))
            return False
        if remaining > 0:
            self._sleep(remaining)
        return True
