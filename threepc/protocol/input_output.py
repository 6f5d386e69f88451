"""Input and output: the client's image becomes a masked activation; the result reaches the client alone, or the server alone.

Input: C draws d from k_CP and sends S u = x - d (one message). Output: P sends S g_S = z_P - g_C offline, g_C from k_CP; S sends C the bits
from `shift` on of z_S - g_S + half a unit (one message), C adds z_C - g_C. The bits below are left out to save bytes; they do not stay
hidden from many queries of one image, see docs/security.md. Semi-honest, one corruption. Security: d pads the input towards S; towards P
nothing is sent; g_S is padded by g_C, and what S sends C is z minus what C holds.
An input of S takes no message: it is u, and d is zero at C and P. Nobody receives anything, and no protocol counts on d for a pad of its own.
Output to S: P sends S the same g_S = z_P - g_C, and C the bits from `shift` on of z_C - g_C + half a unit, both offline, where C's summand
is known; S adds z_S - g_S. Security: C and P receive nothing; g_S is padded by g_C, and z_C - g_C is z - z_S + g_S: z minus what S holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels.packing import pack, packed_bytes, padded, unpack
from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.opening import draw_words
from threepc.protocol.roles import Client, OpenStream, Provider, Server
from threepc.ring import word_of


@dataclass(frozen=True)
class Input:
    """The client's input of `shape` (N, C, H, W) in the ring of `bits` bits."""

    op: int
    shape: tuple[int, int, int, int]
    bits: int

    @property
    def _count(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def cost(self) -> Cost:
        """u travels."""
        return Cost(online={"client->server": packed_bytes(self._count, self.bits)}, messages=1)

    def mask(self, role: Client | Provider, open_stream: OpenStream) -> np.ndarray:
        """C and P, offline: d."""
        words = draw_words(role, open_stream, self.op, Purpose.ACTIVATION, self._count, word_of(self.bits))
        return words[: self._count].reshape(self.shape)

    def infer(self, client: Client, x: np.ndarray, d: np.ndarray) -> None:
        """C: send u. x, d: ring words (N, C, H, W)."""
        u, message = np.zeros(padded(self._count), word_of(self.bits)), np.empty(packed_bytes(self._count, self.bits), np.uint8)
        u[: self._count] = (x - d).reshape(-1)
        pack(u, u.size, self.bits, message)
        client.send_online(self.op, message)

    def serve(self, server: Server) -> np.ndarray:
        """S: u (N, C, H, W)."""
        (message,) = server.receive_online(self.op, packed_bytes(self._count, self.bits))
        u = np.empty(padded(self._count), word_of(self.bits))
        unpack(message, u.size, self.bits, u)
        return u[: self._count].reshape(self.shape)


@dataclass(frozen=True)
class _Opened:
    """What the openings of `count` elements of `bits` bits to either party, without their low `shift` bits, have in common."""

    op: int
    count: int
    bits: int
    shift: int

    @property
    def _dealt_bytes(self) -> int:
        return packed_bytes(self.count, self.bits)

    @property
    def _upper_bytes(self) -> int:
        return packed_bytes(self.count, self.bits - self.shift)

    def _mask(self, role: Client | Provider, open_stream: OpenStream) -> np.ndarray:
        return draw_words(role, open_stream, self.op, Purpose.OPENING, self.count, word_of(self.bits))

    def deal(self, provider: Provider, z: np.ndarray) -> None:
        """P: send g_S. z: P's summand, any shape."""
        share, message = -self._mask(provider, provider.with_client), np.empty(self._dealt_bytes, np.uint8)
        share[: self.count] += z.reshape(-1)
        pack(share, share.size, self.bits, message)
        provider.send_offline(self.op, message)

    def _less_mask(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C: z_C - g_C, flat."""
        kept: np.ndarray = z.reshape(-1) - self._mask(client, client.with_provider)[: self.count]
        return kept

    def _less_dealt(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S: z_S - g_S, flat."""
        (dealt,) = server.receive_dealt(self.op, self._dealt_bytes)
        share = np.empty(padded(self.count), word_of(self.bits))
        unpack(dealt, share.size, self.bits, share)
        kept: np.ndarray = z.reshape(-1) - share[: self.count]
        return kept

    def _upper(self, kept: np.ndarray) -> np.ndarray:
        """The message with the upper bits of one party's part of z and half a unit."""
        word, value = word_of(self.bits), np.zeros(padded(self.count), word_of(self.bits))
        value[: self.count] = kept
        value += word((1 << self.shift) >> 1)
        value &= word((1 << self.bits) - 1)
        value >>= word(self.shift)
        message = np.empty(self._upper_bytes, np.uint8)
        pack(value, value.size, self.bits - self.shift, message)
        return message

    def _sum(self, message: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """z as ring words, flat: the other party's upper bits, and all that this one has."""
        value, word = np.empty(padded(self.count), word_of(self.bits)), word_of(self.bits)
        unpack(message, value.size, self.bits - self.shift, value)
        result: np.ndarray = ((value[: self.count] << word(self.shift)) + kept) & word((1 << self.bits) - 1)
        return result


class Output(_Opened):
    """The opening to C."""

    @cached_property
    def cost(self) -> Cost:
        """g_S offline, the upper bits online."""
        return Cost(offline={"provider->server": self._dealt_bytes}, online={"server->client": self._upper_bytes}, messages=1)

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C: z_C - g_C, kept for the end. z: C's summand, any shape."""
        return self._less_mask(client, z)

    def serve(self, server: Server, z: np.ndarray) -> None:
        """S: send the upper bits. z: S's summand, any shape."""
        server.send_online(self.op, self._upper(self._less_dealt(server, z)))

    def infer(self, client: Client, kept: np.ndarray) -> np.ndarray:
        """C: the result as ring words, flat. kept: from `prepare`."""
        (message,) = client.receive_online(self.op, self._upper_bytes)
        return self._sum(message, kept)


class ServerOutput(_Opened):
    """The opening to S."""

    @cached_property
    def cost(self) -> Cost:
        """Both messages are offline."""
        return Cost(offline={"provider->server": self._dealt_bytes, "client->server": self._upper_bytes})

    def prepare(self, client: Client, z: np.ndarray) -> None:
        """C: send the upper bits. z: C's summand, any shape."""
        client.send_offline(self.op, self._upper(self._less_mask(client, z)))

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S: the result as ring words, flat. z: S's summand, any shape."""
        kept = self._less_dealt(server, z)
        (message,) = server.receive_prepared(self.op, self._upper_bytes)
        return self._sum(message, kept)
