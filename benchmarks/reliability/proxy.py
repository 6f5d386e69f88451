"""A TCP proxy between two parties that can go silent, cut connections, or let a given number of bytes pass first."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

PIECE = 1 << 16


class Proxy:
    """Listens at a free port of this host and forwards to another; one thread for all its connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed = 0
        """Bytes forwarded so far, both ways."""
        self.silent = False
        """While True, connections stay open and nothing passes: what a blackholed host looks like."""
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._limit: tuple[int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def after(self, passed: int, act: Callable[[], None]) -> None:
        """Call `act` once, as soon as that many bytes have passed in all."""
        with self._lock:
            self._limit = (passed, act)

    def cut(self) -> None:
        """Close every connection that is open now."""
        with self._lock:
            for each in list(self._pairs):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the proxy and its connections."""
        self._closed.set()
        self.cut()
        self._thread.join()
        for each in (self._listener, *self._pairs):
            each.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and not self.silent:
                    self._forward(key.fileobj)

    def _accept(self) -> None:
        if self.silent:
            return
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        target = self._pairs.get(source)
        if target is None:
            return
        try:
            data = source.recv(PIECE)
            if data:
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source, target)
            return
        self.passed += len(data)
        with self._lock:
            limit = self._limit
            due = limit is not None and self.passed >= limit[0]
            if due:
                self._limit = None
        if due and limit is not None:
            limit[1]()

    def _drop(self, *ends: socket.socket) -> None:
        for end in ends:
            self._pairs.pop(end, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()


@contextlib.contextmanager
def proxies(*targets: int) -> Iterator[list[Proxy]]:
    """A proxy in front of each of these ports of this host."""
    made = [Proxy(target) for target in targets]
    try:
        yield made
    finally:
        for proxy in made:
            proxy.close()
