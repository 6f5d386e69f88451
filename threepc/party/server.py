"""The server: holds the weights, evaluates the online phase with each client, learns nothing about inputs or results."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from threepc.errors import RunError
from threepc.kernels.convolution import PackedWeight
from threepc.model.served import ServedModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.listening import GREETING_TIMEOUT, LOOK_S, ListeningParty, Waiting
from threepc.party.pacing import PacedReceiver
from threepc.party.places import Places
from threepc.party.record import by_link, by_step, difference
from threepc.party.session import (
    Options,
    allow_messages,
    ending_together,
    key_text,
    next_request,
    open_channel,
    requested,
    session_field,
    text_field,
)
from threepc.party.usage import Usage, counted
from threepc.party.warmup import warm_up
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Server
from threepc.transport.channel import Channel
from threepc.transport.framing import PROTOCOL_VERSION, Control

SESSIONS = 32
"""So many sessions run at once."""


class ServerParty(ListeningParty):
    """Serves clients until stopped; one thread a client.

    The weights are encoded, masked and packed once; the key of their mask is made here and goes to the provider with each session.
    """

    role, expects = "server", "client"

    def __init__(self, model: ServedModel | None, connector: Connector, options: Options) -> None:
        """`model` may follow later, by `load`; until then clients are told to wait. Raises InputError as `load` does, and for an address in use."""
        self._weight_key, self._loaded, self._places = new_key(), threading.Event(), Places(SESSIONS)
        self._weights: dict[int, PackedWeight] = {}
        self._biases: dict[int, np.ndarray] = {}
        self._masked: dict[int, np.ndarray] = {}
        self._waiting: dict[bytes, queue.SimpleQueue[Channel]] = {}
        if model is not None:
            self._prepare(model)
        super().__init__(connector, options)

    def load(self, model: ServedModel) -> None:
        """Serve this model from now on. Raises InputError, naming the layer, for weights that do not fit the ring."""
        self._prepare(model)
        self.observation.state = "ready"

    def is_loaded(self) -> bool:
        """Whether there is a model."""
        return self._loaded.is_set()

    def _prepare(self, model: ServedModel) -> None:
        mask = Keystream(self._weight_key)
        mask.begin_attempt(0)
        for step, words, biases in model.public.plan(1).encoded_weights(model.weights):
            self._biases[step.op] = biases
            self._masked[step.op] = step.protocol.mask_weights(mask, words)
            self._weights[step.op] = step.protocol.server_weights(words)
        mask.erase()
        self._public = model.public
        self._loaded.set()

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
                    raise RunError("the server is being stopped")
                tell("it is loading its model")
            full = f"it serves {SESSIONS} sessions already, and this one is number"
            with self._places.taken(channel.connection.peer, lambda number: tell(f"{full} {number} in the queue"), LOOK_S):
                self._session(session, channel, tell)
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

    def _session(self, session: bytes, online: Channel, tell: Callable[[str], None]) -> None:
        channels, key = [online], new_key()
        with counted(session), ending_together(channels):
            with self._second_connection(session) as arriving:
                provider = open_channel(self._connector.connect("provider", tell), "server", "provider", self._options, online.meter)
                channels.append(provider)
                model = self._public.to_plain()
                hello = {
                    "version": PROTOCOL_VERSION,
                    "role": "server",
                    "session": session.hex(),
                    "model": model,
                    "client": key_text(online.connection.peer),
                }
                provider.send_control("hello", hello, [key, self._weight_key])
                online.send_control("model", model)
                online.receive_control("opened")  # waiting here, the server hears of a client that goes away instead
                try:
                    offline = arriving.get(timeout=self._options.timeout)
                except queue.Empty:
                    raise RunError(f"the client did not open its offline connection within {self._options.timeout:g} s") from None
                channels.append(offline)
                if offline.connection.peer != online.connection.peer:
                    raise RunError("the two connections of a session are of two different keys")
            for channel in channels:
                channel.session = session
            offline.meter = online.meter
            for op, message in self._masked.items():
                offline.send(op, [message], "setup")
            warm_up(self._public.precision)
            if text_field(provider.receive_control("ready"), "fingerprint") != self._public.fingerprint:
                raise RunError("the provider confirmed another model")
            online.send_control("ready", {})
            stream, dealt, prepared = Keystream(key), PacedReceiver(provider), PacedReceiver(offline)
            try:
                with self.observation.session(session, self.called(online.connection), online.connection.where):
                    while request := next_request(online, "infer", self._options.idle):
                        with self.inferring():
                            self._infer(request, online, dealt, prepared, stream)
            finally:
                stream.erase()

    def _infer(self, request: Control, online: Channel, dealt: PacedReceiver, prepared: PacedReceiver, stream: Keystream) -> None:
        attempt, plan = requested(self._public, request)
        stream.begin_attempt(attempt)
        channels = online, dealt.channel, prepared.channel
        allow_messages(plan, channels, self._options.budget)
        for channel in channels:
            channel.attempt = attempt
        before, usage, seconds = online.meter.counts(), Usage(online.session), [0.0] * len(plan.steps)
        role = Server(attempt, self._weights, self._biases, stream, dealt, prepared, online, self._options.threads)
        inference.serve(role, plan, inference.noting(seconds))
        stream.end_attempt(attempt)
        for receiver in (dealt, prepared):
            receiver.settle()
        fields = usage.fields()
        counts = difference(online.meter.counts(), before)
        self.observation.inferred(online.session, plan.batch, fields["seconds"], by_link(counts))
        from_provider = {key: count for key, count in counts.items() if key[0] == ("provider", "server")}
        sizes = [size for size, _ in by_step(plan, from_provider)]
        online.send_control("done", fields | {"layers": seconds, "dealt": sizes})
