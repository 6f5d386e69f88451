"""Lookup of polynomials: against Python integers for every way that a value can fall into two rows, and what travels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.harness import run, shares, signed, without_zeros
from tests.protocol.uniformity import COUNT, assert_uniform, bits_of, planes_of
from threepc.kernels.gate import Cut
from threepc.kernels.lookup import RUN
from threepc.kernels.packing import TILE, unpack
from threepc.prf import Purpose
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


# What travels


def runs_of(part, count, choice, widths):
    """A message part, run after run: bits (count, choice) of its choices, and words (a row a width, count)."""
    message, bits, words = part.view(np.uint8).reshape(-1), [], []
    size = choice + sum(widths)
    for begin in range(0, count, RUN):
        length = min(RUN, count - begin)
        own = message[begin // 8 * size : (begin + length) // 8 * size]
        at = length * choice // 8
        bits.append(np.unpackbits(own[:at].reshape(length, -1), axis=1, bitorder="little"))
        rows = np.empty((len(widths), length), np.uint64)
        for row, width in zip(rows, widths, strict=True):
            unpack(own[at : at + length // 8 * width], length, width, row)
            at += length // 8 * width
        words.append(rows)
    return np.concatenate(bits), np.concatenate(words, axis=1)


def widths_of(protocol):
    """Bits of the opened coefficients."""
    return [protocol.total - (2 - i) * protocol.low for i in range(3)]


def drawn(stream, purpose):
    """What a role may draw of a stream."""
    return next(octets for of, octets in stream.drawn if of == purpose)


def client_rows(octets, count, choice):
    """Of a client's stream, as it is laid out: bits (count, choice), the six words and the three pads, (rows, count)."""
    bits, words, pads, at = [], [], [], 0
    for begin in range(0, count, RUN):
        length = min(RUN, count - begin)
        first, middle, last, _ = np.split(octets[at:], np.cumsum([length * choice // 8, 48 * length, 24 * length]))
        bits.append(np.unpackbits(first.reshape(length, -1), axis=1, bitorder="little"))
        words.append(middle.view(np.uint64).reshape(6, length))
        pads.append(last.view(np.uint64).reshape(length, 3).T)
        at += length * (choice // 8 + 72)
    return np.concatenate(bits), np.concatenate(words, axis=1), np.concatenate(pads, axis=1)


def test_what_is_dealt_comes_from_consecutive_parts_of_the_streams():
    """Every word that pads anything is drawn once: all that P deals is made again from its streams, read from their beginning on."""
    rng, shape = np.random.default_rng(3), (1, 1, TILE // 64 + 44, 64)
    protocol = lookup(48, shape, 7, rng)
    nothing = np.zeros(shape, np.uint64)
    _, trio = run(protocol, (nothing,) * 3)
    count, low, choice = protocol.count, protocol.low, protocol.rows
    dealt_bits, dealt = runs_of(trio.dealt[0].sent[0][2][0], count, choice, [protocol.total] * 6)
    bits, words, pads = client_rows(drawn(trio.streams["CP"], Purpose.LOOKUP), count, choice)
    server = drawn(trio.streams["SP"], Purpose.LOOKUP)[: 24 * count].view(np.uint64).reshape(count, 3).T
    r = sum(drawn(trio.streams[pair], Purpose.OPENING)[: 4 * count].view(np.uint32) for pair in ("CP", "SP")).astype(np.uint64)
    d = drawn(trio.streams["CP"], Purpose.ACTIVATION)[: 4 * count].view(np.uint32).astype(np.uint64)
    high, r = (r >> np.uint64(low)).astype(int) % choice, r & np.uint64((1 << low) - 1)
    assert np.array_equal(np.argmax(dealt_bits ^ bits, axis=1), high) and (dealt_bits ^ bits).sum() == count
    sigma = np.where(bits[np.arange(count), high], 1, -1).astype(np.int64).view(np.uint64)
    p0, p1, p2 = ((pads + server)[i] << np.uint64((2 - i) * low) for i in range(3))
    wanted = sigma * np.stack([np.ones_like(r), r, r * r, p1 * r - p0 - p2 * r * r, 2 * p2 * r - p1, -p2])
    wanted[3] -= d << np.uint64(protocol.dropped)
    assert not ((dealt + words - wanted) << np.uint64(64 - protocol.total)).any()
    streams = {pair: {Purpose(purpose) for purpose, _ in trio.streams[pair].drawn} for pair in ("CP", "SP")}
    assert streams == {"CP": {Purpose.OPENING, Purpose.ACTIVATION, Purpose.LOOKUP}, "SP": {Purpose.OPENING, Purpose.LOOKUP}}


@pytest.mark.parametrize("value", (0, 5000))
@pytest.mark.parametrize("bits", (48, 32))
def test_lookup_shows_nobody_anything(bits, value):
    """The same value in every element, without any mask of its own."""
    shape = (1, 1, 64, 128)
    protocol = lookup(bits, shape, 6, np.random.default_rng(4))
    nothing = np.zeros(shape, np.uint64 if bits > 32 else np.uint32)
    (_, u, _), trio = run(protocol, (nothing, nothing + nothing.dtype.type(value), nothing))
    widths, rows = widths_of(protocol), lambda words, sizes: [bits_of(row, size) for row, size in zip(words, sizes, strict=True)]
    flips = lambda choices: [planes_of(np.packbits(choices.T, axis=1, bitorder="little"))]
    x, halves = trio.online[1].sent[0][2]
    opened = np.empty(COUNT, np.uint32)
    unpack(x.view(np.uint8).reshape(-1), COUNT, protocol.cut.kept_bits, opened)
    _, theirs = runs_of(halves, COUNT, 0, widths)
    at_client = np.concatenate([bits_of(opened, protocol.cut.kept_bits), *rows(theirs, widths)])
    _, mine = runs_of(trio.online[0].sent[0][2][0], COUNT, 0, [*widths, protocol.kept_bits])
    choices, words, pads = client_rows(drawn(trio.streams["CP"], Purpose.LOOKUP), COUNT, protocol.rows)
    sent = rows(mine, [*widths, protocol.kept_bits])
    drawn_by_client = [*flips(choices), *rows(words, [64] * 6), *rows(pads, [64] * 3)]
    assert_uniform(at_client, np.concatenate([*sent, *drawn_by_client]))
    dealt_choices, dealt = runs_of(trio.dealt[0].sent[0][2][0], COUNT, protocol.rows, [protocol.total] * 6)
    half = np.empty(COUNT, np.uint32)
    unpack(trio.prepared[0].sent[0][2][0].view(np.uint8).reshape(-1), COUNT, protocol.cut.kept_bits, half)
    server = drawn(trio.streams["SP"], Purpose.LOOKUP)[: 24 * COUNT].view(np.uint64).reshape(COUNT, 3).T
    at_server = [*flips(dealt_choices), *rows(dealt, [protocol.total] * 6), bits_of(half, protocol.cut.kept_bits), *sent]
    known = np.concatenate(
        [at_client, *rows(server, [64] * 3), bits_of(drawn(trio.streams["SP"], Purpose.OPENING)[: 4 * COUNT].view("u4"), 32)]
    )
    assert_uniform(np.concatenate([*at_server, bits_of(u.reshape(-1).astype(np.uint64), protocol.kept_bits)]), known)
    upper = dealt[3] >> np.uint64(protocol.dropped)
    for combined in (upper + mine[-1], upper - mine[-1]):  # d stays in what both pads of v leave
        assert_uniform(bits_of(combined, protocol.kept_bits), known)
