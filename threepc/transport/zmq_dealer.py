"""The connecting end of a ZeroMQ connection, used directly by the threads that send and receive: no hop through another thread."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

import zmq

from threepc.errors import InputError, RunError
from threepc.transport import zmq_sockets
from threepc.transport.addresses import check_ipc_directory, is_tcp
from threepc.transport.connection import Buffer, Connection, closed_here, no_answer
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.waker import Waker, poll
from threepc.transport.wires import WATCH_MS, Probe, Wire, wire_bytes
from threepc.transport.zmq_sockets import Context, Socket

_FLUSH_MS = 1
_LOOK_S = 0.01
"""So often at most a socket is asked for what nobody waits for; each time takes some system calls."""
_RETRY_S, _LONGEST_RETRY_S, _CALL_S = 0.05, 0.25, 0.5
_PATIENCE_S, _AGAIN_S = 2.0, 20.0
"""After this time without an answer, and then every so often, somebody is told for whom this party waits."""
_HANG_UPS = 5
"""So often a listener hangs up during the handshake, in a row, before it is given up."""


class _Failure(Enum):
    """How a try to connect ended."""

    NOBODY = auto()
    SILENCE = auto()
    HANG_UP = auto()
    KEY = auto()
    OTHER_KEY = auto()
    STRANGER = auto()


_TEXTS = {
    _Failure.SILENCE: "accepts connections but says nothing: it has stopped, or has more to do than it can",
    _Failure.HANG_UP: f"hung up {_HANG_UPS} times during the handshake: its log may say why",
    _Failure.KEY: "does not accept this party's public key: add it to that party's deployment.yaml",
    _Failure.OTHER_KEY: "cannot read what is encrypted for its public key here, so that is not the one it has: copy its .public file anew",
    _Failure.STRANGER: "does not speak this protocol: another program listens there",
}
# RFC 23: signature, version 3.1, mechanism, whether a server sends it, filler.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)


def connect(
    address: str,
    *,
    keys: KeyPair | None = None,
    server_key: bytes | None = None,
    timeout: float = 30.0,
    name: str = "the party",
    tell: Callable[[str], None] | None = None,
) -> Connection:
    """A connection to the `Listener` at `address`, trying for `timeout` seconds until somebody listens there.

    `keys`: own key pair, and `server_key`: the only public key that the listener is believed with (both for tcp:// only and required
    there). `name` is what messages call the listener; `tell` hears for whom this party waits, and why, when that takes a while. Raises
    InputError for a bad address, missing keys, or an ipc directory that others may enter; RunError when nobody answers, when one side does not
    accept the other's key, or when this process may not open enough files.
    """
    if is_tcp(address):
        if server_key is None or not is_key(server_key):
            raise InputError(f"{name} at {address} cannot be recognised without its public key: 'threepc keygen DIR' makes keys")
    else:
        check_ipc_directory(address)
    began, hang_ups, pause = time.monotonic(), 0, _RETRY_S
    told, again = "", began + _PATIENCE_S
    while True:
        outcome = _try(address, keys, server_key, began + timeout)
        if isinstance(outcome, Connection):
            outcome.name = f"{name} at {address}"
            return outcome
        hang_ups = hang_ups + 1 if outcome is _Failure.HANG_UP else 0
        if hang_ups == _HANG_UPS:
            outcome = _greeted(address, outcome)
        if hang_ups == _HANG_UPS or outcome in (_Failure.KEY, _Failure.OTHER_KEY, _Failure.STRANGER):
            raise RunError(f"{name} at {address} {_TEXTS[outcome]}")
        passed = time.monotonic() - began
        if passed + pause > timeout:
            raise RunError(f"{name} has not answered at {address} for {timeout:g} s: {_reason(address, outcome)}")
        if tell is not None and passed > _PATIENCE_S:
            reason = _reason(address, outcome)
            if reason != told or time.monotonic() > again:
                tell(f"waiting for {name} at {address}, {timeout - passed:.0f} s more: {reason}")
                told, again = reason, time.monotonic() + _AGAIN_S
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_RETRY_S)


def _try(address: str, keys: KeyPair | None, server_key: bytes | None, deadline: float) -> Connection | _Failure:
    """One try to connect, with a context of its own, which is gone again unless it succeeded."""
    with contextlib.ExitStack() as stack:
        try:
            context = zmq_sockets.new_context()
            stack.callback(context.destroy, 0)
            dealer = zmq_sockets.new_socket(context, zmq.DEALER, address, keys)
            if server_key is not None and is_tcp(address):
                dealer.curve_serverkey = server_key
            monitor = dealer.get_monitor_socket(zmq_sockets.WATCHED)
            stack.callback(dealer.disable_monitor)
            dealer.connect(address)
            outcome = _handshake(monitor, deadline)
            if isinstance(outcome, _Failure):
                return outcome
            if not is_tcp(address):
                zmq_sockets.widen(outcome)
            waker = Waker()
            stack.callback(waker.close)
            connection = DealerConnection(context, dealer, monitor, waker, address, server_key if is_tcp(address) else None, outcome)
            stack.pop_all()
        except (zmq.ZMQError, OSError) as error:
            raise RunError(f"no connection to {address} can be made: {error.strerror}") from None
        return connection


def _handshake(monitor: Socket, deadline: float) -> int | _Failure:
    """Wait for a new connection's handshake: its descriptor, or what went wrong."""
    descriptor, patience = -1, min(deadline, time.monotonic() + zmq_sockets.HANDSHAKE_MS / 1000)
    while True:
        for event, value in zmq_sockets.events(monitor):
            if event == zmq.EVENT_CONNECTED:
                descriptor = value
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return descriptor
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return _Failure.KEY
            elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return _Failure.OTHER_KEY if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC else _Failure.STRANGER
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
                return _Failure.NOBODY if descriptor < 0 else _Failure.HANG_UP
        remaining = patience - time.monotonic()
        if remaining <= 0:
            return _Failure.NOBODY if descriptor < 0 else _Failure.SILENCE
        monitor.poll(math.ceil(remaining * 1000))


def _reason(address: str, failure: _Failure) -> str:
    """Why nobody answers at an address, as far as that can be found out."""
    if failure is not _Failure.NOBODY:
        return f"it {_TEXTS[_greeted(address, failure)]}"
    if not is_tcp(address):
        return "is it running there?"
    try:
        _call(address).close()
    except ConnectionRefusedError:
        return "its host refuses the connection: is it running there?"
    except TimeoutError:
        return "its host does not answer: is it up, and does a firewall let this host through?"
    except OSError as error:
        return f"{error.strerror}"
    return "it has just begun to listen"


def _greeted(address: str, failure: _Failure) -> _Failure:
    """What a listener's greeting tells of a handshake that came to nothing.

    One that greets as it should, and hangs up on what follows, has not the key that this was encrypted for.
    """
    if not is_tcp(address):
        return failure
    said = b""
    with contextlib.suppress(OSError), _call(address) as caller:
        caller.sendall(_GREETING)
        while len(said) < len(_GREETING) and (more := caller.recv(len(_GREETING))):
            said += more
    if not said:
        return failure
    if said[0] != _GREETING[0] or said[9:10] + said[12:32] != _GREETING[9:10] + _GREETING[12:32]:
        return _Failure.STRANGER
    return _Failure.OTHER_KEY if failure is _Failure.HANG_UP else failure


def _call(address: str) -> socket.socket:
    """A plain TCP connection, to find out what is wrong with others."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), _CALL_S)


class DealerConnection(Connection):
    """A connected DEALER socket in a context of its own, so that bulk on one connection does not hold up another's I/O thread."""

    def __init__(
        self, context: Context, socket: Socket, monitor: Socket, waker: Waker, address: str, peer: bytes | None, descriptor: int
    ) -> None:
        super().__init__(address, peer)
        self._context, self._socket, self._monitor = context, socket, monitor
        self._encrypted = is_tcp(address)
        self._waker = waker
        self._poller = select.poll()
        for each in (socket, monitor, waker):
            self._poller.register(each.fileno(), select.POLLIN)
        self._receiving = threading.Lock()  # held through a whole receive: one receiver at a time
        self._lock = threading.Lock()  # held for each operation on the sockets; taken after _receiving
        self._waiting = False
        self._arrived: deque[list[memoryview]] = deque()
        self._end: str | None = None
        self._broken = self._closed = False
        self._look_at = 0.0  # by time.monotonic
        zmq_sockets.send_frames(socket, zmq_sockets.HELLO, self._encrypted)
        if self._encrypted:
            self.wire = Wire(descriptor)
            self.allow(0)
            _watch.add(self)

    def check(self, probe: Probe) -> None:
        """End the connection when more waits on it than may."""
        wire = self.wire
        if wire is None or self._closed or wire.holds(probe.received(wire.descriptor)) <= wire.allowed:
            return
        with self._lock:
            if not self._closed and self._end is None and probe.cut(wire.descriptor, self._is_whole):
                self._end = wire.overfull()
                self._arrived.clear()
            if not self._closed and (self._end is not None or self._broken):
                self._waker.set()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Hand the frames to libzmq, and now and then take in what has arrived meanwhile: it may be the peer's goodbye."""
        with self._lock:
            if self._closed:
                raise closed_here(self)
            if time.monotonic() >= self._look_at:
                self._drain()
            if self._end is None:
                zmq_sockets.send_frames(self._socket, frames, self._encrypted)
            if self._waiting and (self._arrived or self._end is not None or zmq_sockets.is_readable(self._socket)):
                self._waker.set()
            if self._end is not None:
                raise RunError(f"{self.name} {self._end}", zmq_sockets.kind_of_end(self._end))

    def receive(self, timeout: float | None = None) -> list[memoryview]:
        """The next message, read from the socket by the calling thread itself."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._receiving:
            while True:
                with self._lock:
                    frames = self._take()
                    if frames is not None:
                        return frames
                    self._waiting = True
                try:
                    remaining = None if deadline is None else (deadline - time.monotonic()) * 1000
                    if remaining is not None and remaining <= 0:
                        raise no_answer(self, timeout)
                    if self._monitor.fileno() in poll(self._poller, self._waker, remaining):
                        self._look_at = 0.0
                finally:
                    self._waiting = False

    def close(self) -> None:
        """Wake whoever receives, say goodbye, and give the sockets and the context back."""
        self._closed = True
        with self._lock:
            if self._socket.closed:
                return
            self._waker.set()
        with contextlib.ExitStack() as ending, self._receiving, self._lock:
            if self._socket.closed:
                return
            ending.callback(self._context.term)
            ending.callback(_watch.discard, self)
            linger_ms = 0
            try:
                self._drain()
                linger_ms = self._say_goodbye() if self._end is None else 0
            finally:  # after an interrupt, too
                zmq_sockets.close_monitored(self._socket, self._monitor, linger_ms)
                self._waker.close()

    @property
    def has_ended(self) -> bool:
        """Whether either side has closed it, or its wire broke, as far as a send or receive has noticed."""
        return self._closed or self._end is not None

    def collect(self) -> None:
        """Read the socket; whoever waits for a message looks again."""
        with self._lock:
            while not self._closed and self._drain():
                pass
            if self._waiting and (self._arrived or self._end is not None):
                self._waker.set()

    def wire_bytes(self, sizes: Sequence[int]) -> int:
        """Bytes on the wire, with what ZMTP and CURVE add."""
        return wire_bytes(sizes, self._encrypted)

    def _take(self) -> list[memoryview] | None:
        """The next message if there is one. What had arrived before the connection ended is still received."""
        if self._closed:
            raise closed_here(self)
        while not self._arrived and self._drain(1):
            pass
        if self._arrived:
            frames = self._arrived.popleft()
            if self.wire is not None:
                self.wire.take(frames)
            return frames
        if self._end is not None:
            raise RunError(f"{self.name} {self._end}", zmq_sockets.kind_of_end(self._end))
        return None

    def _say_goodbye(self) -> int:
        """Wait until a goodbye, and all before it, has left or the wire has broken; returns how long a close may still linger, in ms.

        Lingering alone would not do: when both ends close at once, libzmq would wait to the last for the wire to come back.
        """
        deadline = time.monotonic() + zmq_sockets.LINGER_MS / 1000
        self._socket.copy_threshold = 0  # frames that are not copied can be tracked
        empty, reason = zmq_sockets.goodbye(zmq_sockets.CLOSED)
        self._socket.send(empty, zmq.NOBLOCK | zmq.SNDMORE)
        sent = self._socket.send(reason, zmq.NOBLOCK, copy=False, track=True)
        while not sent.done and self._end is None and time.monotonic() < deadline:
            self._monitor.poll(_FLUSH_MS)
            self._drain()
        return 0 if self._end is not None else max(round((deadline - time.monotonic()) * 1000), 0)

    def _drain(self, most: int = zmq_sockets.AT_ONCE) -> bool:
        """Take in what has arrived, also on behalf of a sender, who may never receive and must still learn of a goodbye.

        Returns True when that was so much that more may be there.
        """
        whole = not self._broken and (time.monotonic() < self._look_at or self._is_whole())
        for _ in range(most):
            if self._end is not None or not zmq_sockets.is_readable(self._socket):
                break
            frames = zmq_sockets.receive_frames(self._socket)
            if len(frames[0]) > 0:
                received = zmq_sockets.read_only(frames, self._encrypted)
                if self.note is not None:
                    self.note(received)
                self._arrived.append(received)
                if self.wire is not None:
                    self.wire.delivered += len(received)
            elif len(frames) > 1:
                self._end = zmq_sockets.farewell(frames)
        else:
            return True
        if not whole and self._end is None:
            self._end = zmq_sockets.LOST
        return False

    def _is_whole(self) -> bool:
        """Whether libzmq has told nothing yet of the wire's end."""
        self._look_at = time.monotonic() + _LOOK_S
        self._broken |= zmq.EVENT_DISCONNECTED in [event for event, _ in zmq_sockets.events(self._monitor)]
        return not self._broken


class _Watch:
    """One thread for all connections of this end over TCP; it looks every WATCH_MS, while there are any, whether one is flooded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections = weakref.WeakSet[DealerConnection]()
        self._is_running = False

    def add(self, connection: DealerConnection) -> None:
        """Watch a connection as long as it is used by anybody. Raises OSError when too many files are open."""
        with self._lock:
            self._connections.add(connection)
            if not self._is_running:
                probe = Probe()
                threading.Thread(target=self._run, args=(probe,), name="watch", daemon=True).start()
                self._is_running = True

    def _run(self, probe: Probe) -> None:
        while self._check_all(probe):
            time.sleep(WATCH_MS / 1000)
        probe.close()

    def _check_all(self, probe: Probe) -> bool:
        """Look at all connections once; False when there are none, and the thread is to end."""
        with self._lock:
            connections = list(self._connections)
            self._is_running = bool(connections)
        for connection in connections:
            connection.check(probe)
        return bool(connections)

    def discard(self, connection: DealerConnection) -> None:
        """Watch a connection no longer."""
        with self._lock:
            self._connections.discard(connection)


_watch = _Watch()
