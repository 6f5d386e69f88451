"""ReLU, block ReLU and clipped ReLU with the truncation of the product before it: shares of z -> masked activation u + d of b * (z >> shift).

Four online messages, S first: x and S's leaf wires; C's leaf and group wires; S's group wires and bit of b^; C's bit of b^ and v. Built from
opening.py, drelu.py, gate.py and, for channels that only pass, identity.py, whose messages travel with them. For a patch all parties decide
on the sum of its opened values (P on the sum of their masks). A clip at c is ReLU(z) - ReLU(z - c) = (b_0 XOR b_c) z + b_c c with a second
decision b_c on x - c from the same tables: one gate, with a constant.
Semi-honest, one corruption; security is that of its parts, which use separate stream addresses. Gorski, Jevnisek, Avidan (arXiv 2304.10442).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.drelu import DRelu, opened
from threepc.protocol.gate import Gate
from threepc.protocol.identity import Identity
from threepc.protocol.opening import Opening, draw_words
from threepc.protocol.patches import IDENTITY, ZERO, Patches
from threepc.protocol.roles import Client, Provider, Server
from threepc.ring import word_of

OPS = 2
"""Addresses that one ReLU takes: itself, and the channels that pass."""


@dataclass(frozen=True)
class Relu:
    """shape (N, C, H, W); z has `bits` bits, of which shift..shift+cut-1 are opened; the result is lifted to `ring` bits.

    first, width: the window of the comparison within the opened bits. sizes: a patch size for every channel, None for plain ReLU.
    clip: the bound in units of the opened value's last place, a multiple of 2^first, or None.
    """

    op: int
    shape: tuple[int, int, int, int]
    bits: int
    shift: int
    cut: int
    ring: int
    first: int
    width: int
    sizes: tuple[tuple[int, int], ...] | None = None
    clip: int | None = None

    def __post_init__(self):
        n, c, h, w = self.shape
        sizes = self.sizes or ((1, 1),) * c
        decide = [i for i, s in enumerate(sizes) if s not in (IDENTITY, ZERO)]
        through = [i for i, s in enumerate(sizes) if s == IDENTITY]
        patches = Patches(tuple(sizes[i] for i in decide), h, w)
        count, passed = n * len(decide) * h * w, n * len(through) * h * w
        put = lambda name, value: object.__setattr__(self, name, value)
        put("decide", decide)
        put("through", through)
        put("patches", None if patches.plain else patches)
        put("decisions", n * patches.count)
        first = self.first if patches.plain else 0
        put("opening", Opening(self.op, count, self.bits, self.shift, self.cut))
        put("thresholds", (0,) if self.clip is None else (0, self.clip))
        put("drelu", DRelu(self.op, self.decisions, first, self.width, len(self.thresholds)))
        put("gate", Gate(self.op, count, self.ring, self.cut, self.clip))
        put("pass_opening", Opening(self.op + 1, passed, self.bits, self.shift, self.cut))
        put("identity", Identity(self.op + 1, passed, self.ring, self.cut))

    @property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        some, through = bool(self.decide), bool(self.through)
        wires = some * (self.drelu.leaf_bytes + self.drelu.group_bytes + self.drelu.bit_bytes)
        return Cost(
            offline={
                "provider->server": some * (self.drelu.dealt_bytes + self.gate.dealt_bytes) + through * self.identity.dealt_bytes,
                "client->server": self.opening.message_bytes + self.pass_opening.message_bytes,
            },
            online={
                "server->client": some * self.opening.message_bytes + wires + through * self.identity.carry_bytes,
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
        for channels, run in ((self.decide, decided), (self.through, passed)):
            if len(channels) == c:
                return run[: n * c * h * w].reshape(self.shape)
        out = np.zeros(self.shape, word_of(self.ring))
        for channels, run in ((self.decide, decided), (self.through, passed)):
            if channels:
                out[:, channels] = run[: n * len(channels) * h * w].reshape(n, len(channels), h, w)
        return out

    def _decision_values(self, x: np.ndarray) -> np.ndarray:
        """What each decision compares, a row a decision: the opened values less its threshold, or their sums over patches."""
        values = [self._sums(x - x.dtype.type(c) if c else x) for c in self.thresholds]
        return np.stack(values) if len(values) > 1 else values[0][None]

    def _sums(self, values: np.ndarray) -> np.ndarray:
        return values if self.patches is None else self.patches.sums(values, self.shape[0], self.first, self.cut)

    def _gate_bits(self, planes: np.ndarray) -> np.ndarray:
        """From bits of the decisions, or their masks, those of the gate, spread over pixels: b_0 XOR b_c, and b_c where there is a clip."""
        if self.patches is not None:
            planes = np.stack([self.patches.spread(p, self.shape[0]) for p in planes])
        return planes if self.clip is None else np.stack([planes[0] ^ planes[1], planes[1]])

    def _draw_masks(self, role: Client | Provider, open_stream) -> tuple[np.ndarray, np.ndarray]:
        """d of both runs."""
        draw = lambda op, count: draw_words(role, open_stream, op, Purpose.ACTIVATION, count, word_of(self.ring))
        return draw(self.op, self.gate.count), draw(self.op + 1, self.identity.count)

    # P

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """Deal to the server and return d. z: P's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        d, passed_d = self._draw_masks(provider, provider.with_client)
        parts = []
        if self.decide:
            r = self.opening.deal(provider, decided)
            message, betas_client, betas_server = self.drelu.deal(provider, self._sums(r))
            parts += [message, self.gate.deal(provider, r, self._gate_bits(betas_client), self._gate_bits(betas_server), d)]
        if self.through:
            parts.append(self.identity.deal(provider, self.pass_opening.deal(provider, passed), passed_d))
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
        return self._join(*self._draw_masks(client, client.with_provider))

    def infer(self, client: Client) -> None:
        """The client's two online messages."""
        drelu, through = self.drelu, [self.identity.carry_bytes] if self.through else []
        if not self.decide:
            if through:
                (carries,) = client.receive_online(self.op, *through)
                client.send_online(self.op, self.identity.infer(client, carries.view(np.uint64)))
            return
        packed, leaves, *carries = client.receive_online(self.op, self.opening.message_bytes, drelu.leaf_bytes, *through)
        reply = [self.identity.infer(client, part.view(np.uint64)) for part in carries]
        x = self.opening.infer(client, packed)
        state = drelu.infer_leaves(client, self._decision_values(x), leaves)
        client.send_online(self.op, state.leaf_wires, state.group_wires, *reply)
        groups, theirs = client.receive_online(self.op, drelu.group_bytes, drelu.bit_bytes)
        mine = state.infer_bit(client, groups)
        bits = self._gate_bits(opened(mine, theirs))
        client.send_online(self.op, mine, self.gate.infer(client, x, bits, self._gate_bits(state.beta)[0]))

    # S

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """The server's two online messages; returns u. z: S's summand (N, C, H, W)."""
        drelu, empty = self.drelu, np.empty(0, word_of(self.ring))
        runs = [(o, run) for o, run in zip((self.opening, self.pass_opening), self._split(z)) if o.count]
        if not runs:
            return self._join(empty, empty)
        through = [self.identity.dealt_bytes] if self.through else []
        dealt = server.receive_dealt(self.op, *([drelu.dealt_bytes, self.gate.dealt_bytes] if self.decide else []), *through)
        halves = server.receive_prepared(self.op, *(o.message_bytes for o, _ in runs))
        values = [o.serve(server, run, half) for (o, run), half in zip(runs, halves)]
        passing = values[-1][0]
        carries = [self.identity.serve_carries(server, passing)] if through else []
        if not self.decide:
            server.send_online(self.op, *carries)
            (reply,) = server.receive_online(self.op, self.identity.reply_bytes)
            return self._join(empty, self.identity.serve(server, passing, reply, dealt[-1]))
        x, packed = values[0]
        state = drelu.serve_leaves(server, self._decision_values(x), dealt[0])
        server.send_online(self.op, packed, state.leaf_wires, *carries)
        reply_bytes = [self.identity.reply_bytes] if through else []
        leaves, groups, *reply = server.receive_online(self.op, drelu.leaf_bytes, drelu.group_bytes, *reply_bytes)
        wires, own = state.serve_groups(server, leaves, groups)
        server.send_online(self.op, wires, own)
        passed = self.identity.serve(server, passing, reply[0], dealt[-1]) if through else empty
        theirs, v = server.receive_online(self.op, drelu.bit_bytes, self.gate.value_bytes)
        bits = self._gate_bits(opened(own, theirs))
        u = self.gate.serve(server, x, bits, self._gate_bits(state.beta)[0], v, dealt[1])
        return self._join(u, passed)
