"""What the two parties that listen have in common: accepting connections and greeting each in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from threepc.errors import RunError, ThreepcError
from threepc.party.connector import Connector
from threepc.party.observation import Observation
from threepc.party.queries import QueryCounts
from threepc.party.session import WAITING_S, Options, close_all, kind_of, log, open_channel
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection
from threepc.transport.framing import PROTOCOL_VERSION
from threepc.transport.meter import Meter

GREETING_TIMEOUT = 10.0
REFUSALS_S = 5.0
LOOK_S = 1.0
"""So often somebody looks whether a peer that waits is still there."""


class Waiting:
    """Tells a client what it waits for: once, when that changes, and again every WAITING_S, so that it goes on waiting."""

    def __init__(self, client: Channel) -> None:
        self._client, self._said, self._again = client, "", 0.0

    def __call__(self, text: str) -> None:
        """The client waits because `text`. Raises RunError when it has gone."""
        if self._client.connection.has_ended:
            raise RunError(f"{self._client.connection.name} went away while it waited")
        if text != self._said or time.monotonic() > self._again:
            log.info("%s waits: %s", self._client.connection.name, text)
            self._client.send_control("waiting", {"for": text})
            self._said, self._again = text, time.monotonic() + WAITING_S


class ListeningParty(ABC):
    """Accepts connections until stopped. Errors of a session are logged and end that session alone."""

    role: str
    expects = "peer"
    """What messages call whoever connects."""

    def __init__(self, connector: Connector, options: Options) -> None:
        """Listen at once. Raises InputError when the address is in use."""
        self._options, self._connector = options, connector
        self.observation, self.queries = Observation(self.role), QueryCounts()
        self._lock, self._serving, self._stopping = threading.Lock(), threading.Lock(), threading.Event()
        self._draining, self._busy, self._idle, self._quiet_since = False, 0, threading.Condition(), time.monotonic()
        self._name_of: Callable[[bytes | None], str | None] = lambda _: None
        self._listener = connector.listen(self.role)
        self._listener.on_refusal, self._says_again = self._refused, 0.0

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
                self._quiet_since = time.monotonic()
                self._idle.notify_all()

    def quiet_since(self) -> float:
        """When the last inference or connection ended, on the clock of time.monotonic; now, while an inference runs."""
        with self._idle:
            return time.monotonic() if self._busy else self._quiet_since

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

    def _refused(self, text: str) -> None:
        """Log a peer that did not get past the handshake; a line in REFUSALS_S, whoever tries."""
        if time.monotonic() > self._says_again:
            self._says_again = time.monotonic() + REFUSALS_S
            log.warning("%s", text)

    def serve(self) -> None:
        """Accept connections until `stop`; one thread for each. One thread at a time serves, and another one that wants to waits."""
        with self._serving:
            if self.is_loaded() and self.observation.state == "loading":
                self.observation.state = "ready"
            self._serve()

    def is_loaded(self) -> bool:
        """Whether this party has what it needs for a session."""
        return True

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Serve in a thread of its own, while the caller prepares something and afterwards; an error there stops the party."""
        thread = threading.Thread(target=self.serve, name="serve early", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self.stop()
            thread.join()
            raise

    def _serve(self) -> None:
        threads: list[threading.Thread] = []
        while not self._stopping.is_set():
            try:
                connection = self._listener.accept(0.5)
            except RunError:
                break
            if connection is None:
                continue
            threads = [thread for thread in threads if thread.is_alive()]
            thread = threading.Thread(target=self._receive, args=(connection,), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                log.warning("a connection is turned away: %s", error)
                connection.close()
            else:
                threads.append(thread)
        for thread in threads:
            thread.join(self._options.timeout)

    def stop(self) -> None:
        """End `serve` and all connections."""
        self._stopping.set()
        self._listener.close()

    def _receive(self, connection: Connection) -> None:
        channel = open_channel(connection, self.role, self.expects, self._options, Meter())
        if (name := self._name_of(connection.peer)) is not None:
            connection.name = f"the {name if name == 'server' else f'client {name}'} at {connection.where}"
        try:
            self._refuse_when_draining()
            self._greet(channel)
        except ThreepcError as error:
            self.observation.failed(error)
            close_all([channel], str(error), kind_of(error))
        except BaseException as error:
            close_all([channel], f"{type(error).__name__} in this party")  # no text: it might quote a value
            raise
        finally:
            self._quiet_since = time.monotonic()

    def _tell_version(self, channel: Channel) -> None:
        """Answer a peer that asks for nothing else; a peer of another version has been told by the channel."""
        channel.send_control("version", {"version": PROTOCOL_VERSION})
        channel.close()

    @abstractmethod
    def _greet(self, channel: Channel) -> None:
        """Hear who it is, and run the session that its connection completes."""
