"""The listening end of ZeroMQ connections: one ROUTER socket on a party's one port, and the threads that use them take turns at it.

A thread of the listener itself answers which keys may enter, notices broken wires, and cuts those that take more than their share.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Self

import zmq
from zmq.utils import z85

from threepc.errors import InputError, RunError
from threepc.transport import zmq_sockets
from threepc.transport.addresses import check_ipc_directory, check_ipc_free, ipc_path, is_tcp
from threepc.transport.connection import Buffer, Connection, QueuedConnection
from threepc.transport.descriptors import raise_limit
from threepc.transport.framing import printable
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.turns import Turns
from threepc.transport.waker import Waker, poll
from threepc.transport.wires import WATCH_MS, Wires, wire_bytes

_IO_THREADS = 2
_SUSPICION_MS = 200
_STRANGERS = 1024  # wires whose peers have not yet said hello, or were told goodbye
_ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # where RFC 27 has libzmq ask whether a key may enter


class AcceptedConnection(QueuedConnection):
    """One peer's connection to a `Listener`."""

    def __init__(self, listener: Listener, identity: bytes, where: str, peer: bytes | None) -> None:
        super().__init__(where, peer)
        self.identity = identity
        self._listener = listener

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send through the listener's socket."""
        self._check_sending()
        self._listener.send_to(self, frames)

    def close(self) -> None:
        """Say goodbye to the peer."""
        if not self._closed:
            self._closed = True
            self.end("was closed")
            self._listener.dismiss(self, zmq_sockets.CLOSED)

    def collect(self) -> None:
        """Read the listener's socket, for all its connections."""
        self._listener.collect()

    def wire_bytes(self, sizes: Sequence[int]) -> int:
        """Bytes on the wire, with what ZMTP and CURVE add."""
        return wire_bytes(sizes, self.peer is not None)

    def deliver(self, frames: list[memoryview]) -> None:
        """Hand a message to the receiver, unless the connection has ended before it."""
        if self._end is None:
            if self.wire is not None:
                self.wire.delivered += len(frames)
            super().deliver(frames)

    def _take(self, timeout: float | None) -> list[memoryview] | None:
        frames = self._listener.turns.get(self._incoming, timeout)
        if frames is not None and (wire := self.wire) is not None:
            wire.take(frames)
        return frames


class Listener:
    """Accepts connections at one address.

    Over tcp:// only peers whose public key is in `authorised` get past the CURVE handshake, and each message is attributed to the
    key that the handshake proved. ipc:// needs a directory that no other user may enter.
    """

    def __init__(
        self,
        address: str,
        *,
        keys: KeyPair | None = None,
        authorised: Iterable[bytes] = (),
        max_connections: int = 256,
        max_pending: int = 64,
        max_of_a_key: int = 16,
        unlimited: Collection[bytes] = (),
    ) -> None:
        """`address`: tcp://HOST:PORT (port 0: any free one) or ipc:///PATH. `keys`: own pair, `authorised`: z85 public keys (tcp:// only).

        `max_connections` may be open at once, but no more than a quarter of the files that this process may open; `max_pending` of them not
        yet accepted; `max_of_a_key` of one key that is not among the `unlimited` ones. More are turned away. Raises InputError for a bad
        address, one that is in use, missing keys, or an ipc directory that others may enter.
        """
        self._encrypted = is_tcp(address)
        if not self._encrypted:
            check_ipc_free(check_ipc_directory(address))
        self._authorised = _keys(authorised, address)
        descriptors = raise_limit() if self._encrypted else max_connections * 4
        self._max_connections, self._max_pending = min(max_connections, descriptors // 4), max_pending
        self._max_of_a_key, self._unlimited = max_of_a_key, unlimited
        self._lock = threading.RLock()  # guards the router and all that follows
        self._connections: dict[bytes, AcceptedConnection] = {}
        self._dismissed: set[bytes] = set()
        self._identities: dict[int, bytes] = {}  # by file descriptor, which is what events of the wire name
        self._dead_descriptors: set[int] = set()
        self._suspects: dict[bytes, int] = {}  # peers whose wires may have broken before they were known, and their descriptors
        self._broken: list[bytes] = []  # peers to forget once all that they sent has been handed out
        self._pending: queue.SimpleQueue[AcceptedConnection | None] = queue.SimpleQueue()
        self._accepting = threading.Lock()
        self._closing = False
        self.on_refusal: Callable[[str], None] = lambda _: None  # hears of peers that do not get past the handshake
        with contextlib.ExitStack() as stack:
            self._wires = Wires(min(_STRANGERS, descriptors // 4))
            stack.callback(self._wires.close)
            self._waker = Waker()
            stack.callback(self._waker.close)
            self._context = zmq_sockets.new_context(_IO_THREADS)
            stack.callback(self._context.destroy, 0)
            self._zap = self._context.socket(zmq.REP)
            self._zap.bind(_ZAP_ENDPOINT)
            self._router = zmq_sockets.new_socket(self._context, zmq.ROUTER, address, keys)
            self._router.router_mandatory = True
            if self._encrypted:
                self._router.curve_server = True
            self._monitor = self._router.get_monitor_socket(zmq_sockets.WATCHED)
            stack.callback(self._router.disable_monitor)
            self._bind(address)
            self.address = self._router.get_string(zmq.LAST_ENDPOINT)
            self.turns = Turns(self._drain, [self._router.fileno()])
            self._thread = threading.Thread(target=self._run, name=f"listener {self.address}", daemon=True)
            self._thread.start()
            stack.pop_all()

    def _bind(self, address: str) -> None:
        try:
            self._router.bind(address)
        except zmq.ZMQError as error:
            hint = "end the other process or choose another port" if error.errno == zmq.EADDRINUSE else "is it an address of this host?"
            raise InputError(f"cannot listen at {address}: {error.strerror}: {hint}") from None

    def accept(self, timeout: float | None = None) -> Connection | None:
        """The next new connection, or None after `timeout` seconds without one. Raises RunError when the listener is closed."""
        with self._accepting:
            try:
                connection = self.turns.get(self._pending, None if timeout is None else max(timeout, 0), patient=True)
            except queue.Empty:
                return None
            if connection is None:
                self._pending.put(None)
                raise RunError(f"{self.address} no longer listens")
            return connection

    def set_authorised(self, keys: Iterable[bytes]) -> None:
        """Let these z85 public keys in from now on, and no others; connections of any other key end at once.

        Raises InputError for a malformed key, and then changes nothing.
        """
        authorised = _keys(keys, self.address)
        with self._lock:
            self._authorised = authorised
            for connection in list(self._connections.values()):
                if connection.peer is not None and connection.peer not in authorised:
                    connection.end("is authorised no longer")
                    self.dismiss(connection, zmq_sockets.REVOKED)

    def close(self) -> None:
        """End all connections, delivering what was sent on them, and stop listening. Closing twice is harmless."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            for connection in list(self._connections.values()):
                connection.close()
        self._waker.set()
        self._thread.join()
        self.turns.close()
        if not self._encrypted:  # libzmq leaves it; now, while nobody else can have taken its place
            ipc_path(self.address).unlink(missing_ok=True)
        with self._lock:  # who has only just begun to send, or to close a connection, finds the router closed
            zmq_sockets.close_monitored(self._router, self._monitor, zmq_sockets.LINGER_MS)
            self._wires.close()
        self._zap.close(0)
        self._waker.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_to(self, connection: AcceptedConnection, frames: Sequence[Buffer]) -> None:
        """Send a message to one peer, for `AcceptedConnection`."""
        with self._lock:
            if self._reaches(connection.identity, frames):
                if self.turns.taken and zmq_sockets.is_readable(self._router):
                    self.turns.wake()
                return
            self._drain()  # its last words come before its end
        connection.end(zmq_sockets.CLOSED)
        self.turns.wake()
        raise RunError(f"{connection.name} {zmq_sockets.CLOSED}")

    def collect(self) -> None:
        """Hand out what has arrived, for `AcceptedConnection`."""
        while self._drain():
            pass
        self.turns.wake()

    def dismiss(self, connection: AcceptedConnection, reason: str) -> None:
        """Say goodbye to a peer and hear nothing more of it."""
        with self._lock:
            if self._connections.pop(connection.identity, None) is not None and not self._router.closed:
                self._dismissed.add(connection.identity)
                if connection.wire is not None:
                    self._wires.part(connection.wire)
                    connection.wire = None
                self._reaches(connection.identity, zmq_sockets.goodbye(reason))
        self.turns.wake()

    def _run(self) -> None:
        poller = select.poll()
        for descriptor in (self._monitor.fileno(), self._zap.fileno(), self._waker.fileno()):
            poller.register(descriptor, select.POLLIN)
        try:
            while not self._closing:
                self._answer_zap()
                with self._lock:
                    self._note_losses()
                    self._cut_wires()
                    if self._broken:
                        self._drain()
                        self.turns.wake()
                if not poll(poller, self._waker, _SUSPICION_MS if self._suspects else WATCH_MS if self._wires else None):
                    with self._lock:
                        self._probe_suspects()
        finally:
            with self._lock:
                for connection in self._connections.values():
                    connection.end("was closed")
            self._pending.put(None)
            self.turns.wake()

    def _answer_zap(self) -> None:
        """Tell libzmq which keys may enter (RFC 27). Without a handler it would let everybody in."""
        while zmq_sockets.is_readable(self._zap):
            version, request, _, where, _, mechanism, *credentials = self._zap.recv_multipart(zmq.NOBLOCK)
            key = z85.encode(credentials[0]) if mechanism == b"CURVE" and len(credentials) == 1 else b""
            status = [b"200", b"OK", key] if key in self._authorised else [b"400", b"unknown key", b""]
            self._zap.send_multipart([version, request, *status, b""], zmq.NOBLOCK)
            if status[0] != b"200":
                self.on_refusal(
                    f"a key that is not listed is turned away: {printable(key.decode())} of {printable(where.decode(errors='replace'))}"
                )

    def _note_losses(self) -> None:
        """Find out who has connected, and whose wires have broken."""
        for event, descriptor in zmq_sockets.events(self._monitor):
            if event == zmq.EVENT_ACCEPTED:
                self._dead_descriptors.discard(descriptor)
                if self._encrypted:
                    self._wires.accept(descriptor)
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and descriptor == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
                self.on_refusal("somebody has another public key for this party than its own, and is turned away")
            elif event == zmq.EVENT_DISCONNECTED:
                self._wires.lose(descriptor)
                if descriptor in self._identities:
                    self._broken.append(self._identities.pop(descriptor))
                else:
                    self._dead_descriptors.add(descriptor)

    def _cut_wires(self) -> None:
        """End what takes more than its share: too many without a hello, and who sends what nobody reads. That one is told why before."""
        for wire in self._wires.overfull(self._note_losses):
            connection = self._connections.get(self._identities.get(wire.descriptor, b""))
            if connection is None:
                self._wires.cut(wire, self._note_losses)
            else:
                connection.end(wire.overfull())
                self.dismiss(connection, "ends the connection: more was sent than may wait to be read there")
        for wire in self._wires.unwelcome():
            self._wires.cut(wire, self._note_losses)

    def _forget(self, identity: bytes) -> None:
        self._dismissed.discard(identity)
        connection = self._connections.pop(identity, None)
        if connection is not None:
            connection.end(zmq_sockets.LOST)

    def _drain(self, wanted: queue.SimpleQueue[Any] | None = None) -> bool:
        """Hand out what has arrived, until there is something for who wants it; True when that was so much that more may be there."""
        with self._lock:
            for _ in range(zmq_sockets.AT_ONCE):
                if self._closing or not zmq_sockets.is_readable(self._router):
                    break
                identity, *frames = zmq_sockets.receive_frames(self._router)
                self._dispatch(identity.bytes, frames)
                if wanted is not None and not wanted.empty():
                    return False
            else:
                return True
            while self._broken:
                self._forget(self._broken.pop())
            return False

    def _dispatch(self, identity: bytes, frames: list[zmq.Frame]) -> None:
        peer = zmq_sockets.user_id(frames[0]) if self._encrypted else None
        connection = self._connections.get(identity)
        if connection is None:
            if identity not in self._dismissed:
                self._welcome(identity, peer, frames)
        elif peer != connection.peer:
            connection.end("was taken over by another key")
        elif len(frames[0]) > 0:
            connection.deliver(zmq_sockets.read_only(frames, self._encrypted))
        elif len(frames) > 1:
            connection.end(zmq_sockets.farewell(frames))

    def _welcome(self, identity: bytes, peer: bytes | None, frames: list[zmq.Frame]) -> None:
        """Make a connection of a new peer's first message, which must be a hello."""
        self._note_losses()
        descriptor = int(frames[0].get(zmq.SRCFD))
        process, user = (0, None) if self._encrypted else zmq_sockets.widen(descriptor) or (0, None)
        where = str(frames[0].get("Peer-Address")) if self._encrypted else f"process {process}" if process else self.address
        connection = AcceptedConnection(self, identity, where, peer)
        connection.process = process or None
        self._connections[identity] = connection
        if self._encrypted:
            connection.wire = self._wires.greet(descriptor)
            if peer in self._unlimited:
                connection.allow(0)
        self._register(identity, descriptor)
        if len(frames) > 1 or len(frames[0]) > 0:
            self.dismiss(connection, "did not understand the greeting")
        elif user not in (None, os.geteuid()):  # somebody has opened the directory since
            self.dismiss(connection, "serves its own user alone")
        elif peer is not None and peer not in self._authorised:  # revoked since its handshake
            self.dismiss(connection, zmq_sockets.REVOKED)
        elif len(self._connections) > self._max_connections or self._pending.qsize() >= self._max_pending:
            self.dismiss(connection, "has too many connections: try again later")
        elif peer is not None and peer not in self._unlimited and self._count(peer) > self._max_of_a_key:
            self.dismiss(connection, f"has {self._max_of_a_key} connections of this party's key already: end one, or try again later")
        else:
            self._pending.put(connection)

    def _count(self, peer: bytes) -> int:
        return sum(each.peer == peer for each in self._connections.values())

    def _register(self, identity: bytes, descriptor: int) -> None:
        """Note whose wire a descriptor is, so that its loss is noticed.

        Descriptors are used again, and events of the wire and messages come by different ways: a new peer's may have broken before
        its first message was read, or a former peer's loss may not have been seen yet. Then both are looked at a little later.
        """
        earlier = self._identities.get(descriptor)
        if earlier is not None:
            self._suspects[earlier] = descriptor
        if earlier is not None or descriptor in self._dead_descriptors:
            self._suspects[identity] = descriptor
            self._waker.set()
        self._dead_descriptors.discard(descriptor)
        self._identities[descriptor] = identity

    def _probe_suspects(self) -> None:
        """By now libzmq knows which peers it can reach."""
        for identity, descriptor in self._suspects.items():
            if self._reaches(identity, zmq_sockets.HELLO):
                self._identities[descriptor] = identity
            else:
                self._broken.append(identity)
        self._suspects.clear()
        self._drain()
        self.turns.wake()

    def _reaches(self, identity: bytes, frames: Sequence[Buffer]) -> bool:
        """Send to a peer; False when it is gone, or this listener closed."""
        if self._router.closed:
            return False
        try:
            zmq_sockets.send_frames(self._router, [identity, *frames], self._encrypted)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True


def _keys(keys: Iterable[bytes], address: str) -> frozenset[bytes]:
    authorised = frozenset(keys)
    if not all(map(is_key, authorised)):
        raise InputError(f"an authorised key of {address} is no CURVE key of 40 characters")
    return authorised
