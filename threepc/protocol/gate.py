"""Gate: from opened x with mask r and an opened bit b^ = b XOR beta to the masked activation u + d = b * (x - r), lifted to the ring.

With R = r, M = msb(r) * 2^kept, y = x + 2^(kept-2), m = y - 2^(kept-2), n = 1 - msb(y): m and n are public to C and S, and x - r, whose size
is below 2^(kept-2), equals m - R + n M in the ring of `bits` bits (Dalskov, Escudero, Keller, PoPETs 2020). beta_C, t_0, t_1, w_0, w_1 and d
come from k_CP, beta_S from k_SP; sigma = 1 - 2 beta_S. Semi-honest, one corruption.
Offline, P to S: k_0 = -sigma t_0 - beta R - d, k_1 = sigma t_1 - (1 - beta) R - d, q_0 = beta M - sigma w_0, q_1 = (1 - beta) M + sigma w_1.
Online, C to S: v = beta_C m + t_b^ + n w_b^, one branch, never both. Security: k, q and v are each padded by a word S cannot draw, and the
pads of the branch not taken stay secret. Without a lift (kept = bits) M and q vanish.

With public slopes a and e the gate yields a (x - r) where b = 0 and e (x - r) where b = 1. The sum m - R + n M holds between integers, none of
which wraps, so each party multiplies what it knows by a slope and rounds: with m_a, m_e = round(a m), round(e m), and so for R and M, it is
m_a + b (m_e - m_a) - R_b + n M_b. So m_e - m_a takes the place of m above, S adds m_a, and P deals -R_b, M_b of the b that each b^ stands for in
place of -beta R, beta M. The result is right to a unit. A slope is a multiple of 2^-bits, thus M_b one of 2^(kept - bits): q and w are `bits` bits
longer. The pads are as many and drawn as above, and so is the argument.

With a constant c the gate yields b * (x - r) + b' * c for a second bit b' with b'^ = b' XOR beta' opened: a clip is (b_0 XOR b_c) x + b_c c.
P also sends kappa_0 = beta' c - sigma p_0, kappa_1 = (1 - beta') c - sigma p_1, with pads p_0, p_1 from k_CP of which C adds p_b'^ to v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import runs
from threepc.kernels.gate import Lift, Slopes
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE, packed_bytes
from threepc.kernels.runs import GateInput, GateMasks, GateScratch
from threepc.prf import Purpose
from threepc.protocol.roles import Client, OpenStream, Provider, Server, Word, scratch
from threepc.ring import word_of


@dataclass(frozen=True)
class Gate:
    """The gate of `count` elements from a cut ring to the ring; constant: c in units of the result, or None; slopes: None for 0 and 1."""

    op: int
    count: int
    lift: Lift
    constant: int | None = None
    slopes: Slopes | None = None

    @cached_property
    def _carry_bits(self) -> int:
        """Of n M in units of its own: `NARROW_LIFT` at most, and 32 with slopes."""
        return self.lift.bits - self.lift.kept_bits + (self.slopes.bits if self.slopes else 0)

    @property
    def _mask_word(self) -> Word:
        """Holds w_0 and w_1."""
        return np.uint64 if self.slopes else np.uint32

    @property
    def word(self) -> Word:
        """Word type of the ring."""
        return word_of(self.lift.bits)

    @cached_property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return packed_bytes(self.count, self._pad_words * self.lift.bits + 2 * self._carry_bits)

    @cached_property
    def value_bytes(self) -> int:
        """C to S, online (message 4): v."""
        return packed_bytes(self.count, self.lift.bits)

    @property
    def _pad_words(self) -> int:
        """t_0, t_1 and, where there are any, p_0, p_1."""
        return 2 if self.constant is None else 4

    def pads(self, open_stream: OpenStream) -> Source:
        """The stream of t_0, t_1 and, where there are any, p_0, p_1, w."""
        each = self._pad_words * np.dtype(self.word).itemsize + np.dtype(self._mask_word).itemsize * (self._carry_bits > 0)
        return open_stream(self.op, Purpose.GATE, self.count, TILE * each)

    def _work(self) -> np.ndarray:
        return scratch("work", 5 * TILE, self.word)

    def space(self) -> GateScratch:
        """Scratch of one tile."""
        return GateScratch(scratch("pads", self._pad_words * TILE, self.word), scratch("w", TILE, self._mask_word), self._work())

    def deal(self, provider: Provider, masks: GateMasks) -> np.ndarray:
        """P: the message for S."""
        message, stream = np.empty(self.dealt_bytes, np.uint8), self.pads(provider.with_client)
        shape = self.lift, self.slopes, self.word((self.constant or 0) & np.iinfo(self.word).max)
        provider.each_part(self.count, lambda tiles: runs.deal_gates(masks, *shape, stream, tiles, self.space(), message))
        return message

    def infer(self, client: Client, given: GateInput) -> np.ndarray:
        """C: the message v."""
        message, stream = np.empty(self.value_bytes, np.uint8), self.pads(client.with_provider)
        shape = self.lift, self.slopes
        client.each_part(self.count, lambda tiles: runs.infer_gates(given, *shape, stream, tiles, self.space(), message))
        return message

    def serve(self, server: Server, given: GateInput, v: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat, `count` ring words. v, dealt: the messages of C and P."""
        u = np.empty(self.count, self.word)
        shape = self.lift, self.slopes
        server.each_part(self.count, lambda tiles: runs.serve_gates(given, v, dealt, *shape, tiles, self._work(), u))
        return u
