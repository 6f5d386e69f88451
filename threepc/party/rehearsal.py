"""A party's own part of one inference, with nobody, before it says that it is ready: so a session's first image costs what later ones cost.

What makes a first image slow is memory that the operating system hands out page by page, and weights that no cache has seen. A rehearsal
touches both. It draws from keys of its own that are thrown away, and takes zeros for every message, so it computes nothing about anybody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.plan.schedule import Plan
from threepc.prf import Keystream, new_key
from threepc.protocol.roles import Client, Provider, Server, Weights
from threepc.protocol.steps import ServerInputStep, Step
from threepc.ring import word_of
from threepc.transport.channel import Channel
from threepc.transport.framing import Layout

LIMIT_S = 2.0
"""A rehearsal ends after this many seconds, since others wait: by then most of the memory has been touched."""

_done: set[tuple[str, str]] = set()
_lock = threading.Lock()


class _TooLongError(Exception):
    """The limit is reached."""


class _Nobody:
    """The other end of every channel: hears nothing, says zeros."""

    def send(self, op: int, parts: Sequence[np.ndarray], phase: str) -> None:
        """As `Channel.send`."""

    def receive(self, op: int, layout: Layout) -> list[np.ndarray]:  # noqa: ARG002 - every step hears zeros
        """As `Channel.receive`."""
        return [np.zeros(shape, dtype) for dtype, shape in layout]


def rehearse_provider(model: PublicModel, weights: Weights, memory: int, threads: int) -> None:
    """P deals once for nobody. weights: the masks of every linear layer; memory: bytes that an inference may take. Once in a process and model."""
    if plan := _first("provider", model, memory):
        with _stream() as with_client, _stream() as with_server, contextlib.suppress(_TooLongError):
            inference.deal(Provider(0, weights, with_client, with_server, _Nobody(), _Nobody(), threads), plan, _within_limit())


def rehearse_server(model: PublicModel, weights: Weights, biases: Mapping[int, np.ndarray], memory: int, budget: int, threads: int) -> None:
    """S serves once for nobody. Arguments as of `rehearse_provider`; biases: by op; budget: bytes that may wait for it on a connection."""
    if plan := _first("server", model, memory):
        ahead = sum(min(size, budget) for link, size in plan.cost.offline.items() if link.endswith("->server"))
        # what others deal and prepare lies there before it is used
        arriving = np.ones(max(0, min(ahead, memory - plan.held_bytes)), np.uint8)
        with _stream() as stream, contextlib.suppress(_TooLongError):
            nobody = _Nobody()
            role = Server(0, weights, biases, stream, nobody, nobody, cast("Channel", nobody), threads)
            given = {step.name: step.result.array(None) for step in plan.steps if isinstance(step, ServerInputStep)}
            inference.serve(role, plan, _within_limit(), given=given)
        del arriving


def rehearse_client(model: PublicModel, weights: Weights, memory: int, threads: int) -> None:
    """C prepares and infers once with nobody, in two threads as for an image. Arguments as of `rehearse_provider`, the weights masked ones."""
    if plan := _first("client", model, memory):
        with _stream() as stream:
            nobody, within = _Nobody(), _within_limit()
            role = Client(0, weights, stream, nobody, nobody, cast("Channel", nobody), threads)
            prepared = _Prepared()

            def prepare() -> None:
                with contextlib.suppress(_TooLongError):
                    prepared.kept = inference.prepare(role, plan, prepared.masked, within)

            thread = threading.Thread(target=prepare, name="rehearsal", daemon=True)
            thread.start()
            thread.join()
            if prepared.kept:
                with contextlib.suppress(_TooLongError):
                    zeros = np.zeros((1, *model.graph.input.shape), word_of(model.precision.bits))
                    inference.infer(role, plan, zeros, prepared, within)


class _Prepared:
    """What `prepare` leaves to `infer`."""

    mask: np.ndarray

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def masked(self, mask: np.ndarray) -> None:
        """Keep the mask of the input."""
        self.mask = mask


def _first(role: str, model: PublicModel, memory: int) -> Plan | None:
    """The plan of one image the first time that a role of this process meets a model that fits in its memory, else None."""
    plan, name = model.plan(1), (role, model.fingerprint)
    with _lock:
        if name in _done or plan.held_bytes > memory:
            return None
        _done.add(name)
    return plan


@contextlib.contextmanager
def _stream() -> Iterator[Keystream]:
    stream = Keystream(new_key())
    stream.begin_attempt(0)
    try:
        yield stream
    finally:
        stream.erase()


def _within_limit() -> Callable[[int, Step, float], None]:
    """A note of steps that ends a rehearsal at its limit."""
    until = time.monotonic() + LIMIT_S

    def note(_: int, __: Step, ___: float) -> None:
        if time.monotonic() > until:
            raise _TooLongError

    return note
