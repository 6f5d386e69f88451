"""The gate in one exchange: C sends v for both values of b^, and S can read the one that is true, which neither of them knows alone.

C knows its half h_C of b^ and all selectors T_c before it sends; S's half is h_S = XOR_c T_c s_c, with bits s_c of P's dealing (one_level.py).
For every element C and P draw from k_CP one word Delta and a label l_c for each class. Offline P sends S

    K_c = l_c XOR s_c Delta,      so that K* = XOR_c T_c K_c = l* XOR h_S Delta,  where l* = XOR_c T_c l_c is C's

Online C sends, for j = 0, 1, ct_j = v_(j XOR h_C) XOR l* XOR j Delta, in words of the ring. S knows K* and h_S, hence ct_(h_S) XOR K* = v_b^: what
gate.py's message 4 says, and all that follows is gate.py's.
Semi-honest, one corruption. C receives nothing. S sees, beside what gate.py shows it, the labels and one ciphertext more. Given all s_c and T_c and
Delta, labels K_c are uniform, because every l_c pads one word alone. So Delta is uniform given them, and pads the other ciphertext, ct_(1 - h_S) =
v_(not b^) XOR K* XOR Delta, and nothing else: Delta and labels serve one element and one decision. That is why a clip, whose gate has two bits, is not
done this way, and why pixels of one patch, who share their decision, have Deltas and labels of their own.
Labels with a global difference: Kolesnikov, Schneider (free XOR, ICALP 2008); here Delta is fresh and the pads are perfect. Dealing one label for all
secrets that meet one selector is ours: 2^n - 1 of them for n chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import labels
from threepc.kernels.gate import Lift, Slopes
from threepc.kernels.keystream import Source
from threepc.kernels.one_level import Choice
from threepc.kernels.packing import TILE, Tiles, packed_bytes
from threepc.kernels.runs import GateInput, GateMasks
from threepc.prf import Purpose
from threepc.protocol.gate import Gate
from threepc.protocol.roles import Client, OpenStream, Provider, Server, scratch


@dataclass(frozen=True)
class LabelledGate:
    """The gate of `count` elements from a cut ring to the ring, by a decision with `classes` secrets; slopes: None for 0 and 1."""

    op: int
    count: int
    lift: Lift
    classes: int
    slopes: Slopes | None = None

    @cached_property
    def gate(self) -> Gate:
        """What it does once v is open."""
        return Gate(self.op, self.count, self.lift, None, self.slopes)

    @property
    def label_bytes(self) -> int:
        """P to S, offline, besides the gate's own: K_c."""
        return packed_bytes(self.count, self.classes * self.lift.bits)

    @property
    def branch_bytes(self) -> int:
        """C to S, online (message 2): ct_0, ct_1."""
        return packed_bytes(self.count, 2 * self.lift.bits)

    def _labels(self, open_stream: OpenStream) -> Source:
        return open_stream(self.op, Purpose.LABEL, self.count, TILE * (self.classes + 1) * np.dtype(self.gate.word).itemsize)

    def _space(self, rows: int) -> np.ndarray:
        return scratch("labels", rows * TILE, self.gate.word)

    def deal(self, provider: Provider, masks: GateMasks, secrets: np.ndarray) -> list[np.ndarray]:
        """P: the messages for S, the gate's and the labels. secrets: S's shares s_c, planes (classes, words)."""
        message, stream = np.empty(self.label_bytes, np.uint8), self._labels(provider.with_client)

        def work(tiles: Tiles) -> None:
            labels.deal_labels(secrets, self.lift.bits, stream, tiles, self._space(self.classes + 1), message)

        provider.each_part(self.count, work)
        return [self.gate.deal(provider, masks), message]

    def infer(self, client: Client, x: np.ndarray, choice: Choice) -> np.ndarray:
        """C: ct_0, ct_1. x: cut words, padded; choice: C's, spread over elements."""
        message, streams = np.empty(self.branch_bytes, np.uint8), (self.gate.pads(client.with_provider), self._labels(client.with_provider))
        shape = self.lift, self.slopes

        def work(tiles: Tiles) -> None:
            space = self._space(self.classes + 1)
            labels.infer_branches(x, choice, *shape, streams, tiles, (self.gate.space(), space), message)

        client.each_part(self.count, work)
        return message

    def serve(
        self, server: Server, x: np.ndarray, opened: np.ndarray, choice: Choice, sent: np.ndarray, dealt: list[np.ndarray]
    ) -> np.ndarray:
        """S: u, flat, `count` ring words. opened: planes of b^; choice: S's, spread over elements; sent, dealt: the messages of C and P."""
        of_gate, of_labels = dealt
        v = np.empty(self.gate.value_bytes, np.uint8)

        def work(tiles: Tiles) -> None:
            labels.open_branches(choice, of_labels, sent, self.lift.bits, tiles, self._space(3), v)

        server.each_part(self.count, work)
        return self.gate.serve(server, GateInput(x, opened[None], choice.beta), v, of_gate)
