"""Truncation without a decision: opened x -> masked activation u + d = x - r lifted to the ring, in two messages.

As in gate.py, x - r = m - R + n M. S knows x; C needs only n, one bit an element, so S sends that instead of x (message 1). E and M_C,
multiples of 2^kept, and d come from k_CP. Offline, P to S: k = -R - d - E and M_S = M - M_C. Online, C to S: n M_C + E (message 2), and S has
u = m + k + n M_S + C's message. Semi-honest, one corruption. Security: n is the top bit of x under a mask of k_SP; E and d pad the rest.
A linear bottleneck's truncation, and the patch (0,1) of a block ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import runs
from threepc.kernels.gate import NARROW_LIFT, Lift, carry_plane
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE, TILE_WORDS, Tiles, packed_bytes
from threepc.prf import Purpose
from threepc.protocol.roles import Client, OpenStream, Provider, Role, Server, Word, plane_words, scratch
from threepc.ring import word_of


@dataclass(frozen=True)
class Identity:
    """The lift of `count` opened elements from a cut ring to the ring, by at least one bit."""

    op: int
    count: int
    lift: Lift

    @property
    def word(self) -> Word:
        """Word type of the ring."""
        return word_of(self.lift.bits)

    @cached_property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return packed_bytes(self.count, 2 * self.lift.bits - self.lift.kept_bits)

    @cached_property
    def carry_bytes(self) -> int:
        """S to C, online (message 1): n."""
        return 8 * plane_words(self.count, 1)

    @cached_property
    def reply_bytes(self) -> int:
        """C to S, online (message 2)."""
        return packed_bytes(self.count, self.lift.bits - self.lift.kept_bits)

    @property
    def _mask_word(self) -> Word:
        """Holds E and M_C."""
        return np.uint32 if self.lift.bits - self.lift.kept_bits <= NARROW_LIFT else np.uint64

    def _pads(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.IDENTITY, self.count, np.dtype(self._mask_word).itemsize * TILE)

    def _scratch(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for a tile's pads and for ring words."""
        return scratch("w", TILE, self._mask_word), scratch("work", 3 * TILE, self.word)

    def deal(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> np.ndarray:
        """P: the message for S. r: cut words, padded; d: ring words, padded."""
        message, stream = np.empty(self.dealt_bytes, np.uint8), self._pads(provider.with_client)
        provider.each_part(self.count, lambda tiles: runs.deal_identities(r, d, self.lift, stream, tiles, *self._scratch(), message))
        return message

    def carries(self, role: Role, x: np.ndarray) -> np.ndarray:
        """S: message 1, planes of n; or C, where it knows x too. x: cut words, padded."""
        planes = np.empty(plane_words(self.count, 1), np.uint64)

        def work(tiles: Tiles) -> None:
            words, of_planes = (slice(tiles.first * size, tiles.last * size) for size in (TILE, TILE_WORDS))
            carry_plane(x[words], self.lift.kept_bits, planes[of_planes])

        role.each_part(self.count, work)
        return planes

    def infer(self, client: Client, carries: np.ndarray) -> np.ndarray:
        """C: message 2. carries: message 1."""
        message, stream = np.empty(self.reply_bytes, np.uint8), self._pads(client.with_provider)
        client.each_part(self.count, lambda tiles: runs.infer_identities(carries, self.lift, stream, tiles, self._scratch()[0], message))
        return message

    def serve(self, server: Server, x: np.ndarray, reply: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat, `count` ring words. reply: message 2; dealt: P's message."""
        u = np.empty(self.count, self.word)
        server.each_part(self.count, lambda tiles: runs.serve_identities(x, reply, dealt, self.lift, tiles, self._scratch()[1], u))
        return u
