"""What every protocol of a ReLU layer shares: which channels decide, pass or are zero, openings, patches, truncation of what only passes.

relu.py decides in four online messages, quick_relu.py in two, late_relu.py in six. All begin with the opened values and end with u at S, d at C and P. Here
nothing decides: the messages of channels that only pass (identity.py) travel with those of the decisions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from threepc.graph.relu_spec import IDENTITY, ZERO
from threepc.kernels.gate import NARROW_LIFT, Cut, Lift, Slopes
from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.identity import Identity
from threepc.protocol.opening import Opening, draw_words
from threepc.protocol.patches import Patches
from threepc.protocol.roles import Client, OpenStream, Provider, Server, Turns, at_once, finished
from threepc.ring import word_constant, word_of

OPS = 2
"""Addresses that one ReLU takes: itself, and the channels that pass."""


class DecisionBytes(NamedTuple):
    """Bytes of what decides, besides the opened values: the parts that P deals to S, S's in message 1, all that S and that C send online.

    told: what P deals to C.
    """

    dealt: list[int]
    first: int
    server: int
    client: int
    told: int = 0


class Served(NamedTuple):
    """What S has once all offline messages are there.

    x: cut words less the start, padded; message: the parts of message 1 but for the decisions'; passing: x of what passes; dealt: P's parts.
    """

    x: np.ndarray
    message: list[np.ndarray]
    passing: np.ndarray
    dealt: list[np.ndarray]


@dataclass(frozen=True)
class ReluLayer(ABC):
    """shape (N, C, H, W); of z the bits that `cut` keeps are opened; the result is lifted to `ring` bits.

    low_bit, width: the window of the comparison within the opened bits. sizes: a patch size for every channel, None for plain ReLU.
    clip: the bound in units of the opened value's last place, a multiple of 2^low_bit, or None. start: is subtracted from the opened value before
    all this, a multiple of 2^low_bit too. offset: is added to the result, in the same units. slopes: of a negative value and of one that is not
    (and not beyond the bound), None for 0 and 1. both: the result has twice the channels, each one's ReLU and then its value, from one opening.
    """

    op: int
    shape: tuple[int, int, int, int]
    cut: Cut
    ring: int
    low_bit: int
    width: int
    sizes: tuple[tuple[int, int], ...] | None = None
    clip: int | None = None
    start: int = 0
    offset: int = 0
    slopes: Slopes | None = None
    both: bool = False

    messages: ClassVar[int]
    """One-way online messages of a layer that decides something."""

    def __post_init__(self) -> None:
        if self.slopes and self.slopes.below and self.clip is not None:
            raise ValueError("a clip is constant below")
        if self.slopes and self.slopes.bits > self.cut.kept_bits:
            raise ValueError("a carry times a slope has more bits than the ring")

    # What a protocol says of its decisions

    @property
    @abstractmethod
    def decision_bytes(self) -> DecisionBytes:
        """What they send, in bytes."""

    @property
    def kept_bytes(self) -> int:
        """What C keeps of the offline phase for its online messages."""
        return 0

    @abstractmethod
    def _deal_decisions(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
        """P: the parts for S. r: cut words, d: ring words, both padded."""

    def _keep(self, client: Client, d: np.ndarray) -> list[np.ndarray]:  # noqa: ARG002 - some protocols keep something
        """C, offline: `kept_bytes` for its online messages. d: ring words, padded."""
        return []

    @abstractmethod
    def _infer_decisions(self, client: Client, x: np.ndarray, first: np.ndarray, reply: list[np.ndarray]) -> Turns[None]:
        """C: the messages. x: cut words less the start; first: S's part of message 1; reply: goes with message 2."""

    @abstractmethod
    def _serve_decisions(self, server: Server, at: Served) -> Turns[tuple[np.ndarray, np.ndarray]]:
        """S: the messages; u of what decides and of what passes, flat."""

    # What follows from the fields: the channels, and the protocols of both runs

    @cached_property
    def decide(self) -> list[int]:
        """Channels with a decision for each patch."""
        return [i for i, size in enumerate(self._every_size) if size not in (IDENTITY, ZERO)]

    @cached_property
    def through(self) -> list[int]:
        """Channels that only pass, or also where the result has both; those in neither list are zero."""
        return list(range(self.shape[1])) if self.both else [i for i, size in enumerate(self._every_size) if size == IDENTITY]

    @cached_property
    def _every_size(self) -> tuple[tuple[int, int], ...]:
        return self.sizes or ((1, 1),) * self.shape[1]

    @cached_property
    def patches(self) -> Patches | None:
        """The patches of the channels that decide, None where every pixel is one."""
        patches = self._all_patches
        return None if patches.plain else patches

    @cached_property
    def _all_patches(self) -> Patches:
        return Patches(tuple(self._every_size[i] for i in self.decide), *self.shape[2:])

    @cached_property
    def thresholds(self) -> tuple[int, ...]:
        """What is subtracted before each decision, in units of the opened value's last place."""
        return (0,) if self.clip is None else (0, self.clip)

    @property
    def constant(self) -> int | None:
        """What a clip yields beyond its bound, less the offset."""
        if self.clip is None or self.slopes is None:
            return self.clip
        return scaled(self.clip, self.slopes.above, self.slopes.bits)

    def _elements(self, channels: list[int]) -> int:
        n, _, h, w = self.shape
        return n * len(channels) * h * w

    @cached_property
    def opening(self) -> Opening:
        """Of the channels that decide."""
        return Opening(self.op, self._elements(self.decide), self.cut)

    @property
    def decided(self) -> int:
        """Decisions: one for every patch and threshold."""
        return self._patch_count * len(self.thresholds)

    @cached_property
    def _patch_count(self) -> int:
        return self.shape[0] * self._all_patches.count

    @property
    def _low_bit(self) -> int:
        """Of a decision; sums over patches have no bits below the window."""
        return self.low_bit if self.patches is None else 0

    @property
    def _lift(self) -> Lift:
        return Lift(self.ring, self.cut.kept_bits)

    @cached_property
    def pass_opening(self) -> Opening:
        """Of the channels that only pass."""
        return Opening(self.op + 1, 0 if self.both else self._elements(self.through), self.cut)

    @property
    def _gate_slopes(self) -> Slopes | None:
        """The slopes; 0 and 1 are None where the gate's masks of a narrow lift do."""
        wide = self._lift.bits - self._lift.kept_bits > NARROW_LIFT
        return Slopes(0, 1, 0) if self.slopes is None and wide else self.slopes

    @cached_property
    def identity(self) -> Identity:
        """Of the channels that pass."""
        return Identity(self.op + 1, self._elements(self.through), self._lift)

    @cached_property
    def _carry_bytes(self) -> list[int]:
        """Of the part of message 1 with the carries; C knows them where it knows x."""
        return [self.identity.carry_bytes] if self.through and not self.both else []

    @cached_property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        through, of_decisions = bool(self.through), self.decision_bytes if self.decide else DecisionBytes([], 0, 0, 0)
        return Cost(
            offline={
                "provider->server": sum(of_decisions.dealt) + through * self.identity.dealt_bytes,
                "client->server": self.opening.message_bytes + self.pass_opening.message_bytes,
                **({"provider->client": of_decisions.told} if of_decisions.told else {}),
            },
            online={
                "server->client": bool(self.decide) * self.opening.message_bytes + of_decisions.server + sum(self._carry_bytes),
                "client->server": of_decisions.client + through * self.identity.reply_bytes,
            },
            messages=self.messages if self.decide else 2 if through else 0,
        )

    # Layout of the tensor: the channels that decide and those that pass, each as one run

    def _split(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(self.decide) == self.shape[1]:
            return z.reshape(-1), z[:0].reshape(-1)
        if len(self.through) == self.shape[1]:
            return z[:0].reshape(-1), z.reshape(-1)
        return z[:, self.decide].reshape(-1), z[:, self.through].reshape(-1)

    def _join(self, decided: np.ndarray, passed: np.ndarray) -> np.ndarray:
        n, c, h, w = self.shape
        if self.both:
            halves = [run[: n * c * h * w].reshape(n, c, 1, h * w) for run in (decided, passed)]
            return np.concatenate(halves, axis=2).reshape(n, 2 * c, h, w)
        for channels, run in ((self.decide, decided), (self.through, passed)):
            if len(channels) == c:
                return run[: n * c * h * w].reshape(self.shape)
        out = np.zeros(self.shape, word_of(self.ring))
        for channels, run in ((self.decide, decided), (self.through, passed)):
            if channels:
                out[:, channels] = run[: self._elements(channels)].reshape(n, len(channels), h, w)
        return out

    def _started(self, x: np.ndarray) -> np.ndarray:
        """An opened value less the start. C and S do so; P's mask stays."""
        return x - word_constant(self.start, x.dtype) if self.start else x

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return values if self.patches is None else self.patches.sums(values, self.shape[0], self.low_bit, self.cut.kept_bits)

    def _spread(self, planes: np.ndarray) -> np.ndarray:
        """Rows of planes of decisions, over pixels."""
        return planes if self.patches is None or not len(planes) else np.stack([self.patches.spread(p, self.shape[0]) for p in planes])

    def _draw_masks(self, role: Client | Provider, open_stream: OpenStream) -> tuple[np.ndarray, np.ndarray]:
        """d of both runs."""
        runs = (self.op, self.opening.count), (self.op + 1, self.identity.count)
        d, passed_d = (draw_words(role, open_stream, op, Purpose.ACTIVATION, count, word_of(self.ring)) for op, count in runs)
        return d, passed_d

    # P

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """Deal to the server, and perhaps to the client, and return d. z: P's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        d, passed_d = self._draw_masks(provider, provider.with_client)
        parts = []
        if self.decide:
            r = self.opening.deal(provider, decided)
            parts += self._deal_decisions(provider, r, d)
        if self.through:
            parts.append(self.identity.deal(provider, r if self.both else self.pass_opening.deal(provider, passed), passed_d))
        if parts:
            provider.send_offline(self.op, *parts)
        return self._join(d, passed_d)

    def dealing(self, provider: Provider, z: np.ndarray) -> Turns[np.ndarray]:
        """As `deal`, for who deals pieces in turn."""
        return at_once(self.deal(provider, z))

    # C

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """Send the server the client's half of the opening and return d. z: C's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        parts = [o.prepare(client, run) for o, run in ((self.opening, decided), (self.pass_opening, passed)) if o.count]
        if self.decide and self.decision_bytes.told:
            client.keep_dealt(self.op, self.decision_bytes.told)  # before the message that the server answers, after which `infer` takes it
        d, passed_d = self._draw_masks(client, client.with_provider)
        if self.decide and (kept := self._keep(client, d)):
            client.kept[self.op + 1] = kept  # at op, what is dealt to C
        if parts:
            client.send_offline(self.op, *parts)
        return self._join(d, passed_d)

    def preparing(self, client: Client, z: np.ndarray) -> Turns[np.ndarray]:
        """As `prepare`, for who prepares pieces in turn."""
        return at_once(self.prepare(client, z))

    def infer(self, client: Client) -> None:
        """The client's online messages."""
        finished(self.inferring(client))

    def inferring(self, client: Client) -> Turns[None]:
        """As `infer`, in turns."""
        through = self._carry_bytes
        if through or self.decide:
            yield
        if not self.decide:
            if through:
                (plane,) = client.receive_online(self.op, *through)
                client.send_online(self.op, self.identity.infer(client, plane.view(np.uint64)))
            return
        packed, first, *carries = client.receive_online(self.op, self.opening.message_bytes, self.decision_bytes.first, *through)
        reply = [self.identity.infer(client, part.view(np.uint64)) for part in carries]
        x = self.opening.infer(client, packed)
        if self.both:
            reply = [self.identity.infer(client, self.identity.carries(client, x))]
        yield from self._infer_decisions(client, self._started(x), first, reply)

    # S

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """The server's online messages; returns u. z: S's summand (N, C, H, W)."""
        return finished(self.serving(server, z))

    def serving(self, server: Server, z: np.ndarray) -> Turns[np.ndarray]:
        """As `serve`, in turns."""
        nothing = np.empty(0, word_of(self.ring))
        runs = [(o, run) for o, run in zip((self.opening, self.pass_opening), self._split(z), strict=True) if o.count]
        if not runs:
            return self._join(nothing, nothing)
        through = [self.identity.dealt_bytes] if self.through else []
        dealt = server.receive_dealt(self.op, *(self.decision_bytes.dealt if self.decide else []), *through)
        halves = server.receive_prepared(self.op, *(o.message_bytes for o, _ in runs))
        values = [o.serve(server, run, half) for (o, run), half in zip(runs, halves, strict=True)]
        passing = values[-1][0]
        carries = [self.identity.carries(server, passing)] if self._carry_bytes else []
        x, packed = values[0]
        at = Served(self._started(x), [packed, *carries], passing, dealt)
        if not self.decide:
            server.send_online(self.op, *carries)
            yield
            return self._join(nothing, self._serve_passing(server, at, server.receive_online(self.op, *self._reply_bytes)))
        u, passed = yield from self._serve_decisions(server, at)
        if self.offset:
            u += word_constant(self.offset, u.dtype)
        return self._join(u, passed)

    @cached_property
    def _reply_bytes(self) -> list[int]:
        return [self.identity.reply_bytes] if self.through else []

    def _serve_passing(self, server: Server, at: Served, reply: list[np.ndarray]) -> np.ndarray:
        """u of what passes, flat."""
        return self.identity.serve(server, at.passing, reply[0], at.dealt[-1]) if reply else np.empty(0, word_of(self.ring))


def scaled(number: int, factor: int, bits: int) -> int:
    """number * factor / 2^bits, rounded."""
    return (number * factor + (1 << bits >> 1)) >> bits
