"""The server: holds the weights, evaluates the online phase with each client, learns nothing about inputs or results."""

from __future__ import annotations

import queue

from threepc.errors import RunError
from threepc.model.served import ServedModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.listening import GREETING_TIMEOUT, ListeningParty
from threepc.party.pacing import PacedReceiver
from threepc.party.provider import checked_plan, noting
from threepc.party.record import by_step, difference
from threepc.party.session import Options, Usage, ending_together, log, number_field, open_channel, session_field, text_field
from threepc.party.warmup import warm_up
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Server
from threepc.transport.channel import PROTOCOL_VERSION, Channel
from threepc.transport.connection import Connection


class ServerParty(ListeningParty):
    """Serves clients until stopped; one thread a client.

    The weights are encoded, masked and packed once; the key of their mask is made here and goes to the provider with each session.
    """

    role, expects = "server", "client"

    def __init__(self, model: ServedModel, connector: Connector, options: Options):
        """Raises InputError, naming the layer, for weights that do not fit the ring."""
        self._public = model.public
        self._weight_key, self._weights, self._biases, self._masked = new_key(), {}, {}, {}
        mask = Keystream(self._weight_key)
        mask.begin_attempt(0)
        for step, words, biases in model.public.plan(1).encoded_weights(model.weights):
            self._biases[step.op] = biases
            self._masked[step.op] = step.protocol.mask_weights(mask, words)
            self._weights[step.op] = step.protocol.server_weights(words)
        mask.erase()
        self._waiting: dict[bytes, queue.SimpleQueue] = {}
        super().__init__(connector, options)

    def _greet(self, connection: Connection, channel: Channel) -> None:
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
            self._session(session, channel)
        else:
            raise RunError("a connection for an unknown purpose")

    def _session(self, session: bytes, online: Channel) -> None:
        channels = [online]
        with ending_together(channels):
            with self._lock:
                if session in self._waiting:
                    raise RunError("a session identifier that is in use")
                arriving = self._waiting[session] = queue.SimpleQueue()
            try:
                key = new_key()
                provider = open_channel(self._connector.connect("provider"), "server", "provider", self._options, online.meter)
                channels.append(provider)
                fields = {"version": PROTOCOL_VERSION, "role": "server", "session": session.hex(), "model": self._public.to_plain()}
                provider.send_control("hello", fields, [key, self._weight_key])
                online.send_control("model", self._public.to_plain())
                online.receive_control("opened")  # waiting here, the server hears of a client that goes away instead
                try:
                    offline = arriving.get(timeout=self._options.timeout)
                except queue.Empty:
                    raise RunError(f"the client did not open its offline connection within {self._options.timeout:g} s") from None
                channels.append(offline)
                if offline.connection.peer != online.connection.peer:
                    raise RunError("the two connections of a session are of two different keys")
            finally:
                with self._lock:
                    del self._waiting[session]
            for channel in channels:
                channel.session = session
            offline.meter = online.meter
            self._set_up(offline)
            warm_up(self._public.precision)
            if text_field(provider.receive_control("ready"), "fingerprint") != self._public.fingerprint:
                raise RunError("the provider confirmed another model")
            online.send_control("ready", {})
            log.info("session %s: a client at %s", session.hex()[:8], online.connection.where)
            stream = Keystream(key)
            try:
                self._answer(online, offline, provider, stream)
                log.info("session %s: ended", session.hex()[:8])
            finally:
                stream.erase()

    def _set_up(self, offline: Channel) -> None:
        for op, message in self._masked.items():
            offline.send(op, [message], "setup")

    def _answer(self, online: Channel, offline: Channel, provider: Channel, stream: Keystream) -> None:
        dealt, prepared = PacedReceiver(provider), PacedReceiver(offline)
        while True:
            request = online.receive_control("infer", "bye", timeout=None)
            if request.kind == "bye":
                return
            attempt = number_field(request, "attempt")
            plan = checked_plan(self._public, number_field(request, "batch"))
            stream.begin_attempt(attempt)
            online.attempt = offline.attempt = provider.attempt = attempt
            before = provider.meter.counts()
            usage, seconds = Usage(), [0.0] * len(plan.steps)
            role = Server(attempt, self._weights, self._biases, stream, dealt, prepared, online, self._options.threads)
            inference.serve(role, plan, noting(seconds))
            stream.end_attempt(attempt)
            for receiver in (dealt, prepared):
                receiver.settle()
            fields = usage.fields() | {"layers": seconds}
            from_provider = {
                key: count for key, count in difference(provider.meter.counts(), before).items() if key[0] == ("provider", "server")
            }
            log.info("session %s: %d image(s) in %.2f s", online.session.hex()[:8], plan.batch, fields["seconds"])
            online.send_control("done", fields | {"dealt": [size for size, _ in by_step(plan, from_provider)]})
