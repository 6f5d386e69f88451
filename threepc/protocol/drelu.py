"""DReLU: XOR shares of b = [y - r >= 0], then b^ = b XOR beta opened, from a value y public to C and S and its mask r, known to P.

    b = 1 XOR bit hi of y XOR bit hi of r XOR [ window(y) < window(r) ]

y and r are cut words; the window is `width` bits from bit `first` on, its sign bit the one above: valid for -2^hi <= y - r < 2^hi in units of
the lowest bit. Semi-honest, one corruption. Offline: P deals XOR shares of one-hot tables of r, C's half from k_CP, S's half sent. Online:
C and S open masked wires; the masks' halves come from k_CP and k_SP. Security: every plane sent is one-time padded by a plane its receiver
cannot draw. Messages 1 to 4 are S to C, C to S, S to C, C to S; the caller sends them together with its own.
Tables and leaves: CrypTFlow2 (Rathee et al., CCS 2020); many-input ANDs: ABY2.0 (Patra et al., USENIX Security 2021).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels import decisions as kernels
from .roles import DECISION, TILE_WORDS, Client, Provider, Server, plane_words, scratch
from .window import Window, window


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
        """Either way, for each decision: the leaf wires (messages 1 and 2)."""
        return 8 * plane_words(self.count, len(self.window.groups.wires))

    @property
    def group_bytes(self) -> int:
        """Either way, for each decision: the group wires (messages 2 and 3)."""
        return 8 * plane_words(self.count, len(self.window.top.wires))

    @property
    def bit_bytes(self) -> int:
        """Either way, for each decision: one bit (messages 3 and 4)."""
        return 8 * plane_words(self.count, 1)

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

    def _draw(self, open_stream, first, rows: int):
        return open_stream(self.op, DECISION, first, 8 * rows * TILE_WORDS)

    def _planes(self, rows: int) -> np.ndarray:
        return np.empty(plane_words(self.count, rows), np.uint64)

    def _work(self) -> np.ndarray:
        """Scratch of one tile for bits, leaves, opened wires and groups."""
        rows = self.width + 1 + 2 * len(self.window.chunks) + self.window.wires + len(self.window.groups.start)
        return scratch("comparison", rows * TILE_WORDS, np.uint64)

    # P

    def deal(self, provider: Provider, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The message for S, and beta_C and beta_S as planes (many, words). r: cut words of the whole run."""
        tables, message, words = self.window.tables, np.empty(self.dealt_bytes, np.uint8), plane_words(self.count, 1)
        beta_client, beta_server = np.empty((self.many, words), np.uint64), np.empty((self.many, words), np.uint64)
        mine, theirs = self._server_rows, self._client_rows

        def work(tiles):
            client, server, space = self._draw(provider.with_client, tiles[0], theirs), self._draw(provider.with_server, tiles[0], mine), self._work()
            rows, masks = scratch("client rows", theirs * TILE_WORDS, np.uint64), scratch("server rows", mine * TILE_WORDS, np.uint64)
            for tile in tiles:
                drawn, own = client.fill(rows[: theirs * tile.words]), server.fill(masks[: mine * tile.words])
                kernels.deal_decisions(tables, self.many, tile.begin, r[tile.run], self.first, drawn, own, space, message, beta_client, beta_server)

        provider.each_tile(self.count, work)
        return message, beta_client, beta_server

    # S

    def server_leaves(self, server: Server, values: Sequence[np.ndarray], dealt: np.ndarray) -> list[ServerDecisions]:
        """For each decision message 1's leaf wires and all that S keeps. values: y of each as cut words; dealt: P's message."""
        shape, rows, masks = self.window, self._server_rows, self._planes(self._server_rows)
        planes = len(shape.groups.wires), len(shape.groups.start), 1
        states = [ServerDecisions(self, which, dealt, masks, *map(self._planes, planes)) for which in range(self.many)]

        def work(tiles):
            stream, space = self._draw(server.with_provider, tiles[0], rows), self._work()
            for tile in tiles:
                stream.fill(tile.planes(masks, rows))
                for y, s in zip(values, states):
                    kernels.server_leaves(
                        shape.tables, self.many, s.which, tile.begin, y[tile.run], self.first, dealt, masks, space, s.leaf_wires, s.groups, s.beta
                    )

        server.each_tile(self.count, work)
        return states

    # C

    def client_leaves(self, client: Client, values: Sequence[np.ndarray], their_leaves: Sequence[np.ndarray]) -> list[ClientDecisions]:
        """From message 1, for each decision message 2's leaf and group wires, and all that C keeps."""
        shape, rows = self.window, self._client_rows
        planes = len(shape.groups.wires), len(shape.top.wires), len(shape.top.wires) + len(shape.top.factors), 1, 1
        states = [ClientDecisions(self, *map(self._planes, planes)) for _ in range(self.many)]

        def work(tiles):
            stream, space, buffer = self._draw(client.with_provider, tiles[0], rows), self._work(), scratch("client rows", rows * TILE_WORDS, np.uint64)
            for tile in tiles:
                drawn = stream.fill(buffer[: rows * tile.words])
                for which, (y, theirs, s) in enumerate(zip(values, their_leaves, states)):
                    kernels.client_leaves(
                        shape.tables, self.many, which, tile.begin, y[tile.run], self.first, drawn, theirs, space,
                        s.leaf_wires, s.group_wires, s.kept, s.share, s.beta,
                    )

        client.each_tile(self.count, work)
        return states


@dataclass(frozen=True)
class ServerDecisions:
    """What S keeps of one decision between its messages; beta: beta_S as a flat plane."""

    drelu: DRelu
    which: int
    dealt: np.ndarray
    masks: np.ndarray
    leaf_wires: np.ndarray
    groups: np.ndarray
    beta: np.ndarray

    def groups_and_bit(self, server: Server, their_leaves: np.ndarray, their_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From message 2: message 3's group wires and S's half of b^."""
        drelu, tables = self.drelu, self.drelu.window.tables
        wires, bit = drelu._planes(len(tables.top_wires)), drelu._planes(1)

        def work(tiles):
            space = drelu._work()
            for tile in tiles:
                kernels.server_top(
                    tables, drelu.many, self.which, tile.begin, tile.words, self.dealt, self.masks,
                    self.leaf_wires, their_leaves, their_groups, space, self.groups, wires, bit,
                )

        server.each_tile(drelu.count, work)
        return wires, bit


@dataclass(frozen=True)
class ClientDecisions:
    """What C keeps of one decision between its messages; beta: beta_C as a flat plane."""

    drelu: DRelu
    leaf_wires: np.ndarray
    group_wires: np.ndarray
    kept: np.ndarray
    share: np.ndarray
    beta: np.ndarray

    def bit(self, client: Client, their_groups: np.ndarray) -> np.ndarray:
        """From message 3: C's half of b^, for message 4."""
        drelu, tables = self.drelu, self.drelu.window.tables

        def work(tiles):
            space = drelu._work()
            for tile in tiles:
                kernels.client_top(tables, tile.begin, tile.words, self.kept, self.group_wires, their_groups, self.beta, space, self.share)

        client.each_tile(drelu.count, work)
        return self.share


def opened(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """b^ as a flat plane from both halves."""
    return mine ^ theirs.view(np.uint64)
