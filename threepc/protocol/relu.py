"""ReLU, block ReLU and clipped ReLU with the truncation of the product before it: shares of z -> masked activation u + d of b * (z >> shift).

Four online messages, S first: x and S's leaf wires; C's leaf and group wires; S's group wires and bit of b^; C's bit of b^ and v. Built from
opening.py, drelu.py, gate.py and, for channels that only pass, identity.py, whose messages travel with them. For a patch all parties decide
on the sum of its opened values (P on the sum of their masks). A clip at c is ReLU(z) - ReLU(z - c) = (b_0 XOR b_c) z + b_c c with a second
decision b_c on x - c from the same tables: one gate, with a constant. Other bounds, slopes and kinks are public: C and S shift x, the gate has
slopes, S adds what is left.
Both a value and its ReLU come from one opening: the value as identity.py lifts it, with a mask of its own; C knows the carries and needs no message.
Semi-honest, one corruption; security is that of its parts, which use separate stream addresses. Gorski, Jevnisek, Avidan (arXiv 2304.10442).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.graph.relu_spec import IDENTITY, ZERO
from threepc.kernels.gate import Cut, Lift, Slopes
from threepc.kernels.runs import GateInput, GateMasks
from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.drelu import NOTHING, DRelu, opened
from threepc.protocol.gate import Gate
from threepc.protocol.identity import Identity
from threepc.protocol.opening import Opening, draw_words
from threepc.protocol.patches import Patches
from threepc.protocol.roles import Client, OpenStream, Provider, Server
from threepc.ring import word_constant, word_of

OPS = 2
"""Addresses that one ReLU takes: itself, and the channels that pass."""


@dataclass(frozen=True)
class Relu:
    """shape (N, C, H, W); of z the bits that `cut` keeps are opened; the result is lifted to `ring` bits.

    low_bit, width: the window of the comparison within the opened bits. sizes: a patch size for every channel, None for plain ReLU.
    clip: the bound in units of the opened value's last place, a multiple of 2^low_bit, or None. start: is subtracted from the opened value before
    all this, a multiple of 2^low_bit too. offset: is added to the result, in the same units. slopes: of a negative value and of one that is not
    (and not beyond the bound), None for 0 and 1. both: the result has twice the channels, each one's ReLU and then its value, from one opening.
    to_client: as of `DRelu`.
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
    to_client: bool = False

    def __post_init__(self) -> None:
        if self.slopes and self.slopes.below and self.clip is not None:
            raise ValueError("a clip is constant below")

    # What follows from that: the channels, and the protocols of both runs

    @cached_property
    def decide(self) -> list[int]:
        """Channels with a decision for each patch."""
        return [i for i, size in enumerate(self._every_size) if size not in (IDENTITY, ZERO)]

    @cached_property
    def through(self) -> list[int]:
        """Channels that only pass, or also where the result has both; those in neither list are zero."""
        return list(range(self.shape[1])) if self.both else [i for i, size in enumerate(self._every_size) if size == IDENTITY]

    @property
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

    def _elements(self, channels: list[int]) -> int:
        n, _, h, w = self.shape
        return n * len(channels) * h * w

    @cached_property
    def opening(self) -> Opening:
        """Of the channels that decide."""
        return Opening(self.op, self._elements(self.decide), self.cut)

    @cached_property
    def drelu(self) -> DRelu:
        """A decision for every patch and threshold; sums over patches have no bits below the window."""
        count = self.shape[0] * self._all_patches.count
        low_bit = self.low_bit if self.patches is None else 0
        return DRelu(self.op, count, low_bit, self.width, len(self.thresholds), self.to_client)

    @cached_property
    def gate(self) -> Gate:
        """Of the channels that decide."""
        constant = self.clip if self.clip is None or self.slopes is None else scaled(self.clip, self.slopes.above, self.slopes.bits)
        return Gate(self.op, self.opening.count, Lift(self.ring, self.cut.kept_bits), constant, self.slopes)

    @cached_property
    def pass_opening(self) -> Opening:
        """Of the channels that only pass."""
        return Opening(self.op + 1, 0 if self.both else self._elements(self.through), self.cut)

    @cached_property
    def identity(self) -> Identity:
        """Of the channels that pass."""
        return Identity(self.op + 1, self._elements(self.through), Lift(self.ring, self.cut.kept_bits))

    @property
    def _carry_bytes(self) -> list[int]:
        """Of the part of message 1 with the carries; C knows them where it knows x."""
        return [self.identity.carry_bytes] if self.through and not self.both else []

    @property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        some, through = bool(self.decide), bool(self.through)
        told = "provider->client" if some and self.to_client else "provider->server"
        of_gates = {"provider->server": some * self.gate.dealt_bytes + through * self.identity.dealt_bytes}
        wires = some * (self.drelu.leaf_bytes + self.drelu.group_bytes + self.drelu.bit_bytes)
        return Cost(
            offline={
                **of_gates,
                told: some * self.drelu.dealt_bytes + of_gates.get(told, 0),
                "client->server": self.opening.message_bytes + self.pass_opening.message_bytes,
            },
            online={
                "server->client": some * self.opening.message_bytes + wires + sum(self._carry_bytes),
                "client->server": wires + some * self.gate.value_bytes + through * self.identity.reply_bytes,
            },
            messages=4 if some else 2 if through else 0,
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

    def _decision_values(self, x: np.ndarray) -> np.ndarray:
        """What each decision compares, a row a decision: the opened values less its threshold, or their sums over patches."""
        values = [self._sums(x - x.dtype.type(c) if c else x) for c in self.thresholds]
        return np.stack(values) if len(values) > 1 else values[0][None]

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return values if self.patches is None else self.patches.sums(values, self.shape[0], self.low_bit, self.cut.kept_bits)

    def _gate_bits(self, planes: np.ndarray) -> np.ndarray:
        """From bits of the decisions, or their masks, those of the gate, spread over pixels: b_0 XOR b_c, and b_c where there is a clip."""
        if self.patches is not None:
            planes = np.stack([self.patches.spread(p, self.shape[0]) for p in planes])
        return planes if self.clip is None else np.stack([planes[0] ^ planes[1], planes[1]])

    def _gate_input(self, x: np.ndarray, mine: np.ndarray, theirs: np.ndarray, beta: np.ndarray) -> GateInput:
        """From both halves of b^ and this party's betas."""
        return GateInput(x, self._gate_bits(opened(mine, theirs)), self._gate_bits(beta)[0])

    def _draw_masks(self, role: Client | Provider, open_stream: OpenStream) -> tuple[np.ndarray, np.ndarray]:
        """d of both runs."""
        runs = (self.op, self.gate.count), (self.op + 1, self.identity.count)
        d, passed_d = (draw_words(role, open_stream, op, Purpose.ACTIVATION, count, word_of(self.ring)) for op, count in runs)
        return d, passed_d

    # P

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """Deal to the server and return d. z: P's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        d, passed_d = self._draw_masks(provider, provider.with_client)
        parts = []
        if self.decide:
            r = self.opening.deal(provider, decided)
            dealt = self.drelu.deal(provider, self._sums(r))
            of_client, of_server = self.drelu.betas(dealt)
            masks = GateMasks(r, self._gate_bits(of_client), self._gate_bits(of_server), d)
            if self.to_client:
                provider.send_to_client(self.op, dealt.message)
            else:
                parts.append(dealt.message)
            parts.append(self.gate.deal(provider, masks))
        if self.through:
            parts.append(self.identity.deal(provider, r if self.both else self.pass_opening.deal(provider, passed), passed_d))
        if parts:
            provider.send_offline(self.op, *parts)
        return self._join(d, passed_d)

    # C

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """Send the server the client's half of the opening and return d. z: C's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        parts = [o.prepare(client, run) for o, run in ((self.opening, decided), (self.pass_opening, passed)) if o.count]
        if parts:
            client.send_offline(self.op, *parts)
        if self.decide and self.to_client:
            client.keep_dealt(self.op, self.drelu.dealt_bytes)
        return self._join(*self._draw_masks(client, client.with_provider))

    def infer(self, client: Client) -> None:
        """The client's two online messages."""
        drelu, through = self.drelu, self._carry_bytes
        if not self.decide:
            if through:
                (plane,) = client.receive_online(self.op, *through)
                client.send_online(self.op, self.identity.infer(client, plane.view(np.uint64)))
            return
        packed, leaves, *carries = client.receive_online(self.op, self.opening.message_bytes, drelu.leaf_bytes, *through)
        reply = [self.identity.infer(client, part.view(np.uint64)) for part in carries]
        x = self.opening.infer(client, packed)
        if self.both:
            reply = [self.identity.infer(client, self.identity.carries(client, x))]
        x = self._started(x)
        told = client.take_dealt(self.op) if self.to_client else []
        planes = drelu.infer_leaves(client, self._decision_values(x), leaves, *told)
        client.send_online(self.op, planes.leaf_wires, planes.group_wires, *reply)
        groups, theirs = client.receive_online(self.op, drelu.group_bytes, drelu.bit_bytes)
        mine = drelu.infer_bit(client, planes, groups)
        client.send_online(self.op, mine, self.gate.infer(client, self._gate_input(x, mine, theirs, planes.beta)))

    # S

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """The server's two online messages; returns u. z: S's summand (N, C, H, W)."""
        drelu, passed = self.drelu, np.empty(0, word_of(self.ring))
        runs = [(o, run) for o, run in zip((self.opening, self.pass_opening), self._split(z), strict=True) if o.count]
        if not runs:
            return self._join(passed, passed)
        through = [self.identity.dealt_bytes] if self.through else []
        told = [] if self.to_client else [drelu.dealt_bytes]
        dealt = server.receive_dealt(self.op, *([*told, self.gate.dealt_bytes] if self.decide else []), *through)
        if self.to_client:
            dealt.insert(0, NOTHING)
        halves = server.receive_prepared(self.op, *(o.message_bytes for o, _ in runs))
        values = [o.serve(server, run, half) for (o, run), half in zip(runs, halves, strict=True)]
        passing = values[-1][0]
        carries = [self.identity.carries(server, passing)] if self._carry_bytes else []
        reply_bytes = [self.identity.reply_bytes] if through else []
        if not self.decide:
            server.send_online(self.op, *carries)
            (last,) = server.receive_online(self.op, *reply_bytes)
            return self._join(passed, self.identity.serve(server, passing, last, dealt[-1]))
        x, packed = values[0]
        x = self._started(x)
        planes = drelu.serve_leaves(server, self._decision_values(x), dealt[0])
        server.send_online(self.op, packed, planes.leaf_wires, *carries)
        leaves, groups, *reply = server.receive_online(self.op, drelu.leaf_bytes, drelu.group_bytes, *reply_bytes)
        wires = drelu.serve_groups(server, planes, leaves, groups)
        server.send_online(self.op, wires.groups, wires.bit)
        if through:
            passed = self.identity.serve(server, passing, reply[0], dealt[-1])
        theirs, v = server.receive_online(self.op, drelu.bit_bytes, self.gate.value_bytes)
        u = self.gate.serve(server, self._gate_input(x, wires.bit, theirs, planes.beta), v, dealt[1])
        if self.offset:
            u += word_constant(self.offset, u.dtype)
        return self._join(u, passed)


def scaled(number: int, factor: int, bits: int) -> int:
    """number * factor / 2^bits, rounded."""
    return (number * factor + (1 << bits >> 1)) >> bits
