"""Product of two hidden values with its truncation: reduced x = u_x + d_x and y = u_y + d_y -> masked u + d of x * y >> shift, in two messages.

* is any bilinear map: elementwise, a factor of fewer elements spread over the other (one a channel, one a position), or a matrix product.
Online, S to C: X = u_x + s_x, Y = u_y + s_y, and h. With A = X + d_x = x + s_x and B = Y + d_y, x * y = A * B - A * s_y - s_x * B + s_x * s_y,
whose summands are z_C = A * B, z_S = -(u_x * s_y + s_x * Y) and z_P = d_x * s_y + s_x * d_y: P knows all d and s, so it deals nothing for them.
They are cut as in opening.py: h = z'_S + s, and C learns z' + r with r = s + z'_P. As in gate.py, z' = m - R + n M; C alone knows m and n.
Offline, P to S: k = -R - d - t + beta M and q = (1 - 2 beta) msb(r) - w. Online, C to S: n^ = n XOR beta and v = m + t + n^ w 2^kept. S has
u = v + k + n^ q 2^kept, for n = n^ XOR beta. s_x, s_y and s come from k_SP, d, t, w and beta from k_CP.
Semi-honest, one corruption. Security: C receives three words, each padded by one of k_SP that is used nowhere else. S receives k, q, n^ and
v, padded by d, w, beta and t: one uniform pad each, whatever n^ is. n^ must be masked: n is a bit of z' + r, of which S knows a part of r.
A square sends one factor. C's offline message is empty: it says that C has what its answer needs, as prepare may lag behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import product
from threepc.kernels.gate import Cut
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE, Tiles, packed_bytes, padded
from threepc.kernels.product import ProductScratch, Spread, Terms
from threepc.kernels.threads import ranges, run_parts
from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.opening import draw_words
from threepc.protocol.roles import Client, OpenStream, Provider, Role, Server, Word, plane_words, scratch
from threepc.ring import word_of

OPS = 2
"""Addresses that one product takes: for itself and its first factor, and for the second."""

Shape = tuple[int, int, int, int]


def spread(factor: Shape, shape: Shape) -> Spread:
    """Where a product of `shape` finds a factor whose every side is the product's or 1. Raises ValueError where no `Spread` says it."""
    repeated = [axis for axis in range(4) if factor[axis] != shape[axis]]
    if not repeated:
        return Spread(math.prod(shape), math.prod(shape))
    first, last = repeated[0], repeated[-1]
    if any(factor[axis] != 1 for axis in range(first, last + 1)):
        raise ValueError(f"a factor of {factor} is not repeated along neighbouring sides of {shape}")
    return Spread(math.prod(shape[first:]), math.prod(shape[last + 1 :]))


@dataclass(frozen=True)
class Product:
    """factors: the shapes (N, C, H, W) of x and y, one for a square; of their product, of `shape`, the bits that `cut` keeps, lifted to its ring.

    matrix: (N, C, rows, depth) times (N, C, depth, columns), else elementwise.
    """

    op: int
    factors: tuple[Shape, ...]
    shape: Shape
    cut: Cut
    matrix: bool = False

    @property
    def _word(self) -> Word:
        return word_of(self.cut.bits)

    @cached_property
    def count(self) -> int:
        """Elements of the product."""
        return math.prod(self.shape)

    @cached_property
    def _factor_bytes(self) -> list[int]:
        return [packed_bytes(math.prod(factor), self.cut.bits) for factor in self.factors]

    @property
    def _half_bytes(self) -> int:
        return packed_bytes(self.count, self.cut.kept_bits)

    @property
    def _dealt_bytes(self) -> int:
        return packed_bytes(self.count, 2 * self.cut.bits - self.cut.kept_bits)

    @property
    def _reply_bytes(self) -> tuple[int, int]:
        """v and n^."""
        return packed_bytes(self.count, self.cut.bits), 8 * plane_words(self.count, 1)

    @cached_property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        return Cost(
            offline={"provider->server": self._dealt_bytes},
            online={"server->client": sum(self._factor_bytes) + self._half_bytes, "client->server": sum(self._reply_bytes)},
            messages=2,
        )

    # Streams and scratch

    def _masks(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.OPENING, self.count, TILE * np.dtype(word_of(self.cut.kept_bits)).itemsize)

    def _pads(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.PRODUCT, self.count, TILE * (np.dtype(self._word).itemsize + 4))

    def _scratch(self) -> ProductScratch:
        words, pads = scratch("work", 5 * TILE, self._word), scratch("pads", TILE, self._word)
        return ProductScratch(words, pads, scratch("w", TILE, np.uint32), scratch("masks", TILE, word_of(self.cut.kept_bits)))

    def _terms(self, role: Role, *pairs: tuple[np.ndarray, np.ndarray]) -> Terms:
        """The sum of one or two products; of each the first is like x, the second like y, flat and perhaps padded."""
        nothing = np.empty(0, self._word)
        done = self._multiplied(role, pairs) if self.matrix else nothing
        (a, b), (c, e) = [*pairs, (nothing, nothing)][:2]
        first, second = (Spread(1, 1) if self.matrix else spread(factor, self.shape) for factor in self._both)
        return Terms(a, b, c, e, first, second, done, self.count)

    @property
    def _both(self) -> tuple[Shape, Shape]:
        return self.factors[0], self.factors[-1]

    def _multiplied(self, role: Role, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """The sum of matrix products, flat; a thread's share is some of the maps."""
        maps = self.shape[0] * self.shape[1]
        out = np.zeros((maps, *self.shape[2:]), self._word)
        for pair in pairs:
            a, b = (x[: math.prod(factor)].reshape(maps, *factor[2:]) for x, factor in zip(pair, self._both, strict=True))

            def work(first: int, last: int, a: np.ndarray = a, b: np.ndarray = b) -> None:
                product.multiply_matrices(a, b, Tiles(first, last, maps), out)

            run_parts(work, ranges(maps, role.threads))
        return out.reshape(-1)

    def _flat(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Factors as the kernels take them, one for a square."""
        return [np.ascontiguousarray(x).reshape(-1) for x in inputs[: len(self.factors)]]

    # P

    def deal(self, provider: Provider, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Deal to the server and return d. inputs: d of the factors, with their shapes."""
        d = draw_words(provider, provider.with_client, self.op, Purpose.ACTIVATION, self.count, self._word)
        masks, known = [self._factor_mask(provider, i) for i in range(len(self.factors))], self._flat(inputs)
        terms = self._terms(provider, (known[0], masks[-1]), (masks[0], known[-1]))
        message, streams = np.empty(self._dealt_bytes, np.uint8), (self._masks(provider.with_server), self._pads(provider.with_client))
        provider.each_part(self.count, lambda tiles: product.deal_products(terms, d, self.cut, *streams, tiles, self._scratch(), message))
        provider.send_offline(self.op, message)
        return d[: self.count].reshape(self.shape)

    def _factor_mask(self, provider: Provider, index: int) -> np.ndarray:
        """s_x or s_y, padded."""
        count = math.prod(self.factors[index])
        return draw_words(provider, provider.with_server, self.op + index, Purpose.PRODUCT, count, self._word)

    # C

    def prepare(self, client: Client, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Keep what the online message needs, say so to the server, and return d. inputs: d of the factors, with their shapes."""
        client.kept[self.op] = self._flat(inputs)
        client.send_offline(self.op)
        d = draw_words(client, client.with_provider, self.op, Purpose.ACTIVATION, self.count, self._word)
        return d[: self.count].reshape(self.shape)

    def infer(self, client: Client) -> None:
        """The client's online message."""
        *masked, half_opened = client.receive_online(self.op, *self._factor_bytes, self._half_bytes)
        opened = [self._open(client, *pair) for pair in zip(masked, client.take_kept(self.op), strict=True)]
        terms, stream = self._terms(client, (opened[0], opened[-1])), self._pads(client.with_provider)
        v, planes = np.empty(self._reply_bytes[0], np.uint8), np.empty(plane_words(self.count, 1), np.uint64)
        client.each_part(
            self.count, lambda tiles: product.infer_products(terms, half_opened, self.cut, stream, tiles, self._scratch(), v, planes)
        )
        client.send_online(self.op, v, planes)

    def _open(self, client: Client, message: np.ndarray, d: np.ndarray) -> np.ndarray:
        """A factor under the server's mask, padded."""
        opened = np.empty(padded(d.size), self._word)
        client.each_part(d.size, lambda tiles: product.open_factors(message, self.cut.bits, d, tiles, opened))
        return opened

    # S

    def serve(self, server: Server, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The server's online message; returns u. inputs: u of the factors, with their shapes."""
        (dealt,) = server.receive_dealt(self.op, self._dealt_bytes)
        server.receive_prepared(self.op)
        factors = self._flat(inputs)
        masks, masked, messages = zip(*(self._mask(server, i, u) for i, u in enumerate(factors)), strict=True)
        terms = self._terms(server, (factors[0], masks[-1]), (masks[0], masked[-1]))
        half, stream = np.empty(self._half_bytes, np.uint8), self._masks(server.with_provider)
        server.each_part(self.count, lambda tiles: product.serve_products(terms, self.cut, stream, tiles, self._scratch(), half))
        server.send_online(self.op, *messages, half)
        v, planes = server.receive_online(self.op, *self._reply_bytes)
        u, carries = np.empty(self.count, self._word), planes.view(np.uint64)
        server.each_part(self.count, lambda tiles: product.finish_products(v, carries, dealt, self.cut, tiles, self._scratch(), u))
        return u.reshape(self.shape)

    def _mask(self, server: Server, index: int, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A factor's mask, the masked factor, both padded, and its message."""
        s, masked = (np.empty(padded(u.size), self._word) for _ in range(2))
        message, bits = np.empty(self._factor_bytes[index], np.uint8), self.cut.bits
        stream = server.with_provider(self.op + index, Purpose.PRODUCT, u.size, TILE * np.dtype(self._word).itemsize)
        server.each_part(u.size, lambda tiles: product.mask_factors(u, bits, stream, tiles, s, masked, message))
        return s, masked, message
