"""Lookup of polynomials: against Python integers for every way that a value can fall into two rows, and what travels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.harness import run, shares, signed, without_zeros
from threepc.kernels.gate import Cut
from threepc.protocol.lookup import Lookup

LAYOUTS = {64: (13, 64, 16), 48: (13, 61, 29), 40: (11, 49, 25), 32: (9, 37, 21)}
"""Bits within a row, of the sums, and those of them that are dropped, by ring."""


def table(rng, index, bits=14):
    """Random coefficients: neighbouring rows have nothing in common."""
    return tuple(tuple(int(v) for v in row) for row in rng.integers(-(1 << bits), 1 << bits, (3, 1 << index)))


def lookup(ring, shape, index, rng, shift=0):
    low, total, dropped = LAYOUTS[ring]
    return Lookup(7, shape, Cut(ring, shift, low + index), low, total, dropped, table(rng, index))


def reduced(rng, values, bits):
    """Summands of a reduced value: P's is zero."""
    client, server, provider = shares(rng, values, bits)
    return client, server - provider, np.zeros_like(provider)


def exact(protocol, h, t):
    """2^(2 low) y of row h and a distance t from it, int64: coefficients and distances of 14 bits cannot overflow."""
    c0, c1, c2 = (np.array(row)[h % protocol.rows] for row in protocol.table)
    return (c0 << 2 * protocol.low) + (c1 * t << protocol.low) + c2 * t * t


def either(protocol, got, opened):
    """Whether every result is the polynomial of the row that a value lies in, or of the next one, within the last place."""
    right = np.zeros(got.size, bool)
    for below in (0, 1):
        h = (opened >> protocol.low) + below
        floor = exact(protocol, h, opened - (h << protocol.low)) >> protocol.dropped
        right |= signed((got - floor).astype(np.uint64), protocol.kept_bits) >> 1 == 0
    return right


def result(results, protocol):
    client, server, provider = results
    assert provider is None
    return signed(client.astype(np.uint64) + server.astype(np.uint64), protocol.kept_bits).reshape(-1)


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("index", (6, 7, 8))
@pytest.mark.parametrize("bits", LAYOUTS)
def test_a_value_has_its_rows_polynomial(bits, index, threads):
    rng, shape = np.random.default_rng(bits + index), (2, 3, 77, 75)
    protocol = lookup(bits, shape, index, rng)
    values = rng.integers(0, ((1 << index) - 1) << protocol.low, shape)
    results, trio = run(protocol, reduced(rng, values, bits), threads=threads)
    assert either(protocol, result(results, protocol), values.reshape(-1)).all()
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == 2


@settings(max_examples=30)
@given(st.data())
def test_any_shape_at_the_edges_of_rows(data):
    bits, index = data.draw(st.sampled_from(list(LAYOUTS))), data.draw(st.integers(6, 9))
    shape = tuple(data.draw(st.integers(1, most)) for most in (2, 4, 9, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    protocol = lookup(bits, shape, index, rng)
    rows = rng.integers(0, (1 << index) - 1, shape) << protocol.low
    values = rows + rng.choice([0, 1, (1 << protocol.low) - 1, 1 << protocol.low - 1], shape)
    results, trio = run(protocol, reduced(rng, values, bits))
    assert either(protocol, result(results, protocol), values.reshape(-1)).all()
    assert trio.measured == without_zeros(protocol.cost)


def test_a_cut_before_the_opening_is_within_a_unit():
    rng, shape, index, shift = np.random.default_rng(1), (1, 1, 64, 65), 7, 4
    protocol = lookup(48, shape, index, rng, shift)
    values = rng.integers(4 << shift, (((1 << index) - 1) << protocol.low + shift) - 64, shape)
    results, _ = run(protocol, reduced(rng, values, 48))
    got = result(results, protocol)
    fits = [either(protocol, got, (values.reshape(-1) >> shift) + off) for off in (-1, 0, 1)]
    assert np.logical_or.reduce(fits).all()


def test_the_result_is_not_biased():
    """The sums' low bits are dropped by each party apart: up as often as what is left of them says."""
    rng, shape = np.random.default_rng(2), (1, 1, 300, 300)
    protocol = lookup(48, shape, 7, rng)
    values = rng.integers(0, 127, shape) << protocol.low  # t is zero but for the row above, whose polynomial may differ
    protocol = Lookup(7, shape, protocol.cut, protocol.low, protocol.total, protocol.dropped, ((5,) * 128, (0,) * 128, (0,) * 128))
    got = result(run(protocol, reduced(rng, values, 48))[0], protocol)
    wanted = (5 << 2 * protocol.low) / 2.0**protocol.dropped
    assert abs(got.mean() - wanted) < 8 * 0.5 / np.sqrt(got.size)


def test_declared_cost():
    """One-hot bits and six words from P; the opened value; halves of three coefficients; v."""
    protocol = lookup(48, (1, 1, 64, 64), 7, np.random.default_rng(0))
    low, total, dropped = LAYOUTS[48]
    assert protocol.cost.offline == {"provider->server": 512 * (128 + 6 * total), "client->server": 512 * (low + 7)}
    opened = 3 * total - 3 * low
    assert protocol.cost.online == {"server->client": 512 * (low + 7 + opened), "client->server": 512 * (opened + total - dropped)}
