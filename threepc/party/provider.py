"""The crypto provider: deals correlated randomness to the server, session by session. It holds keys and public descriptions, nothing else."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field

from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.party.connector import Connector
from threepc.party.listening import GREETING_TIMEOUT, LOOK_S, ListeningParty
from threepc.party.memory import check_weights
from threepc.party.pacing import PacedSender
from threepc.party.record import by_link, difference
from threepc.party.rehearsal import rehearse_provider
from threepc.party.session import Options, check_ahead, ending_together, key_text, next_request, requested, session_field, text_field
from threepc.party.tracing import noting
from threepc.party.usage import Usage, counted
from threepc.party.warmup import warm_up_in_session
from threepc.prf import KEY_BYTES, Keystream
from threepc.protocol.roles import Provider, Weights
from threepc.transport.channel import Channel
from threepc.transport.framing import PROTOCOL_VERSION, Control

KEPT_MASKS = 4
"""Of so many models the packed masks are kept."""


@dataclass
class _Meeting:
    """The two halves of a session that find each other here."""

    arrived: threading.Condition = field(default_factory=threading.Condition)
    halves: dict[str, tuple[Channel, Control]] = field(default_factory=dict)
    over: bool = False
    """Whether one of them runs the session, or has given up waiting."""


class ProviderParty(ListeningParty):
    """Serves sessions until stopped. The packed masks of the models last dealt for are kept for their next clients."""

    role = "provider"

    def __init__(self, connector: Connector, options: Options) -> None:
        self._meetings: dict[bytes, _Meeting] = {}
        self._packed: dict[bytes, Weights] = {}
        super().__init__(connector, options)

    def stop(self) -> None:
        """End `serve` and all connections, and wait for no other half any more."""
        super().stop()
        with self._lock:
            meetings = list(self._meetings.values())
        for meeting in meetings:
            with meeting.arrived:
                meeting.arrived.notify_all()

    def _greet(self, channel: Channel) -> None:
        hello = channel.receive_control("hello", timeout=GREETING_TIMEOUT)
        role, session = text_field(hello, "role"), session_field(hello)
        if role not in ("client", "server"):
            raise RunError("a greeting of an unknown role")
        if not self._connector.is_known(role, channel.connection.peer):
            raise RunError(f"a party calls itself the {role}, but its key is not that of a {role}")
        if hello.fields.get("purpose") == "version":
            self._tell_version(channel)
            return
        channel.identify(role, self._options.shaper("provider", role))
        if role == "server":  # also where no key has said so
            channel.connection.name = f"the server at {channel.connection.where}"
        other = "server" if role == "client" else "client"
        with self._lock:
            meeting = self._meetings.setdefault(session, _Meeting())
        with meeting.arrived:
            if role in meeting.halves or meeting.over:
                raise RunError(f"a second {role} in one session, or one that the {other} no longer waits for")
            meeting.halves[role] = (channel, hello)
            meeting.arrived.notify_all()
            end = time.monotonic() + self._options.timeout
            while len(meeting.halves) < 2 and not self._stopping.is_set() and not channel.connection.has_ended:
                if not meeting.arrived.wait(min(LOOK_S, max(end - time.monotonic(), 0))) and time.monotonic() >= end:
                    break
            complete, is_first, meeting.over = len(meeting.halves) == 2, not meeting.over, True
        with self._lock:
            self._meetings.pop(session, None)
        if not complete and self._stopping.is_set():
            raise RunError("the provider is being stopped", "stopped")
        if not complete and channel.connection.has_ended:
            raise RunError(f"{channel.connection.name} went away before the {other} came", "lost")
        if not complete:
            raise RunError(f"the {other} did not reach the provider within {self._options.timeout:g} s", "silent")
        if is_first:
            self._session(session, meeting.halves)

    def _session(self, session: bytes, halves: dict[str, tuple[Channel, Control]]) -> None:
        (client, client_hello), (server, server_hello) = halves["client"], halves["server"]
        with counted(session), ending_together([client, server]):
            model, keys = compare(client_hello, server_hello)
            if server_hello.fields.get("client") != key_text(client.connection.peer):
                raise RunError("the client that reached the server has another key than the one that reached the provider")
            self._options.accept(model)
            check_weights(model, self._options.memory, "the provider")
            check_ahead(model, self._options, self.role, client_hello)
            for channel in (client, server):
                channel.session = session
            streams = Keystream(keys[0]), Keystream(keys[1])
            try:
                warm_up_in_session(model)
                weights = self._weight_masks(model, keys[2])
                rehearse_provider(model, weights, self._options.memory, self._options.threads)
                for channel in (client, server):
                    channel.send_control("ready", {"fingerprint": model.fingerprint})
                client.meter = server.meter
                told, paced, where = (
                    PacedSender(client, self._options.budget),
                    PacedSender(server, self._options.budget),
                    f"{client.connection.where} with the server at {server.connection.where}",
                )
                with self.observation.session(session, self.called(client.connection), where):
                    while request := next_request(client, "deal", self._options.idle, credit=told.take):
                        with self.inferring():
                            self._deal(request, model, weights, told, paced, streams)
            finally:
                for stream in streams:
                    stream.erase()

    def _weight_masks(self, model: PublicModel, key: bytes) -> Weights:
        """L_W of every linear layer, packed. A server's key stands for one model in one ring and precision for as long as the server runs."""
        name = hashlib.sha256(key + model.fingerprint.encode()).digest()
        packed = self._packed.get(name)
        if packed is None:
            stream = Keystream(key)
            stream.begin_attempt(0)
            packed = {step.op: step.protocol.provider_weights(stream) for step in model.plan(1).holding}
            stream.erase()
        others = [(other, weights) for other, weights in self._packed.items() if other != name]
        self._packed = dict([*others[1 - KEPT_MASKS :], (name, packed)])
        return packed

    def _deal(
        self,
        request: Control,
        model: PublicModel,
        weights: Weights,
        told: PacedSender,
        paced: PacedSender,
        streams: tuple[Keystream, Keystream],
    ) -> None:
        """Deal for one inference. told, paced: to the client and to the server; streams: with them."""
        client = told.channel
        attempt, plan = requested(model, request, self._options, self.role)
        for stream in streams:
            stream.begin_attempt(attempt)
        client.attempt = paced.channel.attempt = attempt
        before, usage, seconds = paced.channel.meter.counts(), Usage(client.session), [0.0] * len(plan.steps)
        note = noting(self._options.trace, f"session {client.session.hex()[:8]}", inference.noting(seconds))
        inference.deal(Provider(attempt, weights, *streams, paced, told, self._options.threads), plan, note)
        for stream in streams:
            stream.end_attempt(attempt)
        fields = usage.fields()
        links = by_link(difference(paced.channel.meter.counts(), before))
        self.observation.inferred(client.session, plan.batch, fields["seconds"], links)
        client.send_control("dealt", fields | {"layers": seconds, "arrives": paced.channel.arrives})


def compare(client_hello: Control, server_hello: Control) -> tuple[PublicModel, list[bytes]]:
    """The model that client and server agree on, and k_CP, k_SP and the key of the weight mask. Raises RunError naming a difference."""
    for hello in (client_hello, server_hello):
        if hello.fields.get("version") != PROTOCOL_VERSION:
            raise RunError(f"a party speaks protocol version {hello.fields.get('version')}, the provider {PROTOCOL_VERSION}")
    try:
        model = PublicModel.from_plain(server_hello.fields["model"])
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise RunError(f"the server's description of its model is malformed: {error}") from None
    if client_hello.fields.get("fingerprint") != model.fingerprint:
        raise RunError("client and server disagree on the model, its ring, precision or relu spec: their fingerprints differ")
    keys = [*client_hello.attachments, *server_hello.attachments]
    if len(client_hello.attachments) != 1 or len(server_hello.attachments) != 2 or any(len(k) != KEY_BYTES for k in keys):
        raise RunError("a greeting with another number or size of keys than expected")
    return model, keys
