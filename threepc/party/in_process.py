"""The three roles of the protocols within one process, for whoever looks at all of them at once: warming up, the debug run, tests, benchmarks.

Parties that listen or connect never come here: whoever holds all three roles holds every secret.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self, TypeVar

import numpy as np

from threepc.errors import RunError
from threepc.graph.ir import Weights
from threepc.kernels.convolution import PackedWeight
from threepc.party import inference
from threepc.party.inference import Note, nothing
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, Provider, Server
from threepc.transport import memory
from threepc.transport.channel import TIMEOUT_S, Channel
from threepc.transport.meter import Meter

S = TypeVar("S")
C = TypeVar("C")


@dataclass
class SharedWeights:
    """What setup leaves with each role, by op: the weights as kernels take them, the server's biases, and what it sent the client."""

    provider: dict[int, PackedWeight] = field(default_factory=dict)
    server: dict[int, PackedWeight] = field(default_factory=dict)
    client: dict[int, PackedWeight] = field(default_factory=dict)
    biases: dict[int, np.ndarray] = field(default_factory=dict)
    messages: dict[int, np.ndarray] = field(default_factory=dict)


def share_weights(plan: Plan, weights: Weights, key: bytes) -> SharedWeights:
    """Mask a network's weights with the streams of `key`, as server and provider do. Raises InputError for what does not fit the ring."""
    shared, at_server, at_provider = SharedWeights(), _begun(Keystream, key, 0), _begun(Keystream, key, 0)
    for step, words, biases in plan.encoded_weights(weights):
        shared.biases[step.op] = biases
        if words is None:
            continue
        shared.messages[step.op] = step.protocol.mask_weights(at_server, words)
        shared.server[step.op] = step.protocol.server_weights(words)
        shared.provider[step.op] = step.protocol.provider_weights(at_provider)
        shared.client[step.op] = step.protocol.client_weights(shared.messages[step.op])
    return shared


class ThreeRoles:
    """One attempt of the roles `provider`, `client` and `server`, their messages counted in `meters`. A context manager.

    dealt, told, prepared, online: both ends of each channel, that of the provider or the client first; told: from provider to client. streams: of each holder with another one.
    """

    new_stream: type[Keystream] = Keystream
    new_channel: type[Channel] = Channel
    timeout: float | None = TIMEOUT_S
    """Seconds that one of them waits for another; None for as long as it takes."""

    def __init__(
        self, shared: SharedWeights | None = None, keys: tuple[bytes, bytes] | None = None, attempt: int = 0, threads: int = 1
    ) -> None:
        """keys: client's and server's with the provider, fresh ones unless given."""
        shared, (with_client, with_server) = shared or SharedWeights(), keys or (new_key(), new_key())
        holders = {"CP": with_client, "PC": with_client, "SP": with_server, "PS": with_server}
        self.streams = streams = {name: _begun(self.new_stream, key, attempt) for name, key in holders.items()}
        self.meters = {role: Meter() for role in ("provider", "server", "client")}
        self.dealt, self.prepared, self.online = (self._pair(role, attempt) for role in ("provider", "client", "client"))
        self.told = self._pair("provider", attempt, "client")
        self.provider = Provider(attempt, shared.provider, streams["PC"], streams["PS"], self.dealt[0], self.told[0], threads)
        self.client = Client(attempt, shared.client, streams["CP"], self.told[1], self.prepared[0], self.online[0], threads)
        server_ends = self.dealt[1], self.prepared[1], self.online[1]
        self.server = Server(attempt, shared.server, shared.biases, streams["SP"], *server_ends, threads)

    def _pair(self, role: str, attempt: int, other: str = "server") -> tuple[Channel, Channel]:
        one, two = memory.pair()
        ends = (
            self.new_channel(one, (role, other), meter=self.meters[role], timeout=self.timeout),
            self.new_channel(two, (other, role), meter=self.meters[other], timeout=self.timeout),
        )
        for channel in ends:
            channel.attempt = attempt
        return ends

    def together(self, serve: Callable[[Server], S], infer: Callable[[Client], C]) -> tuple[S, C]:
        """The online phase: serve(server) in a thread, infer(client) here; their results. Raises what went wrong first."""
        served: list[S] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                served.append(serve(self.server))
            except BaseException as error:  # noqa: BLE001 - it is raised in the other thread, which waits
                errors.append(error)
                self.close()

        thread = threading.Thread(target=run, name="server's role")
        thread.start()
        try:
            inferred = infer(self.client)
        except BaseException as error:
            earlier = errors[:1]  # what the server says once its channels are closed only follows from this
            self.close()
            thread.join()
            if isinstance(error, RunError) and earlier:
                raise earlier[0] from error
            raise
        thread.join()
        if errors:
            raise errors[0]
        return served[0], inferred

    def infer(self, plan: Plan, words: np.ndarray, note: Note = nothing, given: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Both phases of a plan, one after the other: outputs (N, C, H, W), float64.

        words: of the images; note: of provider and client; given: the server's own inputs, as `inference.serve` takes them.
        """
        inference.deal(self.provider, plan, note)
        masks: list[np.ndarray] = []
        kept = inference.prepare(self.client, plan, masks.append)
        prepared = _Prepared(masks[0], kept)
        _, outputs = self.together(
            lambda server: inference.serve(server, plan, given=given), lambda client: inference.infer(client, plan, words, prepared, note)
        )
        return outputs

    def close(self) -> None:
        """Close every channel."""
        for ends in (self.dealt, self.told, self.prepared, self.online):
            for channel in ends:
                channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Prepared(NamedTuple):
    mask: np.ndarray
    kept: list[np.ndarray]


def _begun(kind: type[Keystream], key: bytes, attempt: int) -> Keystream:
    stream = kind(key)
    stream.begin_attempt(attempt)
    return stream
