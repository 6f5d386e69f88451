"""ReLU and block ReLU in two online messages instead of four, for more dealt bytes: shares of z -> masked activation u + d of b * (z >> shift).

1. S to C: x, and S's wires. 2. C to S: C's wires, its half of b^, and the gate's v for both values of b^, of which S can read one. Built from
opening.py, one_level.py, which decides, labels.py, which multiplies, and, for channels that only pass, identity.py.
What is public, the result and its rounding are relu.py's: only the messages differ. A clip has two decisions and is left to relu.py.
Semi-honest, one corruption; security is that of its parts, which use separate stream addresses. What joins them is beta, and b^ with it: C's view
ends with message 1; S's view is that of relu.py, where C's wires of groups are missing, with secrets in the place of products, and with labels and
one ciphertext more, which are uniform given all else (labels.py). tests/protocol/test_views.py goes through the pads of whole runs of this code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from threepc.kernels.one_level import Choice
from threepc.kernels.runs import GateMasks
from threepc.protocol.labels import LabelledGate
from threepc.protocol.one_level import OneLevel
from threepc.protocol.relu_layer import DecisionBytes, ReluLayer, Served
from threepc.protocol.roles import Client, Provider, Server, Turns


@dataclass(frozen=True)
class QuickRelu(ReluLayer):
    """See `ReluLayer` for the fields: in two messages. Raises ValueError for a clip."""

    messages: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.clip is not None:
            raise ValueError("a clip takes four messages")

    @cached_property
    def one_level(self) -> OneLevel:
        """A decision for every patch; labels are dealt for every pixel."""
        pixels = self.opening.count // max(1, self._patch_count)
        return OneLevel(self.op, self._patch_count, self._low_bit, self.width, pixels * self.ring)

    @cached_property
    def gate(self) -> LabelledGate:
        """Of the channels that decide."""
        return LabelledGate(self.op, self.opening.count, self._lift, self.one_level.classes, self._gate_slopes)

    @property
    def decision_bytes(self) -> DecisionBytes:
        """Wires, a half of the bit, and gates."""
        decision, gate = self.one_level, self.gate
        dealt = [decision.dealt_bytes, gate.gate.dealt_bytes, gate.label_bytes]
        return DecisionBytes(
            dealt, decision.wire_bytes, decision.wire_bytes, decision.wire_bytes + decision.share_bytes + gate.branch_bytes
        )

    def _over_pixels(self, choice: Choice) -> Choice:
        return Choice(self._spread(choice.selectors), self._spread(choice.share[None])[0], self._spread(choice.beta[None])[0])

    def _deal_decisions(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
        message, masks = self.one_level.deal(provider, self._sums(r))
        of_gate = GateMasks(r, self._spread(masks.beta_client[None]), self._spread(masks.beta_server[None]), d)
        return [message, *self.gate.deal(provider, of_gate, self._spread(masks.secrets))]

    def _infer_decisions(self, client: Client, x: np.ndarray, first: np.ndarray, reply: list[np.ndarray]) -> Turns[None]:
        wires, choice = self.one_level.infer(client, self._sums(x), first)
        branches = self.gate.infer(client, x, self._over_pixels(choice))
        client.send_online(self.op, wires, choice.share, branches, *reply)
        yield from ()

    def _serve_decisions(self, server: Server, at: Served) -> Turns[tuple[np.ndarray, np.ndarray]]:
        decision, (packed, *carries), (dealt, *of_gate) = self.one_level, at.message, at.dealt[:3]
        mine, choice = decision.serve_wires(server, self._sums(at.x), dealt)
        server.send_online(self.op, packed, mine, *carries)
        sizes = decision.wire_bytes, decision.share_bytes, self.gate.branch_bytes
        yield
        theirs, share, branches, *reply = server.receive_online(self.op, *sizes, *self._reply_bytes)
        decision.serve_choice(server, dealt, mine, theirs, choice)
        opened = self._spread((choice.share ^ share.view(np.uint64))[None])[0]
        u = self.gate.serve(server, at.x, opened, self._over_pixels(choice), branches, of_gate)
        return u, self._serve_passing(server, at, reply)
