"""TCP connections that libzmq has made, seen from outside: how much each has received, and which must go.

libzmq takes in whatever a peer sends, message after message and part after part, before and after its handshake, and accepts whoever connects.
Of its connections it tells descriptors only. By these the kernel says how many bytes each has received, and by these it is cut.
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeVar

# libzmq encrypts a frame before the first byte of it leaves, and decrypts it after the last byte has come. In pieces that fit a cache both go on
# at once, and cost less: 1.25 ns a byte at both ends together instead of 1.46. A frame of exactly this size is continued by the next.
PIECE_BYTES = 1 << 20
CURVE_BYTES = 8 + 8 + 16 + 1  # command name, nonce, authenticator and inner flags around each piece

SLACK_BYTES = 64 << 20
"""May wait unread on a connection in a session, beyond what that allows: control messages, and what lies in the kernel's buffers."""
CONTROL_BYTES = 8 << 20
"""May wait unread on a connection that is in no session, or whose peer says nothing but control messages."""
FRAME_BYTES = 1 << 10
"""What a frame takes beyond its content while it waits."""
WATCH_MS = 25
GREETING_S, FAREWELL_S = 12.0, 60.0
"""How long a peer may take until it has proved its key and said hello, and to hang up once it was told goodbye."""

_TCP_INFO = struct.Struct("=128xQ")  # tcpi_bytes_received
_FILLER = "/dev/null"

Seen = TypeVar("Seen")


@dataclass
class Wire:
    """A connected descriptor of libzmq's, and what has been read of what it received."""

    descriptor: int
    host: str = ""
    until: float = field(default_factory=lambda: time.monotonic() + GREETING_S)
    """When it will be cut, in seconds of time.monotonic; infinite for a peer that is welcome."""
    allowed: int = CONTROL_BYTES
    """Bytes that may wait unread."""
    read: int = 0
    """Bytes of the messages that somebody has received, as on the wire."""
    delivered: int = 0
    taken: int = 0
    """Frames that were handed out, and how many of them somebody has received. Each counter is for one thread at a time to change."""

    def allow(self, size: int) -> None:
        """From now on up to `size` bytes, and some slack, may wait to be read."""
        self.allowed = SLACK_BYTES + size

    def take(self, frames: Sequence[memoryview]) -> None:
        """Note that somebody receives this message, which came encrypted."""
        self.read += wire_bytes([frame.nbytes for frame in frames], encrypted=True)
        self.taken += len(frames)

    def holds(self, received: int) -> int:
        """The memory that is taken by what waits to be read, once the kernel has received so many bytes in all."""
        return received - self.read + (self.delivered - self.taken) * FRAME_BYTES

    def overfull(self) -> str:
        """What its peer did; completes the sentence "the client ..."."""
        return f"sent more than the {self.allowed >> 20} MiB that may wait to be read here"


class Probe:
    """Looks at descriptors that another thread may close at any time. Not for two threads at once.

    A descriptor is first duplicated over one that is kept for that: no new one is needed, and the connection stays what it is while one looks.
    """

    def __init__(self) -> None:
        self._filler = os.open(_FILLER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._held = socket.socket()
        except OSError:
            os.close(self._filler)
            raise

    def received(self, descriptor: int) -> int:
        """The bytes that a connection has received so far, 0 for what is none."""
        return self._look(descriptor, _bytes_received, 0)

    def host(self, descriptor: int) -> str:
        """The address of the host at the other end, without its port; empty for what is no connection."""
        return self._look(descriptor, lambda held: str(held.getpeername()[0]), "")

    def cut(self, descriptor: int, is_current: Callable[[], bool]) -> bool:
        """End a connection at once, so that libzmq finds it ended, unless `is_current` says that the descriptor is another's by now."""

        def shut(held: socket.socket) -> bool:
            is_meant = is_current()
            if is_meant:
                held.shutdown(socket.SHUT_RDWR)
            return is_meant

        return self._look(descriptor, shut, False)

    def close(self) -> None:
        """Give the two descriptors back."""
        self._held.close()
        os.close(self._filler)

    def _look(self, descriptor: int, look: Callable[[socket.socket], Seen], otherwise: Seen) -> Seen:
        try:
            os.dup2(descriptor, self._held.fileno(), inheritable=False)
            return look(self._held)
        except OSError:  # it was closed, or is no connection any more
            return otherwise
        finally:
            os.dup2(self._filler, self._held.fileno(), inheritable=False)


class Wires:
    """A listener's wires by descriptor.

    Of those whose peers have not said hello yet, or were told goodbye, a limited number may be there, with a limited number of bytes.
    """

    def __init__(self, places: int) -> None:
        """`places`: for peers that are not, or no longer, welcome."""
        self._places, self._wires = places, dict[int, Wire]()
        self._probe, self._watched = Probe(), time.monotonic()
        self.close = self._probe.close

    def accept(self, descriptor: int) -> None:
        """A peer has connected."""
        self._wires[descriptor] = Wire(descriptor, self._probe.host(descriptor))

    def lose(self, descriptor: int) -> None:
        """A wire has ended."""
        self._wires.pop(descriptor, None)

    def greet(self, descriptor: int) -> Wire:
        """The wire of a descriptor whose peer has said hello; one that is not watched where it has ended already."""
        wire = self._wires.get(descriptor) or Wire(descriptor)
        wire.until = math.inf
        return wire

    def part(self, wire: Wire) -> None:
        """Its peer was told goodbye, and should hang up. What has come until now is nobody's any more."""
        wire.until = time.monotonic() + FAREWELL_S
        wire.read, wire.delivered, wire.taken = self._probe.received(wire.descriptor), 0, 0
        wire.allowed = CONTROL_BYTES

    def cut(self, wire: Wire, note_events: Callable[[], None]) -> None:
        """End a wire, unless `note_events` tells that it has ended."""
        self._probe.cut(wire.descriptor, lambda: self._are_current([wire], note_events) == [wire])

    def unwelcome(self) -> list[Wire]:
        """Wires that must go now: too many are not welcome, or for too long, or they hold too much."""
        waiting = [wire for wire in self._wires.values() if wire.until < math.inf]
        going = [wire for wire in waiting if wire.until < time.monotonic()]
        if len(waiting) > self._places:
            going += self._crowd(waiting, self._places // 4)
        return going

    def _crowd(self, waiting: list[Wire], count: int) -> list[Wire]:
        """`count` of these wires, each from the host that has most; first those that have said nothing yet, and of these the oldest."""
        by_host = defaultdict(list)
        for wire in waiting:
            by_host[wire.host].append(wire)
        for wires in by_host.values():
            wires.sort(key=lambda wire: (self._probe.received(wire.descriptor) > 0, wire.until), reverse=True)
        return [max(by_host.values(), key=len).pop() for _ in range(count)]

    def overfull(self, note_events: Callable[[], None]) -> list[Wire]:
        """Wires that have received more than may wait unread; looks once in WATCH_MS."""
        if time.monotonic() - self._watched < WATCH_MS / 1000:
            return []
        self._watched = time.monotonic()
        held = [(wire.holds(self._probe.received(wire.descriptor)), wire) for wire in self._wires.values()]
        full = [wire for size, wire in held if size > wire.allowed]
        strangers = sorted(((size, wire) for size, wire in held if wire.until < math.inf), key=itemgetter(0))
        total = sum(size for size, _ in strangers)
        while total > SLACK_BYTES:
            size, wire = strangers.pop()
            total -= size
            full.append(wire)
        return self._are_current(full, note_events) if full else []

    def _are_current(self, wires: list[Wire], note_events: Callable[[], None]) -> list[Wire]:
        """Those that have not ended. A descriptor is given away only after libzmq has told of its end, so what was seen before is of the same wire."""
        note_events()
        return [wire for wire in wires if self._wires.get(wire.descriptor) is wire]

    def __len__(self) -> int:
        return len(self._wires)


def _bytes_received(connection: socket.socket) -> int:
    (received,) = _TCP_INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    return int(received)


def wire_bytes(sizes: Sequence[int], encrypted: bool) -> int:
    """The bytes of a message with frames of these sizes on the wire.

    ZMTP adds flags and length to a frame; under CURVE, to each piece, also a command name, nonce, authenticator and inner flags.
    """
    if not encrypted:
        return sum(size + (2 if size < 256 else 9) for size in sizes)
    total = 0
    for size in sizes:
        whole, rest = divmod(size, PIECE_BYTES)
        total += size + whole * (CURVE_BYTES + 9) + CURVE_BYTES + (2 if rest + CURVE_BYTES < 256 else 9)
    return total
