"""Server and provider as threads over the in-memory connector, and clients, honest or written by hand."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import torch

from tests.graph.building import Builder
from threepc.graph.clear import evaluate
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel, ServedModel
from threepc.party.connector import MemoryConnector
from threepc.party.provider import ProviderParty
from threepc.party.server import ServerParty
from threepc.party.session import Options, new_session
from threepc.plan.precision import Precision
from threepc.prf import new_key
from threepc.transport.channel import Channel
from threepc.transport.framing import PROTOCOL_VERSION

CARD = ModelCard("small", Preprocessing((9, 9)))


def small_model(channels: int = 4, bits: int = 48, seed: int = 0) -> ServedModel:
    """A convolution, a ReLU, max pooling, a classifier."""
    net = Builder(3, 9, 9, seed=seed)
    x = net.maxpool(net.relu(net.conv("input", channels)), 3, 2, 1)
    graph, weights = net.output(net.conv(net.avgpool(x), 5, 1))
    return ServedModel(PublicModel(graph, Precision.default(bits), None, CARD), weights)


def told_model(channel: Channel) -> PublicModel:
    """What a server tells of its model, without the digest of its masked weights."""
    fields = channel.receive_control("model").fields
    return PublicModel.from_plain({key: value for key, value in fields.items() if key != "weights"})


def images(count: int = 1, seed: int = 0) -> np.ndarray:
    """Random images for `small_model`."""
    return np.random.default_rng(seed).normal(size=(count, 3, 9, 9))


def clear(model: ServedModel, x: np.ndarray) -> np.ndarray:
    """The logits in the clear."""
    graph = model.public.graph
    return evaluate(graph, model.weights, torch.from_numpy(x))[graph.output.name].numpy()


def assert_close(model: ServedModel, x: np.ndarray, logits: np.ndarray, tolerance: float = 0.005) -> None:
    """Within 0.5 % of the largest logit, or another part of it."""
    wanted = clear(model, x)
    assert logits.shape == wanted.shape and np.abs(logits - wanted).max() < tolerance * np.abs(wanted).max()


class StillRunsError(Exception):
    """A thread that should have ended is still running."""


@contextlib.contextmanager
def serving(connector: MemoryConnector, model: ServedModel | None, options: Options, provider: bool = True):
    """Server (unless model is None) and provider (unless told otherwise), until the end; then every thread must end by itself."""
    before = set(threading.enumerate())
    parties = ([ServerParty(model, connector, options)] if model else []) + ([ProviderParty(connector, options)] if provider else [])
    threads = [threading.Thread(target=party.serve) for party in parties]
    for thread in threads:
        thread.start()
    try:
        yield parties
        sessions_end(before | set(threads))
    finally:
        for party in parties:
            party.stop()
        for thread in threads:
            thread.join()


def sessions_end(others: set[threading.Thread], seconds: float = 120.0) -> None:
    """Wait for all threads but `others` and those of kernels. Raises StillRunsError naming one that does not end."""
    until = time.monotonic() + seconds
    while left := [t for t in set(threading.enumerate()) - others if not t.name.startswith("tiles")]:
        if time.monotonic() > until:
            raise StillRunsError(f"{left[0].name} still runs")
        time.sleep(0.005)  # not join, which refuses a thread that is only about to start


class Stranger:
    """A client written by hand: says what a test wants it to say."""

    def __init__(self, connector: MemoryConnector, timeout: float = 60.0):
        self.connector, self.timeout, self.session, self.key = connector, timeout, new_session(), new_key()

    def connect(self, role: str) -> Channel:
        """A channel that has said nothing yet."""
        return Channel(self.connector.connect(role), ("client", role), timeout=self.timeout)

    def hello(self, **changes) -> dict:
        """The fields of a proper greeting, with changes."""
        return {"version": PROTOCOL_VERSION, "role": "client", "session": self.session.hex()} | changes

    def greet(self, party: str, attachments=(), **changes) -> Channel:
        """Connect to a party and greet it."""
        channel = self.connect(party)
        channel.send_control("hello", self.hello(**changes), attachments)
        return channel
