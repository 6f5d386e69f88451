"""Typed messages between two parties, and the check that both mean the same message.

A message is a header frame and one frame for each array, sent from where it lies. The header names everything that the
two ends must agree on: version, session, attempt, op, sequence number, dtype and shape of each array. The receiver
says what it expects and compares; nothing in a received header decides how much is allocated or what is run. The first
difference is a RunError that names it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from threepc.errors import KINDS, RunError
from threepc.transport.connection import Buffer, Connection, NoAnswerError, byte_view
from threepc.transport.framing import (
    ABORT,
    CONTROL,
    DATA,
    HEADER_BYTES,
    NO_ARRIVAL,
    PROTOCOL_VERSION,
    SESSION_BYTES,
    Control,
    Header,
    Layout,
    MalformedError,
    describe,
    describe_text,
    pack_control,
    printable,
    unpack_control,
)
from threepc.transport.meter import PHASES, Meter
from threepc.transport.shaping import Shaper

TIMEOUT_S = 60.0
CONTROL_LIMIT = 16 << 20
ATTACHMENT_LIMIT = 1 << 20
REASON_LIMIT = 400

_COMPARED = ("session", "kind of message", "attempt", "op", "sequence number", "number of frames", "network simulation")

Timeout = float | None | EllipsisType
"""Seconds, None for ever, or ... for the channel's own timeout."""


class Channel:
    """One connection as one party sees it.

    `session` (8 bytes), `attempt`, `meter` and `timeout` may be set at any time: session and attempt go into every message and
    must be the same at both ends (control messages of any attempt are read); `timeout` (seconds, None for ever) is the
    default of the receiving methods. Who lets more than 64 MiB wait unread over TCP says so before, by `connection.allow`, or the
    connection ends in a line that says it. Any thread may send, `abort` and `close`; one at a time receives.
    """

    def __init__(
        self,
        connection: Connection,
        link: tuple[str, str],
        session: bytes = bytes(SESSION_BYTES),
        meter: Meter | None = None,
        shaper: Shaper | None = None,
        timeout: float | None = TIMEOUT_S,
    ) -> None:
        """`link`: own role and peer's role, such as ("client", "server").

        `shaper`: the simulated pipe towards the peer; either both ends simulate a network or neither does.
        """
        self.connection = connection
        self.link = link
        self.session = session
        self.attempt = 0
        self.meter = meter if meter is not None else Meter()
        self.timeout = timeout
        self._shaper = shaper
        self._flow = shaper.flow(connection) if shaper else None
        self.arrives = 0
        """Where a network is simulated: when all that was sent reaches the peer's downlink, in nanoseconds of time.monotonic_ns."""
        self._sent = 0
        self._sending = threading.Lock()
        self._received = 0
        self._held: list[memoryview] | None = None
        connection.name = f"the {link[1]} at {connection.where}"

    def identify(self, peer: str, shaper: Shaper | None) -> None:
        """The peer has said its role; shaper: the simulated pipe towards it."""
        self.link, self._shaper = (self.link[0], peer), shaper
        self._flow = shaper.flow(self.connection, self._flow) if shaper else None

    def send(self, op: int, parts: Sequence[NDArray[Any]], phase: str) -> None:
        """Send arrays as one message of `op` and count it under `phase` ("setup", "offline" or "online").

        `parts`: C-contiguous arrays of uint8, uint16, uint32 or uint64, sent without copying: they must not be written to
        afterwards. Raises ValueError for another dtype, layout or phase; RunError when the connection has ended.
        """
        described = describe([(part.dtype, part.shape) for part in parts])
        payload = sum(part.nbytes for part in parts)
        self._transmit(DATA, phase, op, described, parts)
        self.meter.add(self.link, phase, op, payload)

    def receive(self, op: int, layout: Layout, timeout: Timeout = ...) -> list[NDArray[Any]]:
        """The arrays of the next message, which must be one of `op` with exactly this layout: read-only views of what arrived.

        Raises NoAnswerError after `timeout` seconds (the message may still be received later); RunError, naming the difference, for any
        other message, for the peer's abort and for the end of the connection.
        """
        header, frames = self._next(DATA, op, timeout)
        described, expected = bytes(frames[0][HEADER_BYTES:]), describe(layout)
        if header.parts != len(layout) or described != expected:
            difference = f"{describe_text(expected)}, but {self.connection.name} sent {describe_text(described)}"
            raise RunError(f"{self._expected(DATA, op)} of {difference}")
        arrays = []
        for frame, (dtype, shape) in zip(frames[1:], layout, strict=True):
            if frame.nbytes != math.prod(shape) * np.dtype(dtype).itemsize:
                received = f"an array of {list(shape)} came from {self.connection.name} in {frame.nbytes} bytes"
                raise RunError(f"{self._expected(DATA, op)}, but {received}")
            arrays.append(_read_only_array(frame, np.dtype(dtype), shape))
        payload = sum(array.nbytes for array in arrays)
        self.meter.add(self.link[::-1], PHASES[header.phase], op, payload)
        return arrays

    def send_control(self, kind: str, fields: Mapping[str, Any], attachments: Sequence[bytes] = ()) -> None:
        """Send a control message: `fields` as JSON (16 MiB at most) and `attachments` as they are (1 MiB in all at most).

        Raises ValueError or TypeError for what JSON cannot hold or what is too large; RunError when the connection has ended.
        """
        text = pack_control(kind, dict(fields))
        if len(text) > CONTROL_LIMIT or sum(map(len, attachments)) > ATTACHMENT_LIMIT:
            raise ValueError(f"the control message {kind!r} is too large")
        self._transmit(CONTROL, "setup", 0, b"", [text, *attachments])

    def receive_control(self, *kinds: str, timeout: Timeout = ...) -> Control:
        """The next message, which must be a control message of one of `kinds`. Raises as `receive` does."""
        _, frames = self._next(CONTROL, 0, timeout)
        described, text, attachments = frames[0][HEADER_BYTES:], frames[1:2], frames[2:]
        if described or not text or text[0].nbytes > CONTROL_LIMIT or sum(part.nbytes for part in attachments) > ATTACHMENT_LIMIT:
            raise RunError(f"{self.connection.name} sent a malformed control message")
        try:
            kind, fields = unpack_control(bytes(text[0]))
        except MalformedError as error:
            raise RunError(f"{self.connection.name} {error}") from None
        if kind not in kinds:
            raise RunError(f"{self.connection.name} sent {printable(kind)!r} where {' or '.join(map(repr, kinds))} was expected")
        return Control(kind, fields, [bytes(part) for part in attachments])

    @property
    def is_simulated(self) -> bool:
        """Whether messages arrive as late as over another network."""
        return self._shaper is not None

    def wait_for_all(self, timeout: float | None) -> None:
        """Where a network is simulated: wait until all that has reached this process's downlink is through, without receiving it, or `timeout` seconds."""
        if self._flow is not None:
            self._flow.wait_for_all(timeout)

    def abort(self, reason: str, kind: str = "refused") -> None:
        """Tell the peer that the session is over: its pending or next receive raises RunError with this reason, and `kind` as its cause.

        `reason` must not depend on any secret value. No effect when the connection has ended already.
        """
        try:
            self._transmit(ABORT, "setup", 0, b"", [reason[:REASON_LIMIT].encode(), kind.encode()])
        except RunError:
            return  # whoever is gone needs no telling

    def close(self) -> None:
        """Close the connection; a receive that waits on this channel raises RunError."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _transmit(self, kind: int, phase: str, op: int, described: bytes, parts: Sequence[Buffer]) -> None:
        if phase not in PHASES:
            raise ValueError(f"a phase is one of {', '.join(PHASES)}, not {phase!r}")
        try:
            with self._sending:  # numbers go up in the order in which messages leave
                sequence, arrival = 0 if kind == ABORT else self._sent, NO_ARRIVAL
                if self._shaper:
                    sizes = [HEADER_BYTES + len(described), *(byte_view(part).nbytes for part in parts)]
                    arrival = self._shaper.arrival(self.connection.wire_bytes(sizes), kind != DATA or phase == "online")
                    self.arrives = max(self.arrives, arrival)
                header = Header(PROTOCOL_VERSION, kind, PHASES.index(phase), self.session, self.attempt, op, sequence, arrival, len(parts))
                self.connection.send([header.pack() + described, *parts])
                if kind != ABORT:
                    self._sent += 1
        except RunError:
            self._raise_abort()
            raise

    def _next(self, kind: int, op: int, timeout: Timeout) -> tuple[Header, list[memoryview]]:
        """The next message once its header has passed every check; what lies behind the header is still unchecked."""
        timeout = self.timeout if timeout is ... else timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            frames = self._held or self.connection.receive(timeout)
        except NoAnswerError as error:
            raise NoAnswerError(f"{error}: {self._expected(kind, op)}") from None
        try:
            header = Header.unpack(frames[0])
        except MalformedError as error:
            raise RunError(f"{self.connection.name} {error}") from None
        if header.arrival != NO_ARRIVAL and self._shaper:
            self._held = frames
            remaining = None if deadline is None else deadline - time.monotonic()
            there = (
                self._shaper.wait(header.arrival, remaining) if self._flow is None else self._flow.wait(frames, header.arrival, remaining)
            )
            if not there:
                raise NoAnswerError(f"{self.connection.name} has not answered for {timeout:g} s: {self._expected(kind, op)}")
        self._held = None
        if header.kind == ABORT:
            raise self._aborted(frames)
        self._compare(header, kind, op, len(frames) - 1)
        self._received += 1
        return header, frames

    def _raise_abort(self) -> None:
        """Raise the peer's abort if that is why the connection has ended: it says more than that a send failed."""
        while True:
            try:
                frames = self.connection.receive(0)
                is_abort = Header.unpack(frames[0]).kind == ABORT
            except (RunError, MalformedError):
                return  # nothing more arrived, or no message: the failed send remains the news
            if is_abort:
                raise self._aborted(frames)

    def _aborted(self, frames: list[memoryview]) -> RunError:
        reason = bytes(frames[1][:REASON_LIMIT]).decode(errors="replace") if len(frames) > 1 else "no reason given"
        kind = bytes(frames[2][:REASON_LIMIT]).decode(errors="replace") if len(frames) > 2 else ""
        return RunError(f"the {self.link[1]} ended the session: {printable(reason)}", "ended by peer", kind if kind in KINDS else "refused")

    def _compare(self, header: Header, kind: int, op: int, parts: int) -> None:
        shaped = self._shaper is not None
        got = header.session, header.kind, header.attempt, header.op, header.sequence, header.parts, header.arrival != NO_ARRIVAL
        # what is not data may belong to an attempt that just ended: credit for its last bytes, say
        attempt = self.attempt if kind == DATA else header.attempt
        expected = self.session, kind, attempt, op, self._received, parts, shaped
        if header.phase >= len(PHASES):
            raise RunError(f"{self._expected(kind, op)}, but {self.connection.name} sent the unknown phase {header.phase}")
        if got != expected:
            what, one, other = next(
                difference for difference in zip(_COMPARED, got, expected, strict=True) if difference[1] != difference[2]
            )
            difference = f"{self.connection.name} sent {what} {_shown(one)} where it should be {_shown(other)}"
            raise RunError(f"{self._expected(kind, op)}, but {difference}")

    def _expected(self, kind: int, op: int) -> str:
        message = f"op {op} of attempt {self.attempt}" if kind == DATA else "a control message"
        return f"expected {message}"


def _shown(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _read_only_array(frame: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A view of a frame of the right size. Small frames may lie unaligned in libzmq's receive buffer: those are copied."""
    array = np.frombuffer(frame, dtype).reshape(shape) if frame.nbytes else np.empty(shape, dtype)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array
