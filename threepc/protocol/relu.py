"""ReLU, block ReLU and clipped ReLU with the truncation of the product before it: shares of z -> masked activation u + d of b * (z >> shift).

Four online messages, S first: x and S's leaf wires; C's leaf and group wires; S's group wires and bit of b^; C's bit of b^ and v. Built from
opening.py, drelu.py, gate.py and, for channels that only pass, identity.py, whose messages travel with them. For a patch all parties decide
on the sum of its opened values (P on the sum of their masks). A clip at c is ReLU(z) - ReLU(z - c): a second decision and gate on x - c.
Semi-honest, one corruption; security is that of its parts, which use separate stream addresses. Gorski, Jevnisek, Avidan (arXiv 2304.10442).
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..ring import word_of
from .cost import Cost
from .drelu import DRelu, opened
from .gate import Gate
from .identity import Identity
from .opening import Opening, draw_activation
from .patches import IDENTITY, ZERO, Patches
from .roles import Client, Provider, Server

OPS = 3
"""Addresses that one ReLU takes: itself, a clip's second decision, the channels that pass."""


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
        put("drelu", DRelu(self.op, self.decisions, first, self.width))
        put("gate", Gate(self.op, count, self.ring, self.cut))
        put("second", (replace(self.drelu, op=self.op + 1), replace(self.gate, op=self.op + 1)) if self.clip is not None else None)
        put("pass_opening", Opening(self.op + 2, passed, self.bits, self.shift, self.cut))
        put("identity", Identity(self.op + 2, passed, self.ring, self.cut))

    @property
    def _pairs(self) -> list[tuple[DRelu, Gate, int]]:
        """Decision, gate and what is subtracted from the opened value, for each ReLU in the difference."""
        pairs = [(self.drelu, self.gate, 0)] if self.decide else []
        return pairs + [(*self.second, self.clip)] if pairs and self.second else pairs

    @property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        pairs, some = self._pairs, bool(self.through)
        sizes = lambda name: sum(getattr(d, name) for d, _, _ in pairs)
        return Cost(
            offline={
                "provider->server": sizes("dealt_bytes") + sum(g.dealt_bytes for _, g, _ in pairs) + some * self.identity.dealt_bytes,
                "client->server": self.opening.message_bytes + self.pass_opening.message_bytes,
            },
            online={
                "server->client": bool(pairs) * self.opening.message_bytes + sizes("leaf_bytes") + sizes("group_bytes") + sizes("bit_bytes")
                + some * self.identity.carry_bytes,
                "client->server": sizes("leaf_bytes") + sizes("group_bytes") + sizes("bit_bytes") + sum(g.value_bytes for _, g, _ in pairs)
                + some * self.identity.reply_bytes,
            },
            messages=4 if pairs else 2 if some else 0,
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

    def _decision_values(self, values: np.ndarray) -> np.ndarray:
        return values if self.patches is None else self.patches.sums(values, self.shape[0], self.first, self.cut)

    def _spread(self, planes: np.ndarray) -> np.ndarray:
        return planes if self.patches is None else self.patches.spread(planes, self.shape[0])

    def _masks_of_output(self, role, open_stream) -> tuple[np.ndarray, np.ndarray]:
        """d of both runs; a clip's result is the difference of two draws."""
        draw = lambda op, count: draw_activation(role, open_stream, op, count, word_of(self.ring))
        return draw(self.op, self.gate.count), draw(self.op + 2, self.identity.count)

    def _second_mask(self, role, open_stream) -> np.ndarray:
        return draw_activation(role, open_stream, self.op + 1, self.gate.count, word_of(self.ring))

    # P

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """Deal to the server and return d. z: P's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        d, passed_d = self._masks_of_output(provider, provider.with_client)
        parts = []
        if self.decide:
            r = self.opening.deal(provider, decided)
            sums = self._decision_values(r)
            for drelu, gate, _ in self._pairs:
                message, beta_client, beta_server = drelu.deal(provider, sums)
                mine = d if gate is self.gate else self._second_mask(provider, provider.with_client)
                parts += [message, gate.deal(provider, r, self._spread(beta_client), self._spread(beta_server), mine)]
                if gate is not self.gate:
                    d = d - mine
        if self.through:
            parts.append(self.identity.deal(provider, self.pass_opening.deal(provider, passed), passed_d))
        if parts:
            provider.deal(self.op, *parts)
        return self._join(d, passed_d)

    # C

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """Send the server the client's half of the opening and return d. z: C's summand (N, C, H, W)."""
        decided, passed = self._split(z)
        parts = [o.prepare(client, run) for o, run in ((self.opening, decided), (self.pass_opening, passed)) if o.count]
        if parts:
            client.prepare(self.op, *parts)
        d, passed_d = self._masks_of_output(client, client.with_provider)
        if self.second and self.decide:
            d = d - self._second_mask(client, client.with_provider)
        return self._join(d, passed_d)

    def client(self, client: Client) -> None:
        """The client's two online messages."""
        pairs, n = self._pairs, self.shape[0]
        through = [self.identity.carry_bytes] if self.through else []
        if not pairs and not through:
            return
        message = client.receive(self.op, *([self.opening.message_bytes] if pairs else []), *(d.leaf_bytes for d, _, _ in pairs), *through)
        reply = [self.identity.client(client, message.pop().view(np.uint64))] if through else []
        if not pairs:
            client.send(self.op, *reply)
            return
        x = self.opening.client(client, message[0])
        values = [shifted(x, c) for _, _, c in pairs]
        states = [
            d.client_leaves(client, self._decision_values(y), leaves) for (d, _, _), y, leaves in zip(pairs, values, message[1:])
        ]
        client.send(self.op, *(part for s in states for part in (s.leaf_wires, s.group_wires)), *reply)
        message = client.receive(self.op, *(size for d, _, _ in pairs for size in (d.group_bytes, d.bit_bytes)))
        reply = []
        for (_, gate, _), y, state, groups, bit in zip(pairs, values, states, message[::2], message[1::2]):
            mine = state.bit(client, groups)
            reply += [mine, gate.client(client, y, self._spread(opened(mine, bit)), self._spread(state.beta))]
        client.send(self.op, *reply)

    # S

    def server(self, server: Server, z: np.ndarray) -> np.ndarray:
        """The server's two online messages; returns u. z: S's summand (N, C, H, W)."""
        pairs = self._pairs
        runs = [(o, run) for o, run in zip((self.opening, self.pass_opening), self._split(z)) if o.count]
        if not runs:
            return self._join(np.empty(0, word_of(self.ring)), np.empty(0, word_of(self.ring)))
        through = [self.identity.dealt_bytes] if self.through else []
        dealt = server.dealt(self.op, *(size for d, g, _ in pairs for size in (d.dealt_bytes, g.dealt_bytes)), *through)
        halves = server.from_client(self.op, *(o.message_bytes for o, _ in runs))
        values = [o.server(server, run, half) for (o, run), half in zip(runs, halves)]
        passing = values[-1][0]
        carries = [self.identity.carries(server, passing)] if through else []
        empty = np.empty(0, word_of(self.ring))
        if not pairs:
            server.send(self.op, *carries)
            (reply,) = server.receive(self.op, self.identity.reply_bytes)
            return self._join(empty, self.identity.server(server, passing, reply, dealt[-1]))
        x, packed = values[0]
        values = [shifted(x, c) for _, _, c in pairs]
        states = [d.server_leaves(server, self._decision_values(y), tables) for (d, _, _), y, tables in zip(pairs, values, dealt[::2])]
        server.send(self.op, packed, *(s.leaf_wires for s in states), *carries)
        sizes = [size for d, _, _ in pairs for size in (d.leaf_bytes, d.group_bytes)] + ([self.identity.reply_bytes] if through else [])
        message = server.receive(self.op, *sizes)
        bits = [s.groups_and_bit(server, leaves, groups) for s, leaves, groups in zip(states, message[::2], message[1::2])]
        server.send(self.op, *(part for pair in bits for part in pair))
        passed = self.identity.server(server, passing, message[-1], dealt[-1]) if through else empty
        message = server.receive(self.op, *(size for d, g, _ in pairs for size in (d.bit_bytes, g.value_bytes)))
        u = [
            gate.server(server, y, self._spread(opened(mine, bit)), self._spread(s.beta), v, material)
            for (_, gate, _), y, s, (_, mine), bit, v, material in zip(pairs, values, states, bits, message[::2], message[1::2], dealt[1::2])
        ]
        return self._join(u[0] if len(u) == 1 else u[0] - u[1], passed)


def shifted(x: np.ndarray, constant: int) -> np.ndarray:
    """x - constant, without a copy for zero."""
    return x - x.dtype.type(constant) if constant else x
