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

import numpy as np

from ..kernels import comparison as kernels
from ..kernels.planes import slice_bits
from .roles import DECISION, TILE_WORDS, Client, Provider, Server, plane_words, scratch
from .window import Window, window

ONES = ~np.uint64(0)


@dataclass(frozen=True)
class DRelu:
    """The decisions of one layer: `count` of them over a window of `width` bits from bit `first` of the cut words."""

    op: int
    count: int
    first: int
    width: int

    @property
    def window(self) -> Window:
        """The public layout of the comparison."""
        return window(self.width)

    # What travels, in bytes

    @property
    def dealt_bytes(self) -> int:
        """P to S, offline."""
        return 8 * plane_words(self.count, self.window.dealt_rows)

    @property
    def leaf_bytes(self) -> int:
        """Either way: the leaf wires (messages 1 and 2)."""
        return 8 * plane_words(self.count, len(self.window.groups.wires))

    @property
    def group_bytes(self) -> int:
        """Either way: the group wires (messages 2 and 3)."""
        return 8 * plane_words(self.count, len(self.window.top.wires))

    @property
    def bit_bytes(self) -> int:
        """Either way: one bit a decision (messages 3 and 4)."""
        return 8 * plane_words(self.count, 1)

    @property
    def _client_rows(self) -> int:
        """Rows that C and P draw: halves of what P deals, wire masks, beta_C."""
        return self.window.dealt_rows + self.window.wires + 1

    @property
    def _server_rows(self) -> int:
        """Rows that S and P draw: wire masks, beta_S."""
        return self.window.wires + 1

    def _rows(self, open_stream, first, rows: int):
        return open_stream(self.op, DECISION, first, 8 * rows * TILE_WORDS)

    # P

    def deal(self, provider: Provider, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The message for S, and beta_C and beta_S as flat planes. r: cut words of the whole run."""
        shape = self.window
        message = np.empty(self.dealt_bytes, np.uint8)
        beta_client, beta_server = (np.empty(plane_words(self.count, 1), np.uint64) for _ in range(2))

        def work(tiles):
            client, server = self._rows(provider.with_client, tiles[0], self._client_rows), self._rows(provider.with_server, tiles[0], self._server_rows)
            for tile in tiles:
                half = client.fill(scratch("client rows", (self._client_rows, tile.words), np.uint64))
                masks = server.fill(scratch("server rows", (self._server_rows, tile.words), np.uint64))
                bits = scratch("bits", (self.width + 1, tile.words), np.uint64)
                slice_bits(r[tile.run], self.first, bits)
                dealt = tile.rows(message, shape.dealt_rows)
                kernels.deal_tables(bits, shape.chunks, half, dealt)
                sign = shape.table_rows
                kernels.xor(bits[self.width :], half[sign : sign + 1], dealt[sign : sign + 1])
                row, wire, mask_row = sign + 1, 0, shape.dealt_rows
                for level in (shape.groups, shape.top):
                    n, w = len(level.factors), len(level.wires)
                    kernels.deal_products(
                        level.factors, half[mask_row + wire : mask_row + wire + w], masks[wire : wire + w], half[row : row + n], dealt[row : row + n]
                    )
                    row, wire = row + n, wire + w
                tile.rows(beta_client, 1)[0] = half[-1]
                tile.rows(beta_server, 1)[0] = masks[-1]

        provider.each_tile(self.count, work)
        return message, beta_client, beta_server

    # S

    def server_leaves(self, server: Server, y: np.ndarray, dealt: np.ndarray) -> ServerDecisions:
        """Message 1's leaf wires and all that S keeps. y: cut words, dealt: P's message."""
        shape = self.window
        state = ServerDecisions(self, dealt, *(np.empty(plane_words(self.count, n), np.uint64) for n in (
            len(shape.groups.wires), self._server_rows, len(shape.groups.start), 1, 1)))

        def work(tiles):
            stream = self._rows(server.with_provider, tiles[0], self._server_rows)
            for tile in tiles:
                masks = stream.fill(tile.rows(state.masks, self._server_rows))
                leaves = self._leaves(tile, y, tile.rows(dealt, shape.dealt_rows), np.uint64(0), None)
                kernels.mask_rows(shape.groups.wires, leaves, masks, tile.rows(state.leaf_wires, len(shape.groups.wires)))
                kernels.copy_rows(shape.groups.start, leaves, tile.rows(state.groups, len(shape.groups.start)))
                tile.rows(state.beta, 1)[0] = masks[-1]

        server.each_tile(self.count, work)
        return state

    def _leaves(self, tile, y, tables, ones, sign):
        """Shares of lt and eq of every chunk; the sign bit of y goes to `sign` where it is given."""
        bits = scratch("bits", (self.width + 1, tile.words), np.uint64)
        slice_bits(y[tile.run], self.first, bits)
        leaves = scratch("leaves", (2 * len(self.window.chunks), tile.words), np.uint64)
        kernels.select_leaves(bits, self.window.chunks, tables, ones, leaves)
        if sign is not None:
            sign[:] = bits[self.width]
        return leaves

    # C

    def client_leaves(self, client: Client, y: np.ndarray, their_leaves: np.ndarray) -> ClientDecisions:
        """From message 1: message 2's leaf and group wires, and all that C keeps."""
        shape = self.window
        leaf, top, products = len(shape.groups.wires), len(shape.top.wires), len(shape.top.factors)
        state = ClientDecisions(self, *(np.empty(plane_words(self.count, n), np.uint64) for n in (leaf, top, top, products, 1, 1)))

        def work(tiles):
            stream = self._rows(client.with_provider, tiles[0], self._client_rows)
            for tile in tiles:
                rows = stream.fill(scratch("client rows", (self._client_rows, tile.words), np.uint64))
                share = tile.rows(state.share, 1)
                leaves = self._leaves(tile, y, rows, ONES, share[0])
                masks = rows[shape.dealt_rows :]
                mine = tile.rows(state.leaf_wires, leaf)
                kernels.mask_rows(shape.groups.wires, leaves, masks, mine)
                opened = scratch("opened", (leaf, tile.words), np.uint64)
                kernels.xor(mine, tile.rows(their_leaves, leaf), opened)
                groups = scratch("groups", (len(shape.groups.start), tile.words), np.uint64)
                kernels.copy_rows(shape.groups.start, leaves, groups)
                dealt = rows[shape.table_rows + 1 : shape.dealt_rows]
                kernels.combine(shape.groups.program, opened, masks[:leaf], dealt, ONES, groups)
                kernels.mask_rows(shape.top.wires, groups, masks[leaf:], tile.rows(state.group_wires, top))
                tile.rows(state.masks, top)[:] = masks[leaf : leaf + top]
                tile.rows(state.products, products)[:] = dealt[len(shape.groups.factors) :]
                tile.rows(state.beta, 1)[:] = rows[-1]
                # lt of the highest group, the sign bits of y and r, and the constant one
                share ^= groups[shape.top.start[0]] ^ rows[shape.table_rows] ^ ONES

        client.each_tile(self.count, work)
        return state


@dataclass(frozen=True)
class ServerDecisions:
    """What S keeps of a comparison between its messages."""

    drelu: DRelu
    dealt: np.ndarray
    leaf_wires: np.ndarray
    masks: np.ndarray
    groups: np.ndarray
    bit: np.ndarray
    beta: np.ndarray

    def groups_and_bit(self, server: Server, their_leaves: np.ndarray, their_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From message 2: message 3's group wires and S's half of b^."""
        drelu, shape = self.drelu, self.drelu.window
        leaf, top = len(shape.groups.wires), len(shape.top.wires)
        wires = np.empty(plane_words(drelu.count, top), np.uint64)

        def work(tiles):
            for tile in tiles:
                masks, dealt = tile.rows(self.masks, drelu._server_rows), tile.rows(self.dealt, shape.dealt_rows)[shape.table_rows :]
                opened = scratch("opened", (max(leaf, top), tile.words), np.uint64)
                kernels.xor(tile.rows(self.leaf_wires, leaf), tile.rows(their_leaves, leaf), opened[:leaf])
                groups = tile.rows(self.groups, len(shape.groups.start))
                kernels.combine(shape.groups.program, opened[:leaf], masks[:leaf], dealt[1:], np.uint64(0), groups)
                mine = tile.rows(wires, top)
                kernels.mask_rows(shape.top.wires, groups, masks[leaf:], mine)
                kernels.xor(mine, tile.rows(their_groups, top), opened[:top])
                bit = tile.rows(self.bit, 1)
                bit[0] = groups[shape.top.start[0]] ^ dealt[0] ^ masks[-1]
                products = dealt[1 + len(shape.groups.factors) :]
                kernels.combine(shape.top.program, opened[:top], masks[leaf : leaf + top], products, np.uint64(0), bit)

        server.each_tile(drelu.count, work)
        return wires, self.bit

    def open(self, their_bit: np.ndarray) -> np.ndarray:
        """From message 4: b^ as a flat plane."""
        return self.bit ^ their_bit.view(np.uint64)


@dataclass(frozen=True)
class ClientDecisions:
    """What C keeps of a comparison between its messages."""

    drelu: DRelu
    leaf_wires: np.ndarray
    group_wires: np.ndarray
    masks: np.ndarray
    products: np.ndarray
    share: np.ndarray
    beta: np.ndarray

    def bit(self, client: Client, their_groups: np.ndarray, their_bit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From message 3: C's half of b^, for message 4, and b^."""
        drelu, shape = self.drelu, self.drelu.window
        top, products = len(shape.top.wires), len(shape.top.factors)

        def work(tiles):
            for tile in tiles:
                opened = scratch("opened", (top, tile.words), np.uint64)
                kernels.xor(tile.rows(self.group_wires, top), tile.rows(their_groups, top), opened)
                share = tile.rows(self.share, 1)
                kernels.combine(shape.top.program, opened, tile.rows(self.masks, top), tile.rows(self.products, products), ONES, share)

        client.each_tile(drelu.count, work)
        mine = self.share ^ self.beta
        return mine, mine ^ their_bit.view(np.uint64)
