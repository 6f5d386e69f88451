"""How a comparison of a window of bits is cut into chunks and groups: public tables that the DReLU's three roles follow.

The window's bits, low first, form chunks of at most three bits; P deals shares of the one-hot table of each chunk of the mask. Chunks are
combined in groups, and the groups in one last step, by a many-input combination each (ABY2.0, Patra et al., USENIX Security 2021):

    lt = XOR_i lt_i AND_{j>i} eq_j,   eq = AND_j eq_j

Every wire of it is opened once under a mask; P deals shares of every product of masks that occurs. The layout that needs the fewest bits is
chosen here by trying all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, combinations, pairwise

import numpy as np

from threepc.kernels.decisions import Tables

MAX_FAN_IN = 5


@dataclass(frozen=True)
class Level:
    """One many-input combination for each of several groups, as tables for the kernels. Share rows 2 i and 2 i + 1 hold lt and eq of input i.

    wires (w,): input row of every opened wire. start (o,): input row that an output row starts from, -1 for zero.
    program (s, 3 + fan-in): see `kernels.comparison.combine`. factors (p, fan-in): the wires of every dealt product, -1 pads.
    """

    wires: np.ndarray
    start: np.ndarray
    program: np.ndarray
    factors: np.ndarray


@dataclass(frozen=True)
class Window:
    """The comparison of `width` bits: chunks (n, 3) of width, first bit, first table row; two levels of combinations."""

    width: int
    chunks: np.ndarray
    groups: Level
    top: Level

    @cached_property
    def tables(self) -> Tables:
        """The layout as the kernels take it."""
        g, t = self.groups, self.top
        return Tables(self.chunks, g.wires, g.start, g.program, g.factors, t.wires, t.start, t.program, t.factors)

    @property
    def table_rows(self) -> int:
        """Planes of one-hot tables."""
        return int(self.chunks[-1, 2] + (1 << self.chunks[-1, 0]) - 1)

    @property
    def product_rows(self) -> int:
        """Planes of products of wire masks."""
        return len(self.groups.factors) + len(self.top.factors)

    @property
    def wires(self) -> int:
        """Planes that are opened, one bit each way."""
        return len(self.groups.wires) + len(self.top.wires)


def _subsets(wires: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(wires, n) for n in range(len(wires) + 1))


def _terms(inputs: Sequence[int], equal: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(output offset, wires) of every product of a group; a wire is an input's share row."""
    for position, i in enumerate(inputs[:-1]):
        yield 0, (2 * i, *(2 * j + 1 for j in inputs[position + 1 :]))
    if equal and len(inputs) > 1:
        yield 1, tuple(2 * j + 1 for j in inputs)


def _level(groups: list[range], top: bool = False) -> Level:
    """Tables of one level; `groups` lists the inputs of each, low first. The lowest group's eq is never needed."""
    wires: dict[int, int] = {}
    products: dict[tuple[int, ...], int] = {}
    program: list[tuple[int, tuple[int, ...], list[int]]] = []
    start: list[int] = []
    for g, inputs in enumerate(groups):
        equal = g > 0 and not top
        start += [2 * inputs[-1], 2 * inputs[0] + 1 if equal and len(inputs) == 1 else -1]
        for offset, term in _terms(inputs, equal):
            for wire in term:
                wires.setdefault(wire, len(wires))
            for secret in _subsets(term):
                if len(secret) > 1:
                    products.setdefault(secret, len(products))
                publics = [wires[w] for w in term if w not in secret]
                program.append((2 * g + offset, secret, publics))
    rows = np.full((len(program), 3 + MAX_FAN_IN), -1, np.int32)
    for row, (target, secret, publics) in zip(rows, program, strict=True):
        index = -1 if not secret else wires[secret[0]] if len(secret) == 1 else len(wires) + products[secret]
        row[:3] = target, index, len(publics)
        row[3 : 3 + len(publics)] = publics
    factors = np.full((len(products), MAX_FAN_IN), -1, np.int32)
    for row, secret in zip(factors, products, strict=True):
        row[: len(secret)] = [wires[w] for w in secret]
    return Level(np.array(list(wires), np.int32), np.array(start, np.int32), rows, factors)


@functools.cache
def _group_cost(size: int, equal: bool) -> int:
    """Bits of a group with `size` inputs: two for each wire, one for each product."""
    terms = [term for _, term in _terms(range(size), equal)]
    wires = {wire for term in terms for wire in term}
    products = {q for term in terms for q in _subsets(sorted(term)) if len(q) > 1}
    return 2 * len(wires) + len(products)


def _partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Ways to write `total` as a sum of numbers up to `largest`, in falling order."""
    if total == 0:
        yield ()
    for first in range(min(total, largest), 0, -1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _widths(width: int) -> Iterator[tuple[int, ...]]:
    """Ways to cut `width` bits into chunks with as few small ones as possible."""
    for threes in range(width // 3, max(-1, width // 3 - 3), -1):
        for twos in range((width - 3 * threes) // 2 + 1):
            ones = width - 3 * threes - 2 * twos
            if ones <= 2:
                yield (3,) * threes + (2,) * twos + (1,) * ones


@functools.cache
def window(width: int) -> Window:
    """The cheapest layout for a window of `width` bits, in bits sent. Raises ValueError unless 1 <= width <= 63."""
    if not 1 <= width <= 63:
        raise ValueError(f"a comparison window has 1 to 63 bits, not {width}")
    widths, sizes = min(_layouts(width), key=lambda layout: _cost(*layout))
    bits, rows, edges = (list(accumulate(sizes, initial=0)) for sizes in (widths, [(1 << w) - 1 for w in widths], sizes))
    groups = [range(begin, end) for begin, end in pairwise(edges)]
    chunks = np.array([widths, bits[:-1], rows[:-1]], np.int32).T.copy()
    return Window(width, chunks, _level(groups), _level([range(len(groups))], top=True))


def _layouts(width: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Widths of the chunks and sizes of the groups, both low first."""
    for widths in _widths(width):
        for lowest in range(1, min(len(widths), MAX_FAN_IN) + 1):
            for others in _partitions(len(widths) - lowest, MAX_FAN_IN):
                if len(others) < MAX_FAN_IN:
                    yield widths, (lowest, *others)


def _cost(widths: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """Bits of a layout, the sign bits apart."""
    lowest, *others = sizes
    tables = sum((1 << w) - 1 for w in widths)
    return tables + _group_cost(lowest, False) + sum(_group_cost(size, True) for size in others) + _group_cost(len(sizes), False)
