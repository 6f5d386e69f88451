"""The connecting end of a ZeroMQ connection, used directly by the threads that send and receive: no hop through another thread."""

from __future__ import annotations

import math
import select
import threading
import time
from collections import deque
from collections.abc import Sequence

import zmq

from threepc.errors import InputError, RunError
from threepc.transport import zmq_sockets
from threepc.transport.addresses import check_ipc_directory, is_tcp
from threepc.transport.connection import Buffer, Connection, closed_here, no_answer
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.waker import Waker, poll
from threepc.transport.zmq_sockets import Context, Socket

_RETRY_S = 0.05
_FLUSH_MS = 1


def connect(
    address: str, *, keys: KeyPair | None = None, server_key: bytes | None = None, timeout: float = 30.0, name: str = "the party"
) -> Connection:
    """A connection to the `Listener` at `address`, trying for `timeout` seconds until somebody listens there.

    `keys`: own key pair, and `server_key`: the only public key that the listener is believed with (both for tcp:// only and required
    there). `name` is what messages call the listener. Raises InputError for a bad address, missing keys, or an ipc directory
    that others may enter; RunError when nobody answers, or when one side does not accept the other's key.
    """
    tcp = is_tcp(address)
    if tcp:
        if server_key is None or not is_key(server_key):
            raise InputError(f"{name} at {address} cannot be recognised without its public key: 'threepc keygen DIR' makes keys")
    else:
        check_ipc_directory(address)
    deadline = time.monotonic() + timeout
    context = zmq.Context()
    try:
        while True:
            socket = zmq_sockets.new_socket(context, zmq.DEALER, address, keys)
            if tcp:
                socket.curve_serverkey = server_key
            monitor = socket.get_monitor_socket(zmq_sockets.WATCHED)
            try:
                socket.connect(address)
                failure = _handshake(monitor, deadline)
                if failure is None:
                    connection = DealerConnection(context, socket, monitor, address, server_key if tcp else None)
                    connection.name = f"{name} at {address}"
                    return connection
            except BaseException:
                zmq_sockets.close_monitored(socket, monitor, 0)
                raise
            zmq_sockets.close_monitored(socket, monitor, 0)
            if failure in _FAILURES:
                raise RunError(f"{name} at {address} {_FAILURES[failure]}")
            if time.monotonic() + _RETRY_S > deadline:
                hint = "is it running there, and does a firewall let this host through?"
                raise RunError(f"{name} has not answered at {address} for {timeout:g} s: {hint}")
            time.sleep(_RETRY_S)
    except BaseException:
        context.term()
        raise


_FAILURES: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "does not accept this party's public key: add it to that party's deployment.yaml and restart it there",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "hung up during the handshake: its public key here is probably not the one it has there; "
    "copy its .public file anew ('threepc keygen DIR' makes keys)",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "does not speak this protocol, or its public key here is not the one it has there",
}


def _handshake(monitor: Socket, deadline: float) -> int | None:
    """Wait for a new connection's handshake: None once it succeeded, else the event that stands for what went wrong."""
    while True:
        for event, _ in zmq_sockets.events(monitor):
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return None
            if event in _FAILURES or event in (zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED, zmq.EVENT_DISCONNECTED):
                return event
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return zmq.EVENT_CLOSED
        monitor.poll(math.ceil(remaining * 1000))


class DealerConnection(Connection):
    """A connected DEALER socket in a context of its own, so that bulk on one connection does not hold up another's I/O thread."""

    def __init__(self, context: Context, socket: Socket, monitor: Socket, address: str, peer: bytes | None) -> None:
        super().__init__(address, peer)
        self._context = context
        self._socket = socket
        self._monitor = monitor
        self._encrypted = is_tcp(address)
        self._waker = Waker()
        self._poller = select.poll()
        for descriptor in (socket.fileno(), monitor.fileno(), self._waker.fileno()):
            self._poller.register(descriptor, select.POLLIN)
        self._receiving = threading.Lock()  # held through a whole receive: one receiver at a time
        self._lock = threading.Lock()  # held for each operation on the sockets; taken after _receiving
        self._waiting = False
        self._arrived: deque[list[memoryview]] = deque()
        self._end: str | None = None
        self._closed = False
        zmq_sockets.send_frames(socket, zmq_sockets.HELLO, self._encrypted)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Hand the frames to libzmq, and take in what has arrived meanwhile: it may be the peer's goodbye."""
        with self._lock:
            if self._closed:
                raise closed_here(self)
            self._drain()
            if self._end is None:
                zmq_sockets.send_frames(self._socket, frames, self._encrypted)
            if self._waiting and (self._arrived or self._end is not None or zmq_sockets.is_readable(self._socket)):
                self._waker.set()
            if self._end is not None:
                raise RunError(f"{self.name} {self._end}")

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
                    poll(self._poller, self._waker, remaining)
                finally:
                    self._waiting = False

    def close(self) -> None:
        """Wake whoever receives, say goodbye, and give the sockets and the context back."""
        self._closed = True
        with self._lock:
            if self._socket.closed:
                return
            self._waker.set()
        with self._receiving, self._lock:
            if self._socket.closed:
                return
            self._drain()
            zmq_sockets.close_monitored(self._socket, self._monitor, self._say_goodbye() if self._end is None else 0)
            self._waker.close()
        self._context.term()

    def wire_bytes(self, sizes: Sequence[int]) -> int:
        """Bytes on the wire, with what ZMTP and CURVE add."""
        return zmq_sockets.wire_bytes(sizes, self._encrypted)

    def _take(self) -> list[memoryview] | None:
        """The next message if there is one. What had arrived before the connection ended is still received."""
        if self._closed:
            raise closed_here(self)
        if not self._arrived:
            self._drain()
        if self._arrived:
            return self._arrived.popleft()
        if self._end is not None:
            raise RunError(f"{self.name} {self._end}")
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

    def _drain(self) -> None:
        """Take in what has arrived, also on behalf of a sender, who may never receive and must still learn of a goodbye."""
        lost = zmq.EVENT_DISCONNECTED in [event for event, _ in zmq_sockets.events(self._monitor)]
        while self._end is None and zmq_sockets.is_readable(self._socket):
            frames = zmq_sockets.receive_frames(self._socket)
            if len(frames[0]) > 0:
                self._arrived.append(zmq_sockets.read_only(frames, self._encrypted))
            elif len(frames) > 1:
                self._end = zmq_sockets.farewell(frames)
        if lost and self._end is None:
            self._end = zmq_sockets.LOST
