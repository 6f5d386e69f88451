"""Truncation without a decision: opened x -> masked activation u + d = x - r lifted to the ring, in two messages.

As in gate.py, x - r = m - R + n M. S knows x; C needs only n, one bit an element, so S sends that instead of x (message 1). E and M_C,
multiples of 2^cut, and d come from k_CP. Offline, P to S: k = -R - d - E and M_S = M - M_C. Online, C to S: n M_C + E (message 2), and S has
u = m + k + n M_S + C's message. Semi-honest, one corruption. Security: n is the top bit of x under a mask of k_SP; E and d pad the rest.
A linear bottleneck's truncation, and the patch (0,1) of a block ReLU.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels import gate as kernels
from ..kernels.packing import packed_bytes
from ..ring import word_of
from .roles import IDENTITY, TILE, Client, Provider, Server, plane_words, scratch


@dataclass(frozen=True)
class Identity:
    """The lift of `count` opened elements from a cut ring of `cut` bits to the ring of `bits` bits; bits - cut is at least 1 and at most 16."""

    op: int
    count: int
    bits: int
    cut: int

    @property
    def word(self):
        """Word type of the ring."""
        return word_of(self.bits)

    @property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return packed_bytes(self.count, 2 * self.bits - self.cut)

    @property
    def carry_bytes(self) -> int:
        """S to C, online (message 1): n."""
        return 8 * plane_words(self.count, 1)

    @property
    def reply_bytes(self) -> int:
        """C to S, online (message 2)."""
        return packed_bytes(self.count, self.bits - self.cut)

    def _pads(self, open_stream, first):
        return open_stream(self.op, IDENTITY, first, 4 * TILE)

    def deal(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> np.ndarray:
        """P: the message for S. r: cut words, padded; d: ring words, padded."""
        message, bits = np.empty(self.dealt_bytes, np.uint8), 2 * self.bits - self.cut

        def work(tiles):
            stream = self._pads(provider.with_client, tiles[0])
            for tile in tiles:
                w, space = stream.fill(scratch("w", tile.count, np.uint32)), scratch("work", tile.count, self.word)
                kernels.deal_identity(r[tile.run], w, d[tile.run], self.bits, self.cut, space, message[tile.packed(bits)])

        provider.each_tile(self.count, work)
        return message

    def carries(self, server: Server, x: np.ndarray) -> np.ndarray:
        """S: message 1, planes of n. x: cut words, padded."""
        planes = np.empty(plane_words(self.count, 1), np.uint64)

        def work(tiles):
            for tile in tiles:
                kernels.carry_plane(x[tile.run], self.cut, tile.planes(planes))

        server.each_tile(self.count, work)
        return planes

    def client(self, client: Client, carries: np.ndarray) -> np.ndarray:
        """C: message 2. carries: message 1."""
        message, bits = np.empty(self.reply_bytes, np.uint8), self.bits - self.cut

        def work(tiles):
            stream = self._pads(client.with_provider, tiles[0])
            for tile in tiles:
                w = stream.fill(scratch("w", tile.count, np.uint32))
                kernels.client_identity(tile.planes(carries), w, self.bits, self.cut, message[tile.packed(bits)])

        client.each_tile(self.count, work)
        return message

    def server(self, server: Server, x: np.ndarray, reply: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat, `count` ring words. reply: message 2; dealt: P's message."""
        u, high, bits = np.empty(self.count, self.word), self.bits - self.cut, 2 * self.bits - self.cut

        def work(tiles):
            for tile in tiles:
                space = scratch("work", 3 * tile.count, self.word).reshape(3, tile.count)
                received, material = reply[tile.packed(high)], dealt[tile.packed(bits)]
                kernels.server_identity(x[tile.run], received, material, self.bits, self.cut, space, u[tile.run])

        server.each_tile(self.count, work)
        return u
