"""Byte budgets: who runs ahead stops when the receiver has this much waiting, and goes on as it is used up.

The receiver grants credit for what it has consumed, in control messages that depend on sizes alone; so no party's memory grows with the depth
of a network, and nobody polls. The two ends may have different budgets: all that they must share is GRANT.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from threepc.errors import RunError
from threepc.party.session import number_field
from threepc.transport.channel import Channel
from threepc.transport.framing import Control, Layout

GRANT = 8 << 20
"""Credit is granted when more than this many bytes have been consumed; a sender never waits for credit for fewer."""


class PacedSender:
    """The sending end: `send` waits for credit while more than `budget` bytes would be outstanding (one message always passes)."""

    def __init__(self, channel: Channel, budget: int) -> None:
        self.channel, self._budget, self._outstanding = channel, budget, 0

    def take(self, credit: Control) -> None:
        """Credit that somebody else has received. Raises RunError for more than was sent: so much would be sent ahead to who reads nothing."""
        granted = number_field(credit, "bytes")
        if granted > self._outstanding:
            raise RunError(f"{self.channel.connection.name} grants credit for more than was sent to it")
        self._outstanding -= granted

    def send(self, op: int, parts: Sequence[np.ndarray], phase: str) -> None:
        """As `Channel.send`. Raises also what receiving raises, when the receiver has gone."""
        size = sum(part.nbytes for part in parts)
        while self._outstanding > GRANT and self._outstanding + size > self._budget:
            self.take(self.channel.receive_control("credit"))
        self._outstanding += size
        self.channel.send(op, parts, phase)


class PacedReceiver:
    """The receiving end. Several threads may use it, as a client does that prepares ahead."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self._consumed, self._lock = channel, 0, threading.Lock()

    def receive(self, op: int, layout: Layout) -> list[np.ndarray]:
        """As `Channel.receive`."""
        parts = self.channel.receive(op, layout)
        self.used(sum(part.nbytes for part in parts))
        return parts

    def used(self, size: int) -> None:
        """So many bytes have been consumed, of what somebody received from the channel itself."""
        with self._lock:
            self._consumed += size
            is_enough = self._consumed > GRANT
        if is_enough:
            self.settle()

    def settle(self) -> None:
        """Grant credit for everything consumed so far, unless the sender has gone: what it sent before may be all that is needed."""
        with self._lock:  # what is consumed meanwhile is for the next grant
            consumed, self._consumed = self._consumed, 0
        if not consumed:
            return
        self.channel.connection.collect()  # a send that finds the sender gone would look for its reason, and throw away what is still to be received
        if not self.channel.connection.has_ended:
            self.channel.send_control("credit", {"bytes": consumed})
