"""Gate: from opened x with mask r and an opened bit b^ = b XOR beta to the masked activation u + d = b * (x - r), lifted to the ring.

With R = r, M = msb(r) * 2^cut, y = x + 2^(cut-2), m = y - 2^(cut-2), n = 1 - msb(y): m and n are public to C and S, and x - r, whose size
is below 2^(cut-2), equals m - R + n M in the ring of `bits` bits (Dalskov, Escudero, Keller, PoPETs 2020). beta_C, t_0, t_1, w_0, w_1 and d
come from k_CP, beta_S from k_SP; sigma = 1 - 2 beta_S. Semi-honest, one corruption.
Offline, P to S: k_0 = -sigma t_0 - beta R - d, k_1 = sigma t_1 - (1 - beta) R - d, q_0 = beta M - sigma w_0, q_1 = (1 - beta) M + sigma w_1.
Online, C to S: v = beta_C m + t_b^ + n w_b^, one branch, never both. Security: k, q and v are each padded by a word S cannot draw, and the
pads of the branch not taken stay secret. Without a lift (cut = bits) M and q vanish.

With a constant c the gate yields b * (x - r) + b' * c for a second bit b' with b'^ = b' XOR beta' opened: a clip is (b_0 XOR b_c) x + b_c c.
P also sends kappa_0 = beta' c - sigma p_0, kappa_1 = (1 - beta') c - sigma p_1, with pads p_0, p_1 from k_CP of which C adds p_b'^ to v.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels import gate as kernels
from ..kernels.packing import packed_bytes
from ..ring import word_of
from .roles import GATE, TILE, Client, Provider, Server, scratch


@dataclass(frozen=True)
class Gate:
    """The gate of `count` elements from a cut ring of `cut` bits to the ring of `bits` bits; constant: c in units of the result, or None."""

    op: int
    count: int
    bits: int
    cut: int
    constant: int | None = None

    @property
    def word(self):
        """Word type of the ring."""
        return word_of(self.bits)

    @property
    def _gate_bits(self) -> int:
        return 2 * self.bits + 2 * (self.bits - self.cut)

    @property
    def _tile_bits(self) -> int:
        return self._gate_bits + 2 * self.bits * (self.constant is not None)

    def _material(self, message: np.ndarray, tile) -> tuple[np.ndarray, np.ndarray]:
        """The tile's part of P's message: what the gate needs, what the constant needs."""
        part, at = message[tile.packed(self._tile_bits)], tile.count // 8 * self._gate_bits
        return part[:at], part[at:]

    @property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return packed_bytes(self.count, self._tile_bits)

    @property
    def value_bytes(self) -> int:
        """C to S, online (message 4): v."""
        return packed_bytes(self.count, self.bits)

    def _pads(self, open_stream, first):
        """The stream of t_0, t_1 and, where there are any, p_0, p_1, w."""
        words = 2 + 2 * (self.constant is not None)
        return open_stream(self.op, GATE, first, TILE * (words * np.dtype(self.word).itemsize + 4 * (self.bits > self.cut)))

    def _draw(self, stream, tile):
        names = ("t0", "t1", "p0", "p1")[: 2 + 2 * (self.constant is not None)]
        pads = [stream.fill(scratch(name, tile.count, self.word)) for name in names]
        w = scratch("w", tile.count, np.uint32)
        return pads, stream.fill(w) if self.bits > self.cut else w

    def _space(self, tile) -> np.ndarray:
        return scratch("work", 5 * tile.count, self.word).reshape(5, tile.count)

    def deal(self, provider: Provider, r: np.ndarray, betas_client: np.ndarray, betas_server: np.ndarray, d: np.ndarray) -> np.ndarray:
        """P: the message for S. r: cut words, padded; betas_*: planes (1, words) of b's masks, (2, words) with those of b'; d: ring words, padded."""
        message = np.empty(self.dealt_bytes, np.uint8)

        def work(tiles):
            stream = self._pads(provider.with_client, tiles[0])
            for tile in tiles:
                (t0, t1, *pads), w = self._draw(stream, tile)
                space, (material, rest) = self._space(tile), self._material(message, tile)
                client, server = tile.planes(betas_client[0]), tile.planes(betas_server[0])
                kernels.deal_gate(r[tile.run], client, server, t0, t1, w, d[tile.run], self.bits, self.cut, space, material)
                if pads:
                    client, flips, server = tile.planes(betas_client[1]), server, tile.planes(betas_server[1])
                    kernels.deal_constant(client, server, flips, *pads, self.word(self.constant), self.bits, space, rest)

        provider.each_tile(self.count, work)
        return message

    def client(self, client: Client, x: np.ndarray, opened: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """C: the message v. x: cut words, padded; opened: planes of b^ (1, words), or with b'^ (2, words); beta: planes of b's beta_C."""
        message = np.empty(self.value_bytes, np.uint8)

        def work(tiles):
            stream = self._pads(client.with_provider, tiles[0])
            for tile in tiles:
                (t0, t1, *pads), w = self._draw(stream, tile)
                if pads:
                    kernels.add_chosen_pad(t0, t1, tile.planes(opened[1]), *pads)
                bits, mine = tile.planes(opened[0]), tile.planes(beta)
                kernels.client_gate(x[tile.run], bits, mine, t0, t1, w, self.bits, self.cut, message[tile.packed(self.bits)])

        client.each_tile(self.count, work)
        return message

    def server(self, server: Server, x: np.ndarray, opened: np.ndarray, beta: np.ndarray, v: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat, `count` ring words. x: cut words, padded; opened, beta: as for `client`, of beta_S; v and dealt: the messages of C and P."""
        u = np.empty(self.count, self.word)

        def work(tiles):
            for tile in tiles:
                space, (material, rest) = self._space(tile), self._material(dealt, tile)
                bits, mine, message = tile.planes(opened[0]), tile.planes(beta), v[tile.packed(self.bits)]
                kernels.server_gate(x[tile.run], bits, mine, message, material, self.bits, self.cut, space, u[tile.run])
                if self.constant is not None:
                    kernels.add_chosen_constant(u[tile.run], tile.planes(opened[1]), rest, self.bits, space)

        server.each_tile(self.count, work)
        return u
