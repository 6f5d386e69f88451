"""The statistic of the other tests: it finds what it looks for, and counts what its definition says."""

import re

import numpy as np
import pytest

from tests.protocol.uniformity import COUNT, assert_uniform, bits_of, least_balanced, planes_of


def test_the_statistic_finds_what_it_looks_for():
    """A bias of a tenth, a pad that the receiver knows, or one pad used twice is far beyond the limit."""
    rng = np.random.default_rng(0)
    flips = rng.integers(0, 2, (20, COUNT))
    rows = planes_of(np.packbits(flips, axis=1))
    assert_uniform(rows[:10], rows[10:])
    biased = planes_of(np.packbits(flips[0] | (rng.random(COUNT) < 0.1)))[0]
    for received, known, found in (
        (biased[None], None, "received bit 0"),
        (~rows[:3], rows[2:5], "received and known bits (2, 0)"),
        (np.stack([rows[0], ~rows[0]]), None, "received bits (1, 0)"),
    ):
        with pytest.raises(AssertionError, match=f"^{re.escape(found)}$"):
            assert_uniform(received, known)


def test_the_statistic_is_that_of_the_definition():
    """The row pair that differs least evenly, of several blocks of rows, is the one of a matrix of all products of ±1."""
    words = np.random.default_rng(1).integers(0, 1 << 40, COUNT, np.uint64)
    bits = (words[None] >> np.arange(40, dtype=np.uint64)[:, None] & np.uint64(1)).astype(np.int64) * 2 - 1
    rows, sums = bits_of(words, 40), np.abs(bits @ bits.T)
    for found, among in (
        (least_balanced(rows, rows, True), np.tril(sums, -1)),
        (least_balanced(rows[:9], rows[9:], False), sums[:9, 9:]),
        (least_balanced(rows[9:], rows[:9], False), sums[9:, :9]),
    ):
        assert found == (*np.unravel_index(among.argmax(), among.shape), among.max())
