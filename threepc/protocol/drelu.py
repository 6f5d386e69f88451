"""DReLU: XOR shares of b = [y - r >= 0], then b^ = b XOR beta opened, from a value y public to C and S and its mask r, known to P.

    b = 1 XOR bit hi of y XOR bit hi of r XOR [ window(y) < window(r) ]

y and r are cut words; the window is `width` bits from bit `first` on, its sign bit the one above: valid for -2^hi <= y - r < 2^hi in units of
the lowest bit. Semi-honest, one corruption. Offline: P deals XOR shares of one-hot tables of r, C's half from k_CP, S's half sent. Online:
C and S open masked wires; the masks' halves come from k_CP and k_SP. Security: every plane sent is one-time padded by a plane its receiver
cannot draw. Messages 1 to 4 are S to C, C to S, S to C, C to S; the caller sends them together with its own.
Tables and leaves: CrypTFlow2 (Rathee et al., CCS 2020); many-input ANDs: ABY2.0 (Patra et al., USENIX Security 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import runs
from threepc.kernels.packing import TILE_WORDS, padded
from threepc.prf import Purpose
from threepc.protocol.roles import Client, Provider, Server, plane_words, scratch
from threepc.protocol.window import Window, window


@dataclass(frozen=True)
class DRelu:
    """The decisions of one layer: `count` of them over a window of `width` bits from bit `first` of the cut words.

    many: how often each is taken, on as many public values y with one mask r (a clip decides on x and on x - c): the tables serve them all.
    """

    op: int
    count: int
    first: int
    width: int
    many: int = 1

    @cached_property
    def window(self) -> Window:
        """The public layout of the comparison."""
        return window(self.width)

    # What travels, in bytes

    @property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return 8 * plane_words(self.count, self._shared_rows + self.many * self.window.product_rows)

    @property
    def leaf_bytes(self) -> int:
        """Either way: the leaf wires (messages 1 and 2)."""
        return 8 * self.many * plane_words(self.count, len(self.window.groups.wires))

    @property
    def group_bytes(self) -> int:
        """Either way: the group wires (messages 2 and 3)."""
        return 8 * self.many * plane_words(self.count, len(self.window.top.wires))

    @property
    def bit_bytes(self) -> int:
        """Either way: one bit (messages 3 and 4)."""
        return 8 * self.many * plane_words(self.count, 1)

    @property
    def _shared_rows(self) -> int:
        """Rows that all decisions share: tables and the mask's sign bit."""
        return self.window.table_rows + 1

    @property
    def _client_rows(self) -> int:
        """Rows that C and P draw: halves of what P deals, wire masks, beta_C."""
        return self._shared_rows + self.many * (self.window.product_rows + self.window.wires + 1)

    @property
    def _server_rows(self) -> int:
        """Rows that S and P draw: wire masks, beta_S."""
        return self.many * (self.window.wires + 1)

    def _draw(self, open_stream, rows: int):
        return open_stream(self.op, Purpose.DECISION, self.count, 8 * rows * TILE_WORDS)

    def _planes(self, rows: int) -> np.ndarray:
        """Room for `rows` planes of every decision, flat, a row a decision."""
        return np.empty((self.many, plane_words(self.count, rows)), np.uint64)

    def _received(self, part: np.ndarray) -> np.ndarray:
        """A part of a message, a row a decision."""
        return part.reshape(self.many, -1)

    def _work(self) -> np.ndarray:
        """Scratch of one tile for bits, leaves, opened wires and groups."""
        rows = self.width + 1 + 2 * len(self.window.chunks) + self.window.wires + len(self.window.groups.start)
        return scratch("comparison", rows * TILE_WORDS, np.uint64)

    # P

    def deal(self, provider: Provider, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The message for S, and beta_C and beta_S as planes (many, words). r: cut words of the whole run."""
        message, betas = np.empty(self.dealt_bytes, np.uint8), (self._planes(1), self._planes(1))
        mine, theirs = self._server_rows, self._client_rows
        client, server = self._draw(provider.with_client, theirs), self._draw(provider.with_server, mine)

        def work(first, last):
            rows, masks = scratch("client rows", theirs * TILE_WORDS, np.uint64), scratch("server rows", mine * TILE_WORDS, np.uint64)
            runs.deal_all_decisions(
                self.window.tables, self.many, r, self.first, client, server, first, last, rows, masks, self._work(), message, *betas
            )

        provider.each_part(self.count, work)
        return message, *betas

    # S

    def serve_leaves(self, server: Server, y: np.ndarray, dealt: np.ndarray) -> ServerDecisions:
        """Message 1's leaf wires and all that S keeps. y: cut words, a row a decision; dealt: P's message."""
        source, masks = self._draw(server.with_provider, self._server_rows), np.empty(plane_words(self.count, self._server_rows), np.uint64)
        planes = len(self.window.groups.wires), len(self.window.groups.start), 1
        state = ServerDecisions(self, dealt, masks, *map(self._planes, planes))

        def work(first, last):
            runs.serve_all_leaves(
                self.window.tables,
                y,
                self.first,
                source,
                first,
                last,
                dealt,
                masks,
                self._work(),
                state.leaf_wires,
                state.groups,
                state.beta,
            )

        server.each_part(self.count, work)
        return state

    # C

    def infer_leaves(self, client: Client, y: np.ndarray, their_leaves: np.ndarray) -> ClientDecisions:
        """From message 1, message 2's leaf and group wires and all that C keeps. y: cut words, a row a decision."""
        source, rows, theirs = self._draw(client.with_provider, self._client_rows), self._client_rows, self._received(their_leaves)
        top = self.window.top
        state = ClientDecisions(
            self, *map(self._planes, (len(self.window.groups.wires), len(top.wires), len(top.wires) + len(top.factors), 1, 1))
        )

        def work(first, last):
            drawn = scratch("client rows", rows * TILE_WORDS, np.uint64)
            runs.infer_all_leaves(
                self.window.tables,
                y,
                self.first,
                source,
                first,
                last,
                drawn,
                theirs,
                self._work(),
                state.leaf_wires,
                state.group_wires,
                state.kept,
                state.share,
                state.beta,
            )

        client.each_part(self.count, work)
        return state


@dataclass(frozen=True)
class ServerDecisions:
    """What S keeps between its messages; all but dealt and masks flat planes, a row a decision."""

    drelu: DRelu
    dealt: np.ndarray
    masks: np.ndarray
    leaf_wires: np.ndarray
    groups: np.ndarray
    beta: np.ndarray

    def serve_groups(self, server: Server, their_leaves: np.ndarray, their_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From message 2: message 3's group wires and S's half of b^."""
        drelu, tables = self.drelu, self.drelu.window.tables
        wires, bit = drelu._planes(len(tables.top_wires)), drelu._planes(1)
        received = drelu._received(their_leaves), drelu._received(their_groups)

        def work(first, last):
            runs.serve_all_tops(
                tables,
                padded(drelu.count),
                first,
                last,
                self.dealt,
                self.masks,
                self.leaf_wires,
                *received,
                drelu._work(),
                self.groups,
                wires,
                bit,
            )

        server.each_part(drelu.count, work)
        return wires, bit


@dataclass(frozen=True)
class ClientDecisions:
    """What C keeps between its messages: flat planes, a row a decision."""

    drelu: DRelu
    leaf_wires: np.ndarray
    group_wires: np.ndarray
    kept: np.ndarray
    share: np.ndarray
    beta: np.ndarray

    def infer_bit(self, client: Client, their_groups: np.ndarray) -> np.ndarray:
        """From message 3: C's half of b^, for message 4."""
        drelu, theirs = self.drelu, self.drelu._received(their_groups)

        def work(first, last):
            runs.infer_all_tops(
                drelu.window.tables,
                padded(drelu.count),
                first,
                last,
                self.kept,
                self.group_wires,
                theirs,
                self.beta,
                drelu._work(),
                self.share,
            )

        client.each_part(drelu.count, work)
        return self.share


def opened(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """b^ as planes, a row a decision, from both halves."""
    return mine ^ theirs.view(np.uint64).reshape(mine.shape)
