"""What ZeroMQ's two ends have in common: socket options, CURVE, events of the wire, and frames in and out.

Sockets are shared between threads under a lock (libzmq asks for a memory barrier between threads, which a lock is).
Waiting happens outside the lock on the sockets' file descriptors. These are edge-triggered: any operation may swallow the
signal of a message that came meanwhile, so whoever operates a socket looks afterwards whether it has become readable.
"""

from __future__ import annotations

import contextlib
import os
import socket as socket_module
import struct
from collections.abc import Iterator, Sequence

import numpy as np
import zmq

from threepc.errors import InputError
from threepc.transport import lending
from threepc.transport.addresses import is_tcp
from threepc.transport.connection import Buffer, byte_view
from threepc.transport.descriptors import check_spare
from threepc.transport.framing import printable
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.wires import CURVE_BYTES, PIECE_BYTES

# A first frame that is empty marks ZeroMQ-level messages: alone it says hello, followed by a text it says goodbye.
HELLO = [b""]
CLOSED = "closed the connection"
LOST = "closed the connection unexpectedly: has it ended?"
REVOKED = "accepts this party's public key no longer"
REASON_LIMIT = 200
FRAMES_LIMIT = 1 << 14
SEND_BUFFER = 1 << 20
AT_ONCE = 64  # messages are taken from a socket before others have their turn
LINGER_MS = 5000
HANDSHAKE_MS = 10_000
# A dead process is noticed at once. Heartbeats are for hosts and cables: the answer to one waits behind the frame that is on its way,
# so the limit must let tens of megabytes through a slow line.
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 5000, 30_000
# A connection that broke stays broken. libzmq would connect again by itself, as a stranger in the middle of a session; to turn that off
# altogether would drop what has arrived and is not yet read, so the next try is put off for a week.
RECONNECT_MS = 7 * 24 * 3600 * 1000

# zmq.h's ZMQ_ZERO_COPY_RECV, which pyzmq has no name for. libzmq reads 8 KiB at once, and would keep the 18 KiB that it reads into as long as
# any message of them waits: a byte that comes alone would take as much. What is larger than that is read into its own place either way.
_ZERO_COPY_RECV = 10

_TCP: dict[int, int] = {
    zmq.MAXMSGSIZE: PIECE_BYTES + CURVE_BYTES,  # also of what comes before the handshake; whoever sends a larger part is disconnected
    zmq.BACKLOG: 1024,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 30,
    zmq.TCP_KEEPALIVE_INTVL: 10,
    zmq.TCP_KEEPALIVE_CNT: 3,
}
# plain integers: enumerations' operators cost more than the call
_POLLIN, _NOBLOCK, _MORE = int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]
_EVENT = struct.Struct("=HI")
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: process, user, group
WATCHED = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


def new_context(io_threads: int = 1) -> Context:
    """A context of its own. Raises RunError when this process may not open enough files: libzmq would end it."""
    check_spare()
    context: Context = zmq.Context(io_threads)
    context.set(_ZERO_COPY_RECV, 0)
    return context


def new_socket(context: Context, kind: int, address: str, keys: KeyPair | None) -> Socket:
    """A socket with the options of every connection. Raises InputError for a TCP address without keys."""
    options: dict[int, int | bytes] = {
        zmq.SNDHWM: 0,
        zmq.RCVHWM: 0,  # would count messages, not their bytes: `wires` does
        zmq.LINGER: 0,  # what a broken wire can no longer deliver; an orderly close sets a longer one
        zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        zmq.RECONNECT_IVL: RECONNECT_MS,
    }
    if is_tcp(address):
        if keys is None or not is_key(keys.public) or not is_key(keys.secret):
            raise InputError(f"{address} needs a key pair, as TCP is always encrypted: 'threepc keygen DIR' makes them")
        options |= {
            **_TCP,
            zmq.TCP_MAXRT: HEARTBEAT_TIMEOUT_MS,
            zmq.IPV6: int("[" in address),
            zmq.CURVE_PUBLICKEY: keys.public,
            zmq.CURVE_SECRETKEY: keys.secret,
        }
    socket: Socket = context.socket(kind)
    for option, value in options.items():
        socket.setsockopt(option, value)
    return socket


def widen(descriptor: int) -> tuple[int, int] | None:
    """Let more of a frame lie in the kernel on its way through a Unix socket, so that the threads at its ends wake each other less often.

    Returns the peer's process, 0 where this one cannot see it, and its user, by what the system says; None where the socket was closed.
    """
    with contextlib.suppress(OSError):  # it was closed
        held = os.dup(descriptor)
        try:
            end = socket_module.socket(fileno=held)
        except OSError:
            os.close(held)
            raise
        with end:
            end.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_SNDBUF, SEND_BUFFER)
            credentials = end.getsockopt(socket_module.SOL_SOCKET, socket_module.SO_PEERCRED, _CREDENTIALS.size)
        process, user, _ = _CREDENTIALS.unpack(credentials)
        return process, user
    return None


def is_readable(socket: Socket) -> bool:
    """Whether a message waits, whatever the file descriptor says."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)


def receive_frames(socket: Socket) -> list[zmq.Frame]:
    """All frames of the message that waits on a readable socket; one of too many is cut short, and so no message of anybody's."""
    lending.collect()
    frames = [socket.recv(_NOBLOCK, copy=False)]
    while frames[-1].more:
        frame = socket.recv(_NOBLOCK, copy=False)
        if len(frames) < FRAMES_LIMIT:
            frames.append(frame)
        else:
            frames[-1] = frame
    return frames


def send_frames(socket: Socket, frames: Sequence[Buffer], encrypted: bool) -> None:
    """Queue a message. Small frames are copied, large ones sent from where they lie."""
    lending.collect()
    views = list(map(byte_view, frames))
    if encrypted:
        views = [piece for view in views for piece in _pieces(view)]
    for left, view in zip(range(len(views) - 1, -1, -1), views, strict=True):
        flags = _MORE if left else _NOBLOCK
        if not lending.send(socket, view, flags):
            socket.send(view, flags, copy=view.nbytes < lending.LEAST)


def read_only(frames: Sequence[zmq.Frame], encrypted: bool) -> list[memoryview]:
    """What `Connection.receive` hands out."""
    if not encrypted or all(len(frame) != PIECE_BYTES for frame in frames):
        return [frame.buffer.toreadonly() for frame in frames]
    views, pieces = [], []
    for frame in frames:
        pieces.append(frame.buffer)
        if len(frame) != PIECE_BYTES:
            views.append(_joined(pieces))
            pieces = []
    # a peer that left the last piece out sent a frame that is too short
    return [*views, _joined(pieces)] if pieces else views


def _pieces(view: memoryview) -> list[memoryview]:
    return [view[begin : begin + PIECE_BYTES] for begin in range(0, view.nbytes + 1, PIECE_BYTES)]


def _joined(pieces: Sequence[memoryview]) -> memoryview:
    if len(pieces) == 1:
        return pieces[0].toreadonly()
    whole, at = np.empty(sum(piece.nbytes for piece in pieces), np.uint8), 0
    for piece in pieces:
        whole[at : at + piece.nbytes] = piece
        at += piece.nbytes
    return whole.data.toreadonly()


def user_id(frame: zmq.Frame) -> bytes:
    """The public key that the sender of a frame has proved in its handshake, as the listener's answer to ZAP named it."""
    return str(frame.get("User-Id")).encode()


def goodbye(reason: str) -> list[bytes]:
    """The message that ends a connection; `reason` completes the sentence "the server ..."."""
    return [b"", reason.encode()[:REASON_LIMIT]]


def farewell(frames: Sequence[zmq.Frame]) -> str:
    """The reason in a peer's goodbye."""
    return printable(frames[1].bytes[:REASON_LIMIT].decode(errors="replace"))


def kind_of_end(reason: str) -> str:
    """`RunError.kind` for a connection that ended for a reason."""
    return "refused" if reason == REVOKED else "lost"


def events(monitor: Socket) -> Iterator[tuple[int, int]]:
    """The waiting events of a monitored socket and their values."""
    while is_readable(monitor):
        yield _EVENT.unpack(monitor.recv_multipart(zmq.NOBLOCK)[0])


def close_monitored(socket: Socket, monitor: Socket, linger_ms: int) -> None:
    """Close a socket and its monitor; messages still to be sent have `linger_ms` to leave."""
    socket.disable_monitor()
    monitor.close(0)
    socket.close(linger_ms)
