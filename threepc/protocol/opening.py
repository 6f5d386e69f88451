"""Masked opening of a linear layer's result, cut by the bits that a truncation drops: S learns x = z' + r, C learns it by message 1.

z = z_C + z_S - z_P with `bits` bits is first cut locally: every party drops its summand's low `shift` bits (S adds half a unit), so that z'
= z >> shift up to 1.5 units in the last place, in a ring of kept <= bits - shift bits. The error's mean over all masks is zero; given the
low bits of z_C, which C knows, it is 1/2 less their fraction of a unit: see docs/security.md for what that tells C in very many queries. No
summand's carry is lost upwards, so there is no large error. Then t from k_CP and s from k_SP mask it: r = t + s + z'_P, which P knows.
Offline C sends S z'_C + t; online S sends C x (or, for a truncation without ReLU, nothing but one bit: see identity.py). Security: t and s
are one-time pads of kept bits.
The cut before the opening is ours; it saves `shift` bits of C's offline message and half of all later words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import runs
from threepc.kernels.gate import Cut
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE, packed_bytes, padded
from threepc.prf import Purpose
from threepc.protocol.roles import Client, OpenStream, Provider, Role, Server, Word, scratch
from threepc.ring import word_of


@dataclass(frozen=True)
class Opening:
    """The opening of `count` elements z, ring words, of which the bits that `cut` keeps are opened."""

    op: int
    count: int
    cut: Cut

    @property
    def word(self) -> Word:
        """Word type of the cut ring."""
        return word_of(self.cut.kept_bits)

    @cached_property
    def message_bytes(self) -> int:
        """C to S, offline; and S to C, online: the opened values."""
        return packed_bytes(self.count, self.cut.kept_bits)

    def _masks(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.OPENING, self.count, TILE * np.dtype(self.word).itemsize)

    def _tile(self) -> np.ndarray:
        return scratch("masks", TILE, self.word)

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """P: the masks r as cut words, padded; z: P's summand, flat."""
        r, streams = (
            np.empty(padded(self.count), self.word),
            [self._masks(shared) for shared in (provider.with_client, provider.with_server)],
        )
        provider.each_part(self.count, lambda tiles: runs.deal_openings(z, self.cut, *streams, tiles, self._tile(), r))
        return r

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline: the message z'_C + t for S; z: C's summand, flat."""
        message, stream = np.empty(self.message_bytes, np.uint8), self._masks(client.with_provider)
        client.each_part(self.count, lambda tiles: runs.prepare_openings(z, self.cut, stream, tiles, self._tile(), message))
        return message

    def serve(self, server: Server, z: np.ndarray, half_opened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """S: x as cut words, padded, and packed for C; z: S's summand, flat; half_opened: C's offline message."""
        x, message = np.empty(padded(self.count), self.word), np.empty(self.message_bytes, np.uint8)
        stream = self._masks(server.with_provider)
        server.each_part(self.count, lambda tiles: runs.serve_openings(z, self.cut, half_opened, stream, tiles, self._tile(), x, message))
        return x, message

    def infer(self, client: Client, message: np.ndarray) -> np.ndarray:
        """C: x as cut words, padded, from message 1."""
        x = np.empty(padded(self.count), self.word)
        client.each_part(self.count, lambda tiles: runs.infer_openings(message, self.cut.kept_bits, tiles, x))
        return x


def draw_words(role: Role, open_stream: OpenStream, op: int, purpose: Purpose, count: int, word: Word) -> np.ndarray:
    """Words of a stream, one for each of `count` elements, padded and flat: an opening's mask, or (`Purpose.ACTIVATION`) d of an op's output."""
    words, stream = np.empty(padded(count), word), open_stream(op, purpose, count, TILE * np.dtype(word).itemsize)
    role.each_part(count, lambda tiles: runs.draw_words(stream, tiles, words))
    return words
