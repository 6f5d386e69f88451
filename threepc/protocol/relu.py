"""ReLU, block ReLU and clipped ReLU with the truncation of the product before it: shares of z -> masked activation u + d of b * (z >> shift).

Four online messages, S first: x and S's leaf wires; C's leaf and group wires; S's group wires and bit of b^; C's bit of b^ and v. Built from
opening.py, drelu.py, gate.py and, for channels that only pass, identity.py, whose messages travel with them. For a patch all parties decide
on the sum of its opened values (P on the sum of their masks). A clip at c is ReLU(z) - ReLU(z - c) = (b_0 XOR b_c) z + b_c c with a second
decision b_c on x - c from the same tables: one gate, with a constant. Other bounds, slopes and kinks are public: C and S shift x, the gate has
slopes, S adds what is left.
Both a value and its ReLU come from one opening: the value as identity.py lifts it, with a mask of its own; C knows the carries and needs no message.
Semi-honest, one corruption; security is that of its parts, which use separate stream addresses. Gorski, Jevnisek, Avidan (arXiv 2304.10442).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from threepc.kernels.runs import GateInput, GateMasks
from threepc.protocol.drelu import NOTHING, DRelu, opened
from threepc.protocol.gate import Gate
from threepc.protocol.relu_layer import DecisionBytes, ReluLayer, Served
from threepc.protocol.roles import Client, Provider, Server, Turns


@dataclass(frozen=True)
class Relu(ReluLayer):
    """See `ReluLayer` for the fields: in four messages, of any kind. to_client: as of `DRelu`."""

    to_client: bool = False

    messages: ClassVar[int] = 4

    @cached_property
    def drelu(self) -> DRelu:
        """A decision for every patch and threshold."""
        return DRelu(self.op, self._patch_count, self._low_bit, self.width, len(self.thresholds), self.to_client)

    @cached_property
    def gate(self) -> Gate:
        """Of the channels that decide."""
        return Gate(self.op, self.opening.count, self._lift, self.constant, self._gate_slopes)

    @cached_property
    def decision_bytes(self) -> DecisionBytes:
        """Wires, bits and gates."""
        wires = self.drelu.leaf_bytes + self.drelu.group_bytes + self.drelu.bit_bytes
        planes, gate = self.drelu.dealt_bytes, self.gate.dealt_bytes
        dealt, told = ([gate], planes) if self.to_client else ([planes, gate], 0)
        return DecisionBytes(dealt, self.drelu.leaf_bytes, wires, wires + self.gate.value_bytes, told)

    def _decision_values(self, x: np.ndarray) -> np.ndarray:
        """What each decision compares, a row a decision: the opened values less its threshold, or their sums over patches."""
        values = [self._sums(x - x.dtype.type(c) if c else x) for c in self.thresholds]
        return np.stack(values) if len(values) > 1 else values[0][None]

    def _gate_bits(self, planes: np.ndarray) -> np.ndarray:
        """From bits of the decisions, or their masks, those of the gate, spread over pixels: b_0 XOR b_c, and b_c where there is a clip."""
        planes = self._spread(planes)
        return planes if self.clip is None else np.stack([planes[0] ^ planes[1], planes[1]])

    def _gate_input(self, x: np.ndarray, mine: np.ndarray, theirs: np.ndarray, beta: np.ndarray) -> GateInput:
        """From both halves of b^ and this party's betas."""
        return GateInput(x, self._gate_bits(opened(mine, theirs)), self._gate_bits(beta)[0])

    def _deal_decisions(self, provider: Provider, r: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
        dealt = self.drelu.deal(provider, self._sums(r))
        of_client, of_server = self.drelu.betas(dealt)
        of_gate = self.gate.deal(provider, GateMasks(r, self._gate_bits(of_client), self._gate_bits(of_server), d))
        if not self.to_client:
            return [dealt.message, of_gate]
        provider.send_to_client(self.op, dealt.message)
        return [of_gate]

    def _infer_decisions(self, client: Client, x: np.ndarray, first: np.ndarray, reply: list[np.ndarray]) -> Turns[None]:
        drelu = self.drelu
        told = client.take_dealt(self.op) if self.to_client else []
        planes = drelu.infer_leaves(client, self._decision_values(x), first, *told)
        client.send_online(self.op, planes.leaf_wires, planes.group_wires, *reply)
        yield
        groups, theirs = client.receive_online(self.op, drelu.group_bytes, drelu.bit_bytes)
        mine = drelu.infer_bit(client, planes, groups)
        client.send_online(self.op, mine, self.gate.infer(client, self._gate_input(x, mine, theirs, planes.beta)))

    def _serve_decisions(self, server: Server, at: Served) -> Turns[tuple[np.ndarray, np.ndarray]]:
        drelu, (packed, *carries) = self.drelu, at.message
        told, of_gate, *_ = [NOTHING, *at.dealt] if self.to_client else at.dealt
        planes = drelu.serve_leaves(server, self._decision_values(at.x), told)
        server.send_online(self.op, packed, planes.leaf_wires, *carries)
        yield
        leaves, groups, *reply = server.receive_online(self.op, drelu.leaf_bytes, drelu.group_bytes, *self._reply_bytes)
        wires = drelu.serve_groups(server, planes, leaves, groups)
        server.send_online(self.op, wires.groups, wires.bit)
        passed = self._serve_passing(server, at, reply)
        yield
        theirs, v = server.receive_online(self.op, drelu.bit_bytes, self.gate.value_bytes)
        return self.gate.serve(server, self._gate_input(at.x, wires.bit, theirs, planes.beta), v, of_gate), passed
