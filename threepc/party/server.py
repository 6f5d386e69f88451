"""The server: holds the weights, evaluates the online phase with each client, learns nothing about inputs or results."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial

from threepc.errors import RunError
from threepc.model.served import ServedModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.listening import GREETING_TIMEOUT, LOOK_S, ListeningParty, Waiting
from threepc.party.offered import Offer, OfferedModel
from threepc.party.pacing import PacedReceiver
from threepc.party.places import Places
from threepc.party.record import by_link, by_step, difference
from threepc.party.rehearsal import rehearse_server
from threepc.party.session import (
    SETTLING_S,
    Options,
    allow_messages,
    check_ahead,
    ending_together,
    key_text,
    next_request,
    open_channel,
    requested,
    session_field,
    text_field,
)
from threepc.party.tracing import noting
from threepc.party.usage import Usage, counted
from threepc.party.warmup import warm_up_in_session
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Server
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection
from threepc.transport.framing import PROTOCOL_VERSION, Control

SESSIONS, SESSIONS_OF_ONE = 32, 16
"""So many sessions run at once, and of one client's key."""


class ServerParty(ListeningParty):
    """Serves clients until stopped; one thread a client.

    offer: the models that it serves, which may be added and withdrawn meanwhile.
    """

    role, expects = "server", "client"

    def __init__(self, model: ServedModel | None, connector: Connector, options: Options) -> None:
        """`model`: the only one on offer; where there is none yet, clients are told to wait for `load` or `offer_all`.

        Raises InputError, naming the layer, for weights that do not fit the ring, and for an address in use.
        """
        self.offer, self._loaded, self._places = Offer(), threading.Event(), Places(SESSIONS, SESSIONS_OF_ONE)
        self._waiting: dict[bytes, queue.SimpleQueue[Channel]] = {}
        if model is not None:
            self.offer.set([OfferedModel(model)])
            self._loaded.set()
        super().__init__(connector, options)

    def load(self, model: ServedModel) -> None:
        """Serve this model alone from now on. Raises InputError, naming the layer, for weights that do not fit the ring."""
        self.offer_all([OfferedModel(model)])

    def offer_all(self, models: Iterable[OfferedModel]) -> None:
        """Serve these from now on. Raises InputError as `Offer.set` does."""
        self.offer.set(models)
        self._loaded.set()
        self.observation.state = "ready"

    def is_loaded(self) -> bool:
        """Whether models are on offer, or were."""
        return self._loaded.is_set()

    def _greet(self, channel: Channel) -> None:
        hello = channel.receive_control("hello", timeout=GREETING_TIMEOUT)
        session, purpose = session_field(hello), text_field(hello, "purpose")
        if hello.fields.get("version") != PROTOCOL_VERSION:
            raise RunError(f"the client speaks protocol version {hello.fields.get('version')}, the server {PROTOCOL_VERSION}")
        if purpose == "offline":
            with self._lock:
                waiting = self._waiting.get(session)
                if waiting is None:
                    raise RunError("an offline connection for a session that is not open")
                waiting.put(channel)
        elif purpose == "online":
            tell = Waiting(channel)
            while not self._loaded.wait(LOOK_S):
                if self._stopping.is_set():
                    raise RunError("the server is being stopped", "stopped")
                tell("it is loading its model")
            offered = self.offer.find(text_field(hello, "model") if "model" in hello.fields else "")
            full = f"it serves {SESSIONS} sessions already, or {SESSIONS_OF_ONE} of this client, and this one is number"
            client = channel.connection.peer or channel.connection.process  # of one user's processes each is a client
            with self._places.taken(client, lambda number: tell(f"{full} {number} in the queue"), LOOK_S):
                check_ahead(offered.public, self._options, self.role, hello)
                self._session(session, channel, offered, tell)
        elif purpose == "version":
            self._tell_version(channel)
        else:
            raise RunError("a connection for an unknown purpose")

    @contextlib.contextmanager
    def _second_connection(self, session: bytes) -> Iterator[queue.SimpleQueue[Channel]]:
        """Where the client's second connection arrives. Raises RunError for a session that somebody has opened already."""
        with self._lock:
            if session in self._waiting:
                raise RunError("a session identifier that is in use")
            arriving = self._waiting[session] = queue.SimpleQueue()
        try:
            yield arriving
        finally:
            with self._lock:
                del self._waiting[session]
            while not arriving.empty():
                arriving.get().close()  # nobody else would

    def _second(self, arriving: queue.SimpleQueue[Channel], online: Channel) -> Channel:
        """The client's second connection. Raises RunError where it does not come, and as soon as nobody waits for it any more."""
        until = time.monotonic() + self._options.timeout
        while not self._stopping.is_set() and not online.connection.has_ended:
            remaining = until - time.monotonic()
            try:
                return arriving.get(timeout=min(LOOK_S, max(remaining, 0)))
            except queue.Empty:
                if remaining <= 0:
                    raise RunError(f"the client did not open its offline connection within {self._options.timeout:g} s") from None
        if self._stopping.is_set():
            raise RunError("the server is being stopped", "stopped")
        raise RunError(f"{online.connection.name} went away before it had opened its offline connection", "lost")

    def _reach_provider(self, tell: Callable[[str], None]) -> Connection:
        """As `Connector.connect`, in a thread of its own: RunError as soon as this party is being stopped, which nobody waits for a provider for."""
        reached: Future[Connection] = Future()

        def reach() -> None:
            try:
                reached.set_result(self._connector.connect("provider", tell))
            except BaseException as error:  # noqa: BLE001 - raised where the connection is waited for
                reached.set_exception(error)

        threading.Thread(target=reach, name="reach the provider", daemon=True).start()
        while not self._stopping.is_set():
            if wait([reached], LOOK_S).done:
                return reached.result()
        reached.add_done_callback(lambda late: late.exception() or late.result().close())
        raise RunError("the server is being stopped", "stopped")

    def _session(self, session: bytes, online: Channel, offered: OfferedModel, tell: Callable[[str], None]) -> None:
        public, channels, key = offered.public, [online], new_key()
        with counted(session), ending_together(channels):
            with self._second_connection(session) as arriving:
                provider = open_channel(self._reach_provider(tell), "server", "provider", self._options, online.meter)
                channels.append(provider)
                model = public.to_plain()
                hello = {
                    "version": PROTOCOL_VERSION,
                    "role": "server",
                    "session": session.hex(),
                    "model": model,
                    "client": key_text(online.connection.peer),
                }
                provider.send_control("hello", hello, [key, offered.key])
                online.send_control("model", model | {"weights": offered.digest})
                opened = online.receive_control("opened")  # waiting here, the server hears of a client that goes away instead
                offline = self._second(arriving, online)
                channels.append(offline)
                if offline.connection.peer != online.connection.peer:
                    raise RunError("the two connections of a session are of two different keys")
            for channel in channels:
                channel.session = session
                channel.connection.allow(self._options.budget)
            offline.meter = online.meter
            if opened.fields.get("weights") != offered.digest:
                for op, message in offered.masked.items():
                    offline.send(op, [message], "setup")
            warm_up_in_session(public)
            rehearse_server(public, offered.weights, offered.biases, self._options.memory, self._options.budget, self._options.threads)
            if text_field(provider.receive_control("ready"), "fingerprint") != public.fingerprint:
                raise RunError("the provider confirmed another model")
            online.send_control("ready", {})
            stream, dealt, prepared = Keystream(key), PacedReceiver(provider), PacedReceiver(offline)
            try:
                with self.observation.session(session, self.called(online.connection), online.connection.where):
                    # elsewhere a client that asks for it again and again would never be idle
                    others = {"settle": partial(self._settle, online, dealt, prepared)} if online.is_simulated else {}
                    while request := next_request(online, "infer", self._options.idle, **others):
                        with self.inferring():
                            self._infer(request, offered, online, dealt, prepared, stream)
            finally:
                stream.erase()

    def _settle(self, online: Channel, dealt: PacedReceiver, prepared: PacedReceiver, _: Control) -> None:
        """Over simulated links: tell the client when all is through that waits to be received."""
        for receiver in (dealt, prepared):
            receiver.channel.wait_for_all(SETTLING_S)
        online.send_control("settled", {"at": time.monotonic()})

    def _infer(
        self, request: Control, offered: OfferedModel, online: Channel, dealt: PacedReceiver, prepared: PacedReceiver, stream: Keystream
    ) -> None:
        attempt, plan = requested(offered.public, request, self._options, self.role)
        stream.begin_attempt(attempt)
        channels = online, dealt.channel, prepared.channel
        allow_messages(plan, channels, self._options.budget)
        for channel in channels:
            channel.attempt = attempt
        before, usage, seconds = online.meter.counts(), Usage(online.session), [0.0] * len(plan.steps)
        role = Server(attempt, offered.weights, offered.biases, stream, dealt, prepared, online, self._options.threads)
        client = self._name_of(online.connection.peer) or "a client"
        with self.queries.charged(client, offered.public.called, plan.batch) as charge:

            def note(index: int, _: object, taken: float) -> None:
                seconds[index] = taken
                charge.is_final = index >= plan.before_results  # from the first output on, the client may have an answer

            given = offered.side.given() if offered.side else {}
            shown = inference.serve(role, plan, noting(self._options.trace, f"session {online.session.hex()[:8]}", note), given)
            if offered.side:
                offered.side.shown(shown)
        stream.end_attempt(attempt)
        for receiver in (dealt, prepared):
            receiver.settle()
        fields = usage.fields()
        counts = difference(online.meter.counts(), before)
        self.observation.inferred(online.session, plan.batch, fields["seconds"], by_link(counts))
        from_provider = {key: count for key, count in counts.items() if key[0] == ("provider", "server")}
        sizes = [size for size, _ in by_step(plan, from_provider)]
        online.send_control("done", fields | {"layers": seconds, "dealt": sizes})
