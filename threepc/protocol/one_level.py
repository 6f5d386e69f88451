"""DReLU in one exchange: b^ = b XOR beta as shares of C and S, from a value y public to both and its mask r, known to P. See drelu.py for two.

    b = 1 XOR bit hi of y XOR bit hi of r XOR lt,   lt = XOR_i lt_i AND_{j>i} eq_j      over few, wide chunks

The wires lt_i and eq_j are opened under masks m, as o = wire XOR m. So lt is a sum of terms, each a product of o's and a product of m's. A class
is a product (or a sum of products) of o's: its selector T_c. All products of m's that T_c meets are summed to one secret of P's, pi_c, of which C
draws a share from k_CP and S is dealt s_c. The first class has T_c = 1, and its secret also has bit hi of r and beta. Then

    C's half of b^ = 1 XOR bit hi of y XOR lt(o) XOR (XOR_c T_c c_c),       S's half = XOR_c T_c s_c

n chunks have 2^n - 1 classes. Semi-honest, one corruption. Message 1 carries S's wires. C then knows all o's and its half, which goes to S with its
own wires: C sees one message, every plane of which is padded by k_SP. S sees tables, secrets, wires and C's half: padded by C's halves of the
tables, by c_c, m_C, and, since b^ is uniform, by beta_C. tests/protocol/test_views.py goes through all pads.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, combinations

import numpy as np

from threepc.kernels import one_level
from threepc.kernels.keystream import Source
from threepc.kernels.one_level import Choice, Layout, Masks
from threepc.kernels.packing import TILE_WORDS, Tiles
from threepc.prf import Purpose
from threepc.protocol.roles import Client, OpenStream, Provider, Server, plane_words, scratch

WIDEST_CHUNK = 8
MOST_CHUNKS = 6
WIDEST = WIDEST_CHUNK * MOST_CHUNKS
"""Bits of a window at most."""


@dataclass(frozen=True)
class OneLevel:
    """The decisions of one layer: `count` masked values, compared by a window of `width` bits from bit `low_bit` of the cut words.

    pad_bits: what a class costs besides its plane, in bits, which decides how many chunks there are.
    """

    op: int
    count: int
    low_bit: int
    width: int
    pad_bits: int

    @cached_property
    def layout(self) -> Layout:
        """All that is public, as kernels take it."""
        return layout(self.width, self.pad_bits)._replace(low_bit=self.low_bit)

    @property
    def classes(self) -> int:
        """Secrets that are dealt for every decision."""
        return self.layout.classes

    @property
    def wires(self) -> int:
        """Bits that are opened for every decision."""
        return len(self.layout.wires)

    # What travels, in bytes

    @property
    def dealt_bytes(self) -> int:
        """P to S, offline: tables and secrets."""
        return self._bytes(self.layout.tables + self.classes)

    @property
    def wire_bytes(self) -> int:
        """Either way (messages 1 and 2)."""
        return self._bytes(self.wires)

    @property
    def share_bytes(self) -> int:
        """C to S (message 2): its half of b^."""
        return self._bytes(1)

    def _bytes(self, rows: int) -> int:
        return 8 * plane_words(self.count, rows)

    def _draw(self, open_stream: OpenStream, rows: int) -> Source:
        return open_stream(self.op, Purpose.DECISION, self.count, 8 * rows * TILE_WORDS)

    @property
    def _client_rows(self) -> int:
        return self.layout.tables + self.classes + self.wires + 1

    @property
    def _server_rows(self) -> int:
        return self.wires + 1

    def _work(self, drawn: int = 0) -> np.ndarray:
        """Scratch of one tile for drawn rows, bits, leaves, opened wires, selectors and the values of a chunk."""
        chunks = self.layout.chunks
        rows = drawn + self.width + 1 + 2 * len(chunks) + self.wires + self.classes + 1 + (1 << int(chunks[:, 0].max()))
        return scratch("one level", rows * TILE_WORDS, np.uint64)

    def _plane(self) -> np.ndarray:
        return np.empty(plane_words(self.count, 1), np.uint64)

    def _choice(self) -> Choice:
        return Choice(np.empty((self.classes - 1, plane_words(self.count, 1)), np.uint64), self._plane(), self._plane())

    # P

    def deal(self, provider: Provider, r: np.ndarray) -> tuple[np.ndarray, Masks]:
        """The message for S, and what the gate needs. r: cut words of the whole run."""
        message, masks = (
            np.empty(self.dealt_bytes, np.uint8),
            Masks(np.empty((self.classes, plane_words(self.count, 1)), np.uint64), self._plane(), self._plane()),
        )
        streams = self._draw(provider.with_client, self._client_rows), self._draw(provider.with_server, self._server_rows)

        def work(tiles: Tiles) -> None:
            one_level.deal_choices(self.layout, r, streams, tiles, self._work(self._client_rows + self._server_rows), message, masks)

        provider.each_part(self.count, work)
        return message, masks

    # S

    def serve_wires(self, server: Server, y: np.ndarray, dealt: np.ndarray) -> tuple[np.ndarray, Choice]:
        """Message 1's wires, and a choice that has S's beta alone. y: cut words; dealt: P's message."""
        wires, choice, stream = np.empty(self.wire_bytes, np.uint8), self._choice(), self._draw(server.with_provider, self._server_rows)

        def work(tiles: Tiles) -> None:
            one_level.serve_wires(self.layout, y, stream, tiles, dealt, self._work(self._server_rows), wires, choice)

        server.each_part(self.count, work)
        return wires, choice

    def serve_choice(self, server: Server, dealt: np.ndarray, mine: np.ndarray, theirs: np.ndarray, choice: Choice) -> None:
        """From message 2's wires, the choice's selectors and S's half of b^. mine, choice: from `serve_wires`."""
        server.each_part(self.count, lambda tiles: one_level.serve_choices(self.layout, tiles, dealt, mine, theirs, self._work(), choice))

    # C

    def infer(self, client: Client, y: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, Choice]:
        """From message 1's wires, those of message 2 and C's choice, whose share goes with it. y: cut words."""
        wires, choice, stream = np.empty(self.wire_bytes, np.uint8), self._choice(), self._draw(client.with_provider, self._client_rows)

        def work(tiles: Tiles) -> None:
            one_level.infer_wires(self.layout, y, stream, tiles, theirs, self._work(self._client_rows), wires, choice)

        client.each_part(self.count, work)
        return wires, choice


# The layout

Product = frozenset[int]
"""Wires that are multiplied."""


@functools.lru_cache(maxsize=256)
def layout(width: int, pad_bits: int) -> Layout:
    """The cheapest cut of a window into chunks, in bits sent. Raises ValueError unless 1 <= width <= 48."""
    if not 1 <= width <= WIDEST:
        raise ValueError(f"a comparison in one exchange has 1 to {WIDEST} bits, not {width}")
    widths = min((_even(width, n) for n in range(-(-width // WIDEST_CHUNK), min(width, MOST_CHUNKS) + 1)), key=lambda w: _cost(w, pad_bits))
    chunks, rows = len(widths), [(1 << w) - 1 for w in widths]
    places = np.array([widths, [0, *accumulate(widths[:-1])], [0, *accumulate(rows[:-1])]], np.int32).T.copy()
    wires = [0, *chain.from_iterable((2 * c, 2 * c + 1) for c in range(1, chunks))]
    place = {wire: i for i, wire in enumerate(wires)}
    terms = [frozenset((place[2 * i], *(place[2 * j + 1] for j in range(i + 1, chunks)))) for i in range(chunks)]
    classes = _classes(terms)
    coefficients = [(c, product) for c, (selector, _) in enumerate(classes) for product in sorted(selector, key=sorted)]
    secrets = [(c, product) for c, (_, of_class) in enumerate(classes) for product in of_class]
    total = coefficients + [(len(classes), term) for term in terms]
    return Layout(places, np.array(wires, np.int32), _program(total), _program(secrets), 0, width, sum(rows), len(classes))


def _even(width: int, chunks: int) -> tuple[int, ...]:
    """Widths as equal as can be, low first."""
    return tuple(width // chunks + (i < width % chunks) for i in range(chunks))


def _cost(widths: Sequence[int], pad_bits: int) -> int:
    """Bits of tables, classes and wires."""
    return sum((1 << w) - 1 for w in widths) + ((1 << len(widths)) - 1) * (1 + pad_bits) + 2 * (2 * len(widths) - 1)


def _classes(terms: Sequence[Product]) -> list[tuple[frozenset[Product], list[Product]]]:
    """(selector, products of masks that it meets) of every class; the selector, a sum of products of opened wires, is one for the first."""
    met: dict[Product, set[Product]] = defaultdict(set)
    for term in terms:
        for some in chain.from_iterable(combinations(sorted(term), n) for n in range(1, len(term) + 1)):
            met[frozenset(some)] ^= {term - frozenset(some)}
    classes: dict[frozenset[Product], list[Product]] = {frozenset({frozenset()}): []}
    for secret, selector in met.items():
        classes.setdefault(frozenset(selector), []).append(secret)
    return list(classes.items())


def _program(steps: Sequence[tuple[int, Product]]) -> np.ndarray:
    """As `kernels.one_level.add_products` takes it."""
    rows = np.full((len(steps), 2 + max(len(product) for _, product in steps)), -1, np.int32)
    for row, (target, product) in zip(rows, steps, strict=True):
        row[: 2 + len(product)] = target, len(product), *sorted(product)
    return rows
