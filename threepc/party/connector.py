"""How parties reach each other: the one interface that sessions use, over ZeroMQ or within a process."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from threepc.errors import RunError
from threepc.transport import memory, zmq_dealer, zmq_listener
from threepc.transport.connection import Connection
from threepc.transport.keys import KeyPair


class Listener(Protocol):
    """Where a party is reached."""

    address: str
    on_refusal: Callable[[str], None]
    """Hears of peers that do not get past the handshake, and why."""

    def accept(self, timeout: float | None = None) -> Connection | None:
        """The next connection, None after `timeout` seconds; raises RunError once closed."""

    def set_authorised(self, keys: Iterable[bytes]) -> None:
        """Let these public keys in from now on, and no others; connections of any other key end."""

    def close(self) -> None:
        """Stop listening."""


class Connector(Protocol):
    """The server and the provider listen; the client connects to both, the server to the provider."""

    def listen(self, role: str) -> Listener:
        """Listen as `role`."""

    def connect(self, role: str, tell: Callable[[str], None] | None = None) -> Connection:
        """A new connection to `role`; `tell` hears for whom this party waits, while it does. What that raises ends the wait."""

    def is_known(self, role: str, peer: bytes | None) -> bool:
        """Whether a connection of the proven key `peer` may call itself `role`."""


@dataclass(frozen=True)
class ZmqConnector:
    """Parties reached over ZeroMQ as one of them sees it.

    addresses: of the server and the provider, ipc:///PATH or tcp://HOST:PORT. For tcp: `keys`, the party's own pair; `public`, the public keys
    that roles are recognised by; `authorised`, the public keys that may connect here.
    """

    addresses: Mapping[str, str]
    keys: KeyPair | None = None
    public: Mapping[str, bytes] = field(default_factory=dict)
    authorised: Iterable[bytes] = ()
    timeout: float = 30.0

    def listen(self, role: str) -> Listener:
        """See `Connector`. Raises InputError when the address is in use."""
        return zmq_listener.Listener(self.addresses[role], keys=self.keys, authorised=self.authorised, unlimited=self.public.values())

    def connect(self, role: str, tell: Callable[[str], None] | None = None) -> Connection:
        """See `Connector`. Raises RunError when nobody answers in time or a key is not accepted."""
        return zmq_dealer.connect(
            self.addresses[role], keys=self.keys, server_key=self.public.get(role), timeout=self.timeout, name=f"the {role}", tell=tell
        )

    def is_known(self, role: str, peer: bytes | None) -> bool:
        """See `Connector`. A role with a public key must prove this one, and any other role must not."""
        return self.public[role] == peer if role in self.public else peer not in self.public.values()


@dataclass
class MemoryConnector:
    """Parties in threads of one process."""

    waiting: dict[str, queue.SimpleQueue[Connection | None]] = field(
        default_factory=lambda: {"server": queue.SimpleQueue(), "provider": queue.SimpleQueue()}
    )

    def listen(self, role: str) -> MemoryListener:
        """See `Connector`."""
        return MemoryListener(self.waiting[role])

    def connect(self, role: str, tell: Callable[[str], None] | None = None) -> Connection:  # noqa: ARG002 - nobody waits for a thread
        """See `Connector`."""
        mine, theirs = memory.pair()
        self.waiting[role].put(theirs)
        return mine

    def is_known(self, role: str, peer: bytes | None) -> bool:
        """See `Connector`: threads of one process believe each other."""
        return role in ("client", "server") and peer is None


class MemoryListener:
    """Accepts what was connected in this process."""

    address = "memory"
    on_refusal: Callable[[str], None]

    def __init__(self, waiting: queue.SimpleQueue[Connection | None]) -> None:
        self._waiting, self._closed = waiting, False

    def accept(self, timeout: float | None = None) -> Connection | None:
        """See `Listener`."""
        try:
            connection = self._waiting.get(timeout=timeout)
        except queue.Empty:
            return None
        if connection is None:
            self._waiting.put(None)
            raise RunError("this party no longer listens")
        if self._closed:  # since it was taken
            connection.close()
        return connection

    def set_authorised(self, keys: Iterable[bytes]) -> None:
        """Nothing to do: threads of one process have no keys."""

    def close(self) -> None:
        """See `Listener`. Connections that nobody has accepted end; sessions that run end by themselves."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                if connection := self._waiting.get_nowait():
                    connection.close()
        self._waiting.put(None)
