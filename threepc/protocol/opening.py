"""Masked opening of a linear layer's result, cut by the bits that a truncation drops: S learns x = z' + r, C learns it by message 1.

z = z_C + z_S - z_P with 'bits' bits is first cut locally: every party drops its summand's low `shift` bits (S adds half a unit), so that
z' = z >> shift up to 1.5 units in the last place, without bias, in a ring of `cut` <= bits - shift bits. No summand's carry is lost upwards,
so there is no large error. Then t from k_CP and s from k_SP mask it: r = t + s + z'_P, which P knows. Offline C sends S z'_C + t; online S
sends C x (or, for a truncation without ReLU, nothing but one bit: see identity.py). Security: t and s are one-time pads of `cut` bits.
The cut before the opening is ours; it saves `shift` bits of C's offline message and half of all later words.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..kernels.gate import add_cut, open_masked, pack_masked
from ..kernels.packing import packed_bytes, padded, unpack
from ..ring import word_of
from .roles import ACTIVATION, OPEN, TILE, Client, Provider, Server, scratch


@dataclass(frozen=True)
class Opening:
    """The opening of `count` elements z: ring words of `bits` bits, whose bits shift..shift+cut-1 are opened."""

    op: int
    count: int
    bits: int
    shift: int
    cut: int

    @property
    def word(self):
        """Word type of the cut ring."""
        return word_of(self.cut)

    @property
    def message_bytes(self) -> int:
        """C to S, offline; and S to C, online: the opened values."""
        return packed_bytes(self.count, self.cut)

    def _masks(self, open_stream, first):
        return open_stream(self.op, OPEN, first, TILE * np.dtype(self.word).itemsize)

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """P: the masks r as cut words, padded; z: P's summand, flat."""
        r = np.empty(padded(self.count), self.word)

        def work(tiles):
            client, server = self._masks(provider.with_client, tiles[0]), self._masks(provider.with_server, tiles[0])
            for tile in tiles:
                t, s = client.fill(scratch("t", tile.count, self.word)), server.fill(scratch("s", tile.count, self.word))
                t += s
                add_cut(z[tile.run], self.bits, self.shift, 0, t, r[tile.run])

        provider.each_tile(self.count, work)
        return r

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline: the message z'_C + t for S; z: C's summand, flat."""
        message = np.empty(self.message_bytes, np.uint8)

        def work(tiles):
            stream = self._masks(client.with_provider, tiles[0])
            for tile in tiles:
                masks = stream.fill(scratch("t", tile.count, self.word))
                pack_masked(z[tile.run], self.bits, self.shift, masks, self.cut, message[tile.packed(self.cut)])

        client.each_tile(self.count, work)
        return message

    def server(self, server: Server, z: np.ndarray, half_opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """S: x as cut words, padded, and packed for C; z: S's summand, flat; half_opened: C's offline message."""
        x, message = np.empty(padded(self.count), self.word), np.empty(self.message_bytes, np.uint8)
        rounding = (1 << self.shift) >> 1

        def work(tiles):
            stream = self._masks(server.with_provider, tiles[0])
            for tile in tiles:
                masks, packed = stream.fill(scratch("s", tile.count, self.word)), tile.packed(self.cut)
                open_masked(z[tile.run], self.bits, self.shift, rounding, half_opened[packed], masks, self.cut, x[tile.run], message[packed])

        server.each_tile(self.count, work)
        return x, message

    def client(self, client: Client, message: np.ndarray) -> np.ndarray:
        """C: x as cut words, padded, from message 1."""
        x = np.empty(padded(self.count), self.word)

        def work(tiles):
            for tile in tiles:
                unpack(message[tile.packed(self.cut)], tile.count, self.cut, x[tile.run])

        client.each_tile(self.count, work)
        return x


def draw_activation(role: Client | Provider, open_stream, op: int, count: int, word) -> np.ndarray:
    """d of an op's output, which C and P draw from k_CP before any input exists: `count` ring words, flat."""
    d = np.empty(padded(count), word)

    def work(tiles):
        stream = open_stream(op, ACTIVATION, tiles[0], TILE * np.dtype(word).itemsize)
        stream.fill(d[tiles[0].begin : tiles[-1].begin + tiles[-1].count])

    role.each_tile(count, work)
    return d
