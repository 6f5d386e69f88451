"""Lookup: from a reduced value c in a known range to shares of y = f(c), f a public table of polynomials of degree two.

An opening gives C and S A = c + r modulo 2^m, m = k + low: P alone knows r. With A = A_hi 2^low + A_lo and r likewise, c is in row h = A_hi - r_hi
modulo 2^k, or just below it: t = A_lo - r_lo lies in (-2^low, 2^low), so a row's polynomial serves an interval of twice its width, and nobody
computes the borrow. Row h has coefficients T_i[h] of (t / 2^low)^i, so that 2^(2 low) y = sum_i 2^((2 - i) low) T_i[h] t^i.
P deals bits e_C and e_S, 2^k of each: e_C from k_CP, e_S = e_C but for bit r_hi. Then sum_j (e_C[j] - e_S[j]) T_i[A_hi - j] = sigma T_i[h] with
sigma = 1 or -1, which P knows: all other terms vanish. C and S each sum over their own bits, and open V_i = sigma T_i[h] + rho_i, whose pads
rho_i come from k_CP and k_SP. As sigma^2 = 1, T_i[h] = sigma (V_i - rho_i), and the polynomial, multiplied out in A_lo, is linear in the six
words sigma, sigma r_lo, sigma r_lo^2, K_0, K_1, K_2, where K collects the terms in rho. P deals shares of these, C's from k_CP.
Each drops the low bits of its sum; C sends the rest as v, and S adds its own. d, from k_CP, is in the server's share of K_0.
Messages: S to C A and the server's halves of V; C to S the client's halves of V, and v. Offline: C's half of A; e_S and the server's shares.
Semi-honest, one corruption. Security: A and V have pads of k_CP and k_SP each; e_S and S's shares have pads of k_CP that S cannot draw; v has the
client's share of K_0, which pads nothing else: in the server's own share of K_0 the bits that v keeps are padded by d.
The sign in place of a share of the table is that of two-server retrieval (Boyle, Gilboa, Ishai, CCS 2016); overlapping rows are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from threepc.kernels import lookup as kernels
from threepc.kernels.gate import Cut
from threepc.kernels.keystream import Source
from threepc.kernels.lookup import COEFFICIENTS, DEALT, RUN, Drawn, Layout, Space
from threepc.kernels.packing import TILE, packed_bytes, padded
from threepc.prf import Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.opening import Opening, draw_words
from threepc.protocol.roles import Client, OpenStream, Provider, Server, Word, scratch
from threepc.ring import word_of

MOST_BITS = 64
"""Of a sum."""


@dataclass(frozen=True)
class Lookup:
    """shape (N, C, H, W); `cut` names the m bits of a reduced value that are opened; table: three times 2^k integers, the rows' coefficients.

    low: bits of an opened value within a row. A row's coefficient i multiplies (t / 2^low)^i. total: bits of the sums, at most 64; dropped: how many of
    them are dropped, so that the result has total - dropped bits, as a value in cut form, and the coefficients' unit times 2^(dropped - 2 low).
    An opened value must not lie in the last two rows, except those within 2^low of the first row, from below.
    """

    op: int
    shape: tuple[int, int, int, int]
    cut: Cut
    low: int
    total: int
    dropped: int
    table: tuple[tuple[int, ...], ...] = field(repr=False)

    @cached_property
    def layout(self) -> Layout:
        """All that is public, as kernels take it."""
        backwards = np.roll(np.array(self.table, np.int64)[:, ::-1], 1, axis=1)
        table = np.ascontiguousarray(np.concatenate([backwards, backwards], axis=1)).reshape(-1).view(np.uint64)
        return Layout(self.rows.bit_length() - 1, self.low, self.total, self.dropped, table)

    @property
    def rows(self) -> int:
        """2^k, those of the table."""
        return len(self.table[0])

    @cached_property
    def count(self) -> int:
        """Elements of the value."""
        n, c, h, w = self.shape
        return n * c * h * w

    @property
    def kept_bits(self) -> int:
        """Bits of the result."""
        return self.total - self.dropped

    @property
    def word(self) -> Word:
        """Word type of the result."""
        return word_of(self.kept_bits)

    @cached_property
    def _opening(self) -> Opening:
        return Opening(self.op, self.count, self.cut)

    @property
    def _coefficient_bytes(self) -> int:
        """Either way: halves of the opened coefficients."""
        return packed_bytes(self.count, COEFFICIENTS * self.total - 3 * self.low)

    @property
    def _value_bytes(self) -> int:
        return packed_bytes(self.count, self.kept_bits)

    @property
    def _dealt_bytes(self) -> int:
        return packed_bytes(self.count, self.rows + DEALT * self.total)

    @cached_property
    def cost(self) -> Cost:
        """Declared bytes and one-way messages."""
        return Cost(
            offline={"provider->server": self._dealt_bytes, "client->server": self._opening.message_bytes},
            online={
                "server->client": self._opening.message_bytes + self._coefficient_bytes,
                "client->server": self._coefficient_bytes + self._value_bytes,
            },
            messages=2,
        )

    @property
    def _choice_words(self) -> int:
        return self.rows // 64

    def _client_stream(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.LOOKUP, self.count, 8 * TILE * (self._choice_words + DEALT + COEFFICIENTS))

    def _server_stream(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.LOOKUP, self.count, 8 * TILE * COEFFICIENTS)

    def _space(self) -> Space:
        sizes = (self._choice_words, DEALT, COEFFICIENTS, COEFFICIENTS, DEALT)
        choice, words, pads, sums, work = (scratch(f"lookup {i}", size * RUN, np.uint64) for i, size in enumerate(sizes))
        return Space(Drawn(choice, words, pads), sums, work)

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray | None:
        """P: deal to the server; its summand of the result is zero. z: zeros (N, C, H, W)."""
        r = self._opening.deal(provider, z.reshape(-1))
        d = draw_words(provider, provider.with_client, self.op, Purpose.ACTIVATION, self.count, self.word)
        message, own = np.empty(self._dealt_bytes, np.uint8), self._client_stream(provider.with_client)
        theirs = self._server_stream(provider.with_server)
        provider.each_part(self.count, lambda tiles: kernels.deal_lookups(r, d, self.layout, own, theirs, tiles, self._space(), message))
        provider.send_offline(self.op, message)
        return None

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C: send its half of the opening; its summand of the result, d. z: C's summand (N, C, H, W)."""
        client.send_offline(self.op, self._opening.prepare(client, z.reshape(-1)))
        d = draw_words(client, client.with_provider, self.op, Purpose.ACTIVATION, self.count, self.word)
        return d[: self.count].reshape(self.shape)

    def infer(self, client: Client) -> None:
        """C's online message."""
        packed, received = client.receive_online(self.op, self._opening.message_bytes, self._coefficient_bytes)
        x, stream = self._opening.infer(client, packed), self._client_stream(client.with_provider)
        message = np.empty(self._coefficient_bytes + self._value_bytes, np.uint8)
        client.each_part(self.count, lambda tiles: kernels.infer_lookups(x, self.layout, received, stream, tiles, self._space(), message))
        client.send_online(self.op, message)

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S's online message; its summand of the result. z: S's summand (N, C, H, W)."""
        (dealt,) = server.receive_dealt(self.op, self._dealt_bytes)
        (half,) = server.receive_prepared(self.op, self._opening.message_bytes)
        x, packed = self._opening.serve(server, z.reshape(-1), half)
        stream, sums = self._server_stream(server.with_provider), np.empty(COEFFICIENTS * padded(self.count), np.uint64)
        message, u = np.empty(self._coefficient_bytes, np.uint8), np.empty(self.count, self.word)
        server.each_part(
            self.count, lambda tiles: kernels.serve_choices(x, self.layout, dealt, stream, tiles, sums, self._space(), message)
        )
        server.send_online(self.op, packed, message)
        (received,) = server.receive_online(self.op, self._coefficient_bytes + self._value_bytes)
        server.each_part(self.count, lambda tiles: kernels.serve_lookups(x, self.layout, sums, dealt, received, tiles, self._space(), u))
        return u.reshape(self.shape)
