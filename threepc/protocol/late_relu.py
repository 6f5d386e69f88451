"""ReLU in six online messages instead of four, for fewer dealt bytes: the gate runs in the cut ring, and its result is lifted to the ring afterwards.

Messages 1 to 4 are relu.py's, with words of kept bits instead of the ring's in the gate, which then lifts nothing (gate.py, kept = bits): S has
x = y - d mod 2^kept of the result y. Two messages lift it. d is the layer's mask; h are its bits from kept on. With R = -d mod 2^kept, M = msb(R), e = 1
unless R = 0, m in -2^(kept-2)..3 2^(kept-2)-1 equal to x mod 2^kept, and n = 1 where m is below 2^(kept-2), else 0: as in gate.py y = m - R + n M 2^kept
where |y| is small, as a truncated value is, and R = 2^kept e - (d mod 2^kept), so that

    u = y - d = m + 2^kept (n M - e - h).

n is S's, and M, e, h are C's and P's. A bit s comes from k_SP, a word w of bits - kept bits from k_CP.
Offline, P to S: kappa = s M - w. Online, 5, S to C: n^ = n XOR s. 6, C to S: a = w - e - h where n^ = 0, a = M - w - e - h where n^ = 1. Then
n M - e - h = a + kappa or a - kappa: for n^ = 0, n is s, and for n^ = 1, n M is M - s M.
Semi-honest, one corruption. Security: C receives n^, uniform by s, which pads nothing else. In the gate k, q and v are padded by t_0, t_1 and by
d mod 2^kept, so S's view until message 4 is uniform and independent of h, w. kappa is uniform by w; given that, a is uniform by h, which pads nothing else, as
the gate's words have kept bits. So S's view is uniform together with kappa and a. tests/protocol/test_views.py goes through all inputs and pads.
Of a value with slopes there is no such variant: its gate's words are longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from threepc.kernels import late_lift
from threepc.kernels.gate import Lift
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE, TILE_WORDS, Tiles, packed_bytes
from threepc.prf import Purpose
from threepc.protocol.gate import Gate
from threepc.protocol.relu import Relu
from threepc.protocol.relu_layer import DecisionBytes, Served
from threepc.protocol.roles import Client, OpenStream, Provider, Server, Turns, plane_words, scratch
from threepc.ring import word_of

WIDEST_LIFT = 31
"""Bits of a lift at most: C keeps one more, in words of 32."""


@dataclass(frozen=True)
class LateLift:
    """The lift of `count` small values, shared as x at S and d at C and P, from a cut ring to the ring."""

    op: int
    count: int
    lift: Lift

    @property
    def _carry_bits(self) -> int:
        return self.lift.bits - self.lift.kept_bits

    @property
    def carry_bytes(self) -> int:
        """P to S, offline: kappa; and C to S, online (message 6): a."""
        return packed_bytes(self.count, self._carry_bits)

    @property
    def choice_bytes(self) -> int:
        """S to C, online (message 5): n^."""
        return 8 * plane_words(self.count, 1)

    @property
    def kept_bytes(self) -> int:
        """What C keeps of d."""
        return packed_bytes(self.count, self._carry_bits + 1)

    def _words(self, open_stream: OpenStream) -> Source:
        """The stream of w."""
        return open_stream(self.op, Purpose.LIFT, self.count, 4 * TILE)

    def _signs(self, open_stream: OpenStream) -> Source:
        """The stream of s."""
        return open_stream(self.op, Purpose.LIFT, self.count, 8 * TILE_WORDS)

    @staticmethod
    def _work() -> np.ndarray:
        return scratch("carries", 2 * TILE, np.uint32)

    def deal(self, provider: Provider, d: np.ndarray) -> np.ndarray:
        """P: the message for S. d: ring words, padded."""
        message, streams = np.empty(self.carry_bytes, np.uint8), (self._words(provider.with_client), self._signs(provider.with_server))

        def work(tiles: Tiles) -> None:
            signs = scratch("signs", TILE_WORDS, np.uint64)
            late_lift.deal_lifts(d, self.lift, *streams, tiles, self._work(), signs, message)

        provider.each_part(self.count, work)
        return message

    def prepare(self, client: Client, d: np.ndarray) -> np.ndarray:
        """C: what `infer` needs of d, ring words, padded."""
        kept = np.empty(self.kept_bytes, np.uint8)
        client.each_part(self.count, lambda tiles: late_lift.keep_lifts(d, self.lift, tiles, self._work(), kept))
        return kept

    def choices(self, server: Server, x: np.ndarray) -> np.ndarray:
        """S: n^ as planes, message 5. x: cut words, flat."""
        choices, stream = np.empty(plane_words(self.count, 1), np.uint64), self._signs(server.with_provider)
        server.each_part(self.count, lambda tiles: late_lift.serve_choices(x, self.lift.kept_bits, stream, tiles, choices))
        return choices

    def infer(self, client: Client, choices: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """C: message 6. choices: S's message 5; kept: from `prepare`."""
        message, stream, planes = np.empty(self.carry_bytes, np.uint8), self._words(client.with_provider), choices.view(np.uint64)
        client.each_part(self.count, lambda tiles: late_lift.infer_lifts(planes, kept, self.lift, stream, tiles, self._work(), message))
        return message

    def serve(self, server: Server, x: np.ndarray, choices: np.ndarray, reply: np.ndarray, dealt: np.ndarray) -> np.ndarray:
        """S: u, flat ring words. x, choices: of `choices`; reply, dealt: the messages of C and P."""
        u = np.empty(self.count, word_of(self.lift.bits))
        server.each_part(self.count, lambda tiles: late_lift.serve_lifts(x, choices, reply, dealt, self.lift, tiles, self._work(), u))
        return u


@dataclass(frozen=True)
class LateRelu(Relu):
    """See `ReluLayer` and `Relu` for the fields: in six messages. Raises ValueError for slopes, and for a lift by no bits or very many."""

    messages: ClassVar[int] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.suits(self):
            raise ValueError("slopes, and lifts by no bits or very many, take four messages")

    @staticmethod
    def suits(relu: Relu) -> bool:
        """Whether there is such a variant of a ReLU."""
        return relu.slopes is None and 0 < relu.ring - relu.cut.kept_bits <= WIDEST_LIFT

    @cached_property
    def gate(self) -> Gate:
        """Of the channels that decide, in the cut ring."""
        kept_bits = self.cut.kept_bits
        return Gate(self.op, self.opening.count, Lift(kept_bits, kept_bits), self.constant)

    @cached_property
    def late_lift(self) -> LateLift:
        """Of what the gate gives."""
        return LateLift(self.op, self.opening.count, self._lift)

    @cached_property
    def decision_bytes(self) -> DecisionBytes:
        """Wires, bits, gates and lifts."""
        four, lift = super().decision_bytes, self.late_lift
        dealt, server, client = [*four.dealt, lift.carry_bytes], four.server + lift.choice_bytes, four.client + lift.carry_bytes
        return four._replace(dealt=dealt, server=server, client=client)

    @property
    def kept_bytes(self) -> int:
        """What C keeps of d."""
        return self.late_lift.kept_bytes if self.decide else 0

    def _deal_decisions(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
        low = d.astype(word_of(self.cut.kept_bits), copy=False)
        return [*super()._deal_decisions(provider, r, low), self.late_lift.deal(provider, d)]

    def _keep(self, client: Client, d: np.ndarray) -> list[np.ndarray]:
        return [self.late_lift.prepare(client, d)]

    def _infer_decisions(self, client: Client, x: np.ndarray, first: np.ndarray, reply: list[np.ndarray]) -> Turns[None]:
        yield from super()._infer_decisions(client, x, first, reply)
        yield
        (choices,) = client.receive_online(self.op, self.late_lift.choice_bytes)
        client.send_online(self.op, self.late_lift.infer(client, choices, *client.take_kept(self.op + 1)))

    def _serve_decisions(self, server: Server, at: Served) -> Turns[tuple[np.ndarray, np.ndarray]]:
        lift, of_lift = self.late_lift, at.dealt[len(self.decision_bytes.dealt) - 1]
        x, passed = yield from super()._serve_decisions(server, at)
        choices = lift.choices(server, x)
        server.send_online(self.op, choices)
        yield
        (reply,) = server.receive_online(self.op, lift.carry_bytes)
        return lift.serve(server, x, choices, reply, of_lift), passed
