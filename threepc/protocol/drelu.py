"""DReLU: XOR shares of b = [y - r >= 0], then b^ = b XOR beta opened, from a value y public to C and S and its mask r, known to P.

    b = 1 XOR bit hi of y XOR bit hi of r XOR [ window(y) < window(r) ]

y and r are cut words; the window is `width` bits from bit `low_bit` on, its sign bit the one above: valid for -2^hi <= y - r < 2^hi in units of
the lowest bit. Semi-honest, one corruption. Offline: P deals XOR shares of one-hot tables of r, and of products of masks: one party draws its half with
P, the other is told its own, which is the first half XOR what is shared. By default C draws from k_CP and S is told; `to_client` is the other
way round, S draws from k_SP and C is told. Online: C and S open masked wires; the masks' halves come from k_CP and k_SP. Security: every plane
sent is one-time padded by a plane its receiver cannot draw: the halves of who is told by those of the other, wires by the masks of their sender.
Which of the two is told is public. Under each key the address (op, DECISION) has one stream: of who draws the half, the half and then its masks,
of who is told, its masks alone. k_CP and k_SP are two keys, so the same address gives independent words, and no position is drawn twice.
Messages 1 to 4 are S to C, C to S, S to C, C to S; the caller sends them together with its own.
Tables and leaves: CrypTFlow2 (Rathee et al., CCS 2020); many-input ANDs: ABY2.0 (Patra et al., USENIX Security 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels import runs
from threepc.kernels.decisions import ClientPlanes, ClientReceived, ClientWires, Comparison, Dealt, Rows, ServerPlanes, ServerWires
from threepc.kernels.keystream import Source
from threepc.kernels.packing import TILE_WORDS, Tiles
from threepc.prf import Purpose
from threepc.protocol.roles import Client, OpenStream, Provider, Server, plane_words, scratch
from threepc.protocol.window import Window, window

NOTHING = np.empty(0, np.uint8)
"""What P sends to who draws its share."""


@dataclass(frozen=True)
class DRelu:
    """The decisions of one layer: `count` masked values, compared by a window of `width` bits from bit `low_bit` of the cut words.

    decisions: how often each mask serves, for as many public values y (a clip decides on x and on x - c): the tables are the same.
    to_client: whether C is told its share of what P deals, and S draws its own, instead of the other way round.
    """

    op: int
    count: int
    low_bit: int
    width: int
    decisions: int = 1
    to_client: bool = False

    @cached_property
    def window(self) -> Window:
        """The public layout of the comparison."""
        return window(self.width)

    @cached_property
    def comparison(self) -> Comparison:
        """All that is public, as kernels take it."""
        layout, many = self.window, self.decisions
        shared, products, leaves, top = layout.table_rows + 1, layout.product_rows, len(layout.groups.wires), len(layout.top.wires)
        own = many * (leaves + top + 1)
        rows = Rows(self.width, shared, products, leaves, top, shared + many * products, own)
        return Comparison(layout.tables, rows, self.low_bit, many)

    # What travels, in bytes

    @cached_property
    def dealt_bytes(self) -> int:
        """P to S, or to C, offline."""
        return 8 * plane_words(self.count, self.comparison.rows.dealt)

    @cached_property
    def leaf_bytes(self) -> int:
        """Either way: the leaf wires (messages 1 and 2)."""
        return 8 * self.decisions * plane_words(self.count, self.comparison.rows.leaves)

    @cached_property
    def group_bytes(self) -> int:
        """Either way: the group wires (messages 2 and 3)."""
        return 8 * self.decisions * plane_words(self.count, self.comparison.rows.top)

    @cached_property
    def bit_bytes(self) -> int:
        """Either way: one bit (messages 3 and 4)."""
        return 8 * self.decisions * plane_words(self.count, 1)

    def _draw(self, open_stream: OpenStream, is_told: bool) -> tuple[Source, int]:
        """What a party draws with P, and how many rows: its own masks, and its share of what P deals unless it is told that."""
        rows = self.comparison.rows.own + (0 if is_told else self.comparison.rows.dealt)
        return open_stream(self.op, Purpose.DECISION, self.count, 8 * rows * TILE_WORDS), rows

    def _planes(self, rows: int) -> np.ndarray:
        """Room for `rows` planes of every decision, flat, a row a decision."""
        return np.empty((self.decisions, plane_words(self.count, rows)), np.uint64)

    def _received(self, part: np.ndarray) -> np.ndarray:
        """A part of a message, a row a decision."""
        return part.reshape(self.decisions, -1)

    def _work(self) -> np.ndarray:
        """Scratch of one tile for bits, leaves, opened wires and groups."""
        rows = self.width + 1 + 2 * len(self.window.chunks) + self.window.wires + len(self.window.groups.start)
        return scratch("comparison", rows * TILE_WORDS, np.uint64)

    # P

    def deal(self, provider: Provider, r: np.ndarray) -> Dealt:
        """The message for who is told, and the betas. r: cut words of the whole run."""
        dealt = Dealt(np.empty(self.dealt_bytes, np.uint8), self._planes(1), self._planes(1))
        drawing, told = provider.with_client, provider.with_server
        if self.to_client:
            drawing, told = told, drawing
        (stream, both), (told_stream, own) = self._draw(drawing, False), self._draw(told, True)

        def work(tiles: Tiles) -> None:
            drawn = scratch("drawn rows", both * TILE_WORDS, np.uint64)
            masks = scratch("own rows", own * TILE_WORDS, np.uint64)
            space = runs.DealScratch(drawn, masks, self._work())
            runs.deal_all_decisions(self.comparison, r, stream, told_stream, tiles, space, dealt)

        provider.each_part(self.count, work)
        return dealt

    def betas(self, dealt: Dealt) -> tuple[np.ndarray, np.ndarray]:
        """beta_C and beta_S of what P has dealt."""
        return (dealt.beta_told, dealt.beta_drawn) if self.to_client else (dealt.beta_drawn, dealt.beta_told)

    # S

    def serve_leaves(self, server: Server, y: np.ndarray, dealt: np.ndarray) -> ServerPlanes:
        """Message 1's leaf wires and all that S keeps. y: cut words, a row a decision; dealt: P's message, empty where C is told."""
        stream, rows = self._draw(server.with_provider, not self.to_client)
        drawn, groups = np.empty(plane_words(self.count, rows), np.uint64), self._planes(len(self.window.groups.start))
        planes = ServerPlanes(dealt, drawn, self._planes(self.comparison.rows.leaves), groups, self._planes(1))
        server.each_part(self.count, lambda tiles: runs.serve_all_leaves(self.comparison, y, stream, tiles, planes, self._work()))
        return planes

    def serve_groups(self, server: Server, planes: ServerPlanes, leaves: np.ndarray, groups: np.ndarray) -> ServerWires:
        """From message 2: message 3's group wires and S's half of b^. planes: from `serve_leaves`, whose groups change."""
        wires = ServerWires(self._planes(self.comparison.rows.top), self._planes(1))
        received = ClientWires(self._received(leaves), self._received(groups))
        server.each_part(self.count, lambda tiles: runs.serve_all_tops(self.comparison, tiles, planes, received, self._work(), wires))
        return wires

    # C

    def infer_leaves(self, client: Client, y: np.ndarray, leaves: np.ndarray, dealt: np.ndarray = NOTHING) -> ClientPlanes:
        """From message 1, message 2's leaf and group wires and all that C keeps. y: cut words, a row a decision; dealt: P's message where C is told."""
        rows, (stream, drawn_rows) = self.comparison.rows, self._draw(client.with_provider, self.to_client)
        kept, received = rows.top + len(self.window.top.factors), ClientReceived(dealt, self._received(leaves))
        planes = ClientPlanes(*map(self._planes, (rows.leaves, rows.top, kept, 1, 1)))

        def work(tiles: Tiles) -> None:
            drawn = scratch("drawn rows", drawn_rows * TILE_WORDS, np.uint64)
            runs.infer_all_leaves(self.comparison, y, stream, tiles, received, drawn, planes, self._work())

        client.each_part(self.count, work)
        return planes

    def infer_bit(self, client: Client, planes: ClientPlanes, groups: np.ndarray) -> np.ndarray:
        """From message 3: C's half of b^, for message 4. planes: from `infer_leaves`, whose share it becomes."""
        theirs = self._received(groups)
        client.each_part(self.count, lambda tiles: runs.infer_all_tops(self.comparison, tiles, planes, theirs, self._work()))
        return planes.share


def opened(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """b^ as planes, a row a decision, from both halves."""
    return mine ^ theirs.view(np.uint64).reshape(mine.shape)
