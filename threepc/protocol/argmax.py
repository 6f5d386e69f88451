"""Argmax to the client alone: a tournament over the channels, of which only the winner's index is opened.

Every value is shifted left by k bits, and S adds its channel's index in the bits so freed (public, so its summand alone carries it). The
maximum of such words carries the index of its channel in its low k bits; equal values go to the higher index. One comparison halves the
channels, as in max_pool.py: max(a, b) = b + ReLU(a - b). Then the opening of input_output.py, modulo 2^k, shows C the index and nothing of
the values. Semi-honest, one corruption; security is that of ReLU and of the output. Carrying the index in the value's own word is ours: no
second gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels.gate import Cut
from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Output
from threepc.protocol.max_pool import no_summand
from threepc.protocol.relu import Relu
from threepc.protocol.relu_layer import OPS, ReluLayer
from threepc.protocol.roles import Client, Provider, Server
from threepc.protocol.summands import cut_summand
from threepc.ring import word_of


@dataclass(frozen=True)
class Argmax:
    """Over the channels of `shape` (N, C, H, W); values have `bits` bits, of which the low `shift` do not count; relu: the protocol of comparisons."""

    op: int
    shape: tuple[int, int, int, int]
    bits: int
    shift: int
    relu: Callable[..., ReluLayer] = Relu

    @cached_property
    def index_bits(self) -> int:
        """k, the bits of a channel's index."""
        return max(1, (self.shape[1] - 1).bit_length())

    @cached_property
    def word_bits(self) -> int:
        """Bits of the ring in which values with their index are compared."""
        return min(64, self.bits - self.shift + self.index_bits)

    @cached_property
    def cut(self) -> Cut:
        """The bits of a value that count and fit beside an index."""
        return Cut(self.bits, self.shift, self.word_bits - self.index_bits)

    @cached_property
    def rounds(self) -> tuple[ReluLayer, ...]:
        """The comparisons: one for each time that the channels are halved."""
        (n, left, h, w), whole = self.shape, Cut(self.word_bits, 0, self.word_bits)
        rounds: list[ReluLayer] = []
        while left > 1:
            shape = (n, left // 2, h, w)
            rounds.append(self.relu(self.op + OPS * len(rounds), shape, whole, self.word_bits, low_bit=0, width=self.word_bits - 1))
            left -= left // 2
        return tuple(rounds)

    @cached_property
    def output(self) -> Output:
        """The opening of the index."""
        n, _, h, w = self.shape
        return Output(self.op + OPS * len(self.rounds), n * h * w, self.index_bits, 0)

    @property
    def ops(self) -> int:
        """Addresses taken."""
        return self.output.op + 1 - self.op

    @cached_property
    def cost(self) -> Cost:
        """All comparisons and the opening of the index."""
        return sum((relu.cost for relu in self.rounds), self.output.cost)

    def _words(self, z: np.ndarray, at_server: bool) -> np.ndarray:
        word = word_of(self.word_bits)
        words: np.ndarray = cut_summand(z, self.cut, at_server).astype(word) << word(self.index_bits)
        if at_server:
            words += np.arange(self.shape[1]).astype(word)[None, :, None, None]
        return words

    def _run(self, words: np.ndarray, compare: Callable[[ReluLayer, np.ndarray], np.ndarray]) -> np.ndarray:
        for relu in self.rounds:
            half = relu.shape[1]
            a, b = words[:, :half], words[:, half : 2 * half]
            words = np.concatenate([b + compare(relu, a - b), words[:, 2 * half :]], axis=1)
        return words.astype(word_of(self.index_bits))

    def deal(self, provider: Provider, z: np.ndarray) -> None:
        """P, offline. z: its summand (N, C, H, W)."""
        self.output.deal(provider, self._run(self._words(z, False), lambda relu, a_less_b: no_summand(relu.deal(provider, a_less_b))))

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline; returns what `infer` needs."""
        return self.output.prepare(client, self._run(self._words(z, False), lambda relu, a_less_b: relu.prepare(client, a_less_b)))

    def serve(self, server: Server, z: np.ndarray) -> None:
        """S, online."""
        self.output.serve(server, self._run(self._words(z, True), lambda relu, a_less_b: relu.serve(server, a_less_b)))

    def infer(self, client: Client, kept: np.ndarray) -> np.ndarray:
        """C, online: the indices (N, 1, H, W). kept: from `prepare`."""
        for relu in self.rounds:
            relu.infer(client)
        n, _, h, w = self.shape
        return self.output.infer(client, kept).reshape(n, 1, h, w)
