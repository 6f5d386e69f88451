"""Tables of polynomials for smooth activations, chosen for an error: every party makes the same from public names and numbers.

A row's polynomial of degree two meets the curve at three Chebyshev nodes of the interval of twice the row's width: its largest error is the least
that such a polynomial has, but for terms of fourth order. Outside of the table's span the curve is its end's value.
A coefficient is rounded from a float64. Should two machines' libraries round one apart, by a unit, results are off by about that unit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from threepc.errors import InputError
from threepc.graph.smooth import RANGE, SMOOTH, Smooth

UNITS = 2
"""Largest error of a table, in units of the last place of its argument."""

GUARD_BITS = 2
"""Fractional bits that coefficients have beyond the argument's."""

MOST_INDEX, LEAST_INDEX = 10, 6
SPARE_ROWS = 3
"""Rows that no value may lie in: one below the first, for which the table's last one stands, and two at the end, of which a cut value sees one."""

_POINTS = 10


@dataclass(frozen=True)
class Pieces:
    """A table: row h serves arguments from about (h - 1) * width to (h + 1) * width, the last row those from -2 * width on.

    start: what is added to an argument before the curve; span: the largest argument; width: of a row, 2^width_bits; rows: integers for the
    coefficients of (t / width)^i, t from the row's own argument, at `fraction` + GUARD_BITS fractional bits. error: the largest there is, outside too.
    """

    start: float
    span: float
    width_bits: int
    rows: tuple[tuple[int, ...], ...]
    fraction: int
    error: float

    @property
    def largest(self) -> float:
        """Bound of the table's size."""
        return sum(max(map(abs, row)) for row in self.rows) / 2.0 ** (self.fraction + GUARD_BITS)


@functools.lru_cache(maxsize=64)
def pieces(function: str, parameter: float, fraction: int) -> Pieces:
    """The smallest table of an activation whose error is UNITS of 2^-fraction at most. Raises InputError where none is small enough."""
    smooth = SMOOTH[function]
    curve = functools.partial(_curve, smooth, parameter)
    start, end = _span(smooth, parameter, 2.0**-fraction)
    ends = smooth.ends(parameter)
    for width_bits in range(2, -fraction, -1):
        index = max(LEAST_INDEX, math.ceil(math.log2((end - start) / 2.0**width_bits + SPARE_ROWS)))
        if index > MOST_INDEX:
            break
        table = _table(lambda c: curve(start, c), width_bits, index, fraction)
        made = Pieces(start, end - start, width_bits, table, fraction, 0.0)
        error = _error(made, lambda c: curve(start, c), (*ends[:-1], ends[-1] + (start if smooth.rising else 0.0)))
        if error <= UNITS * 2.0**-fraction:
            return Pieces(start, end - start, width_bits, table, fraction, error)
    raise InputError(f"{function} with {parameter:g}: no table of {1 << MOST_INDEX} rows is exact to {fraction} fractional bits")


def _curve(smooth: Smooth, parameter: float, start: float, c: float) -> float:
    """The curve at a table's argument; of a rising function f(z) - z + start, so that f is argument and curve less."""
    return smooth.curve(start + c, parameter) + (start if smooth.rising else 0.0)


def _span(smooth: Smooth, parameter: float, unit: float) -> tuple[float, float]:
    """Where a function is within half a unit of what it ends in: whole sixteenths."""

    def reach(side: int, limit: float) -> float:
        for z in (i / 16 for i in range(512 * 16, 0, -1)):
            value = smooth.curve(side * z, parameter) + (side * z if smooth.rising and side < 0 else 0.0)
            if abs(value - limit) > unit / 2:
                return z + 1 / 16
        return 1 / 16

    ends = smooth.ends(parameter)
    return (-reach(-1, ends[0]) if smooth.fold == RANGE else 0.0), reach(1, ends[-1])


def _table(curve: Callable[[float], float], width_bits: int, index: int, fraction: int) -> tuple[tuple[int, ...], ...]:
    width, scale = 2.0**width_bits, 2.0 ** (fraction + GUARD_BITS)
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for h in range(1 << index):
        centre = width * (h if h < (1 << index) - 1 else -1)
        low, middle, high = (curve(centre + node * width) for node in (-math.sqrt(3) / 2, 0.0, math.sqrt(3) / 2))
        for row, coefficient in zip(rows, (middle, (high - low) / math.sqrt(3), (high + low - 2 * middle) / 1.5), strict=True):
            row.append(round(coefficient * scale))
    return tuple(map(tuple, rows))


def _error(made: Pieces, curve: Callable[[float], float], ends: tuple[float, ...]) -> float:
    """Largest distance from the curve over all rows and both ways that a value falls into two, and from the curve's ends where it is clamped."""
    width, scale, worst = 2.0**made.width_bits, 2.0 ** (made.fraction + GUARD_BITS), 0.0
    clamped = [(made.span, ends[-1])] + [(0.0, ends[0])] * (len(ends) > 1)
    for h in range(-1, math.floor(made.span / width) + 2):
        c0, c1, c2 = (row[h] / scale for row in made.rows)
        for i in range(-_POINTS, _POINTS + 1):
            c = width * (h + i / _POINTS)
            if 0 <= c <= made.span:
                worst = max(worst, abs(c0 + c1 * i / _POINTS + c2 * (i / _POINTS) ** 2 - curve(c)))
        for c, end in clamped:
            t = c / width - h
            if -1 <= t < 1:
                value = c0 + (c1 + c2 * t) * t  # of every argument from here on, over which the curve goes from its own value to its end
                worst = max(worst, abs(value - curve(c)), abs(value - end))
    return worst
