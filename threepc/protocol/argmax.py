"""Argmax to the client alone: a tournament over the channels, of which only the winner's index is opened.

Every value is shifted left by k bits, and S adds its channel's index in the bits so freed (public, so its summand alone carries it). The
maximum of such words carries the index of its channel in its low k bits; equal values go to the higher index. One comparison halves the
channels, as in max_pool.py: max(a, b) = b + ReLU(a - b). Then output.py's opening, modulo 2^k, shows C the index and nothing of the values.
Semi-honest, one corruption; security is that of ReLU and of the output. Carrying the index in the value's own word is ours: no second gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Output
from threepc.protocol.relu import OPS, Relu
from threepc.protocol.roles import Client, Provider, Server
from threepc.protocol.summands import Cut
from threepc.ring import word_of


@dataclass(frozen=True)
class Argmax:
    """Over the channels of `shape` (N, C, H, W); values have `bits` bits, of which the low `shift` do not count."""

    op: int
    shape: tuple[int, int, int, int]
    bits: int
    shift: int

    def __post_init__(self):
        n, channels, h, w = self.shape
        put = lambda name, value: object.__setattr__(self, name, value)
        put("index_bits", max(1, (channels - 1).bit_length()))
        put("cut", min(64, self.bits - self.shift + self.index_bits))
        rounds, op, left = [], self.op, channels
        while left > 1:
            part = (n, left // 2, h, w)
            rounds.append(Relu(op, part, bits=self.cut, shift=0, cut=self.cut, ring=self.cut, first=0, width=self.cut - 1))
            op, left = op + OPS, left - left // 2
        put("rounds", tuple(rounds))
        put("output", Output(op, n * h * w, self.index_bits, 0))
        put("ops", op + 1 - self.op)

    @property
    def cost(self) -> Cost:
        """All comparisons and the opening of the index."""
        return sum((relu.cost for relu in self.rounds), self.output.cost)

    def _words(self, z: np.ndarray, at_server: bool) -> np.ndarray:
        cut = Cut(self.bits, self.shift, self.cut - self.index_bits).apply(z, at_server)
        words = cut.astype(word_of(self.cut)) << word_of(self.cut)(self.index_bits)
        if at_server:
            words += np.arange(self.shape[1]).astype(words.dtype)[None, :, None, None]
        return words

    def _run(self, words: np.ndarray, compare) -> np.ndarray:
        for relu in self.rounds:
            half = relu.shape[1]
            a, b = words[:, :half], words[:, half : 2 * half]
            words = np.concatenate([b + compare(relu, a - b), words[:, 2 * half :]], axis=1)
        return words.astype(word_of(self.index_bits))

    def deal(self, provider: Provider, z: np.ndarray) -> None:
        """P, offline. z: its summand (N, C, H, W)."""

        def compare(relu, difference):
            relu.deal(provider, difference)
            return word_of(self.cut)(0)  # the result is d at C and u at S; nothing is subtracted for P

        self.output.deal(provider, self._run(self._words(z, False), compare))

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline; returns what `infer` needs."""
        return self.output.prepare(client, self._run(self._words(z, False), lambda relu, difference: relu.prepare(client, difference)))

    def serve(self, server: Server, z: np.ndarray) -> None:
        """S, online."""
        self.output.serve(server, self._run(self._words(z, True), lambda relu, difference: relu.serve(server, difference)))

    def infer(self, client: Client, kept: np.ndarray) -> np.ndarray:
        """C, online: the indices (N, 1, H, W)."""
        for relu in self.rounds:
            relu.infer(client)
        n, _, h, w = self.shape
        return self.output.infer(client, kept).reshape(n, 1, h, w)
