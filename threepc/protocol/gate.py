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

from threepc.kernels import runs
from threepc.kernels.packing import TILE, packed_bytes
from threepc.prf import Purpose
from threepc.protocol.roles import Client, Provider, Server, scratch
from threepc.ring import word_of


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
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return packed_bytes(self.count, (2 + self._pad_words) * self.bits - 2 * self.cut)

    @property
    def value_bytes(self) -> int:
        """C to S, online (message 4): v."""
        return packed_bytes(self.count, self.bits)

    @property
    def _pad_words(self) -> int:
        """t_0, t_1 and, where there are any, p_0, p_1."""
        return 2 if self.constant is None else 4

    def _pads(self, open_stream):
        """The stream of t_0, t_1 and, where there are any, p_0, p_1, w."""
        each = self._pad_words * np.dtype(self.word).itemsize + 4 * (self.bits > self.cut)
        return open_stream(self.op, Purpose.GATE, self.count, TILE * each)

    def _space(self) -> tuple[np.ndarray, np.ndarray]:
        return scratch("pads", self._pad_words * TILE, self.word), scratch("w", TILE, np.uint32)

    def deal(self, provider: Provider, r: np.ndarray, betas_client: np.ndarray, betas_server: np.ndarray, d: np.ndarray) -> np.ndarray:
        """P: the message for S. r: cut words, padded; betas_*: planes (1, words) of b's masks, (2, words) with those of b'; d: ring words, padded."""
        message, source, constant = np.empty(self.dealt_bytes, np.uint8), self._pads(provider.with_client), self.word(self.constant or 0)

        def work(first, last):
            space = *self._space(), scratch("work", 4 * TILE, self.word)
            runs.deal_gates(r, betas_client, betas_server, source, first, last, d, self.bits, self.cut, constant, *space, message)

        provider.each_part(self.count, work)
        return message

    def infer(self, client: Client, x: np.ndarray, opened: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """C: the message v. x: cut words, padded; opened: planes of b^ (1, words), or with b'^ (2, words); beta: planes of b's beta_C."""
        message, source = np.empty(self.value_bytes, np.uint8), self._pads(client.with_provider)

        def work(first, last):
            runs.infer_gates(x, opened, beta, source, first, last, self.bits, self.cut, *self._space(), message)

        client.each_part(self.count, work)
        return message

    def serve(self, server: Server, x: np.ndarray, opened: np.ndarray, beta: np.ndarray, v: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat, `count` ring words. x: cut words, padded; opened, beta: as for `infer`, of beta_S; v and dealt: the messages of C and P."""
        u = np.empty(self.count, self.word)

        def work(first, last):
            runs.serve_gates(x, opened, beta, v, dealt, first, last, self.bits, self.cut, scratch("work", 5 * TILE, self.word), u)

        server.each_part(self.count, work)
        return u
