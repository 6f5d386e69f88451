"""What the two parties that listen have in common: accepting connections and greeting each in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from threepc.errors import RunError, ThreepcError
from threepc.party.connector import Connector
from threepc.party.observation import Observation
from threepc.party.session import Options, close_all, open_channel
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection
from threepc.transport.meter import Meter

GREETING_TIMEOUT = 10.0


class ListeningParty(ABC):
    """Accepts connections until stopped. Errors of a session are logged and end that session alone."""

    role: str
    expects = "peer"
    """What messages call whoever connects."""

    def __init__(self, connector: Connector, options: Options) -> None:
        """Listen at once. Raises InputError when the address is in use."""
        self._options, self._connector = options, connector
        self.observation = Observation(self.role)
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._draining, self._busy, self._idle = False, 0, threading.Condition()
        self._name_of: Callable[[bytes | None], str | None] = lambda _: None
        self._listener = connector.listen(self.role)

    @property
    def address(self) -> str:
        """Where the party listens."""
        return self._listener.address

    def authorise(self, keys: Iterable[bytes], name_of: Callable[[bytes | None], str | None]) -> None:
        """Let these public keys in from now on, and no others; connections of any other key end. name_of: what the log calls a key's owner."""
        self._name_of = name_of
        self._listener.set_authorised(keys)

    def called(self, client: Connection) -> str:
        """What the log calls a client."""
        name = self._name_of(client.peer)
        return f"client {name}" if name else "a client"

    @contextlib.contextmanager
    def inferring(self) -> Iterator[None]:
        """While an inference runs, which a stop waits for. Raises RunError where a stop has begun."""
        with self._idle:
            self._refuse_when_draining()
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def drain(self, seconds: float) -> int:
        """Begin nothing new, and wait so long for the inferences that run; how many still do. Then `stop` ends the party."""
        self.observation.state = "stopping"
        with self._idle:
            self._draining = True
            self._idle.wait_for(lambda: not self._busy, seconds)
            return self._busy

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise RunError(f"the {self.role} is being stopped", "stopped")

    def serve(self) -> None:
        """Accept connections until `stop`; one thread for each."""
        self.observation.state = "ready"
        threads: list[threading.Thread] = []
        while not self._stopping.is_set():
            try:
                connection = self._listener.accept(0.5)
            except RunError:
                break
            if connection is None:
                continue
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(threading.Thread(target=self._receive, args=(connection,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(self._options.timeout)

    def stop(self) -> None:
        """End `serve` and all connections."""
        self._stopping.set()
        self._listener.close()

    def _receive(self, connection: Connection) -> None:
        channel = open_channel(connection, self.role, self.expects, self._options, Meter())
        try:
            self._refuse_when_draining()
            self._greet(channel)
        except ThreepcError as error:
            self.observation.failed(error)
            close_all([channel], str(error))

    @abstractmethod
    def _greet(self, channel: Channel) -> None:
        """Hear who it is, and run the session that its connection completes."""
