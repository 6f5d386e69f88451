"""Cut, masked opening, gate and truncation of one tile, against Python's integers."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from threepc.kernels import gate
from threepc.kernels.gate import Cut, Lift, Pads, Slopes
from threepc.kernels.packing import pack, packed_bytes, padded, unpack
from threepc.ring import word_of

SIZES = ((64, 48), (48, 32), (48, 36), (40, 28), (32, 17), (32, 20), (48, 48), (32, 32))
"""(bits of the ring, bits that are opened)."""

DEEP = ((64, 40), (48, 24), (40, 16))
"""The same, with more bits between than one half of a 32-bit word masks."""


def random_words(rng, count, word):
    return rng.integers(0, np.iinfo(word).max, count, word, endpoint=True)


def signed(value, bits):
    value = int(value) % 2**bits
    return value - (2**bits if value >> bits - 1 else 0)


def bits(planes):
    return np.unpackbits(planes.view(np.uint8), bitorder="little")


@settings(max_examples=60)
@given(st.sampled_from(SIZES), st.integers(1, 200), st.integers(0, 2**32))
def test_cut_and_opening(size, count, seed):
    (ring, cut), rng = size, np.random.default_rng(seed)
    shift, whole = ring - cut, padded(count)
    word = word_of(cut)
    z_c, z_s = random_words(rng, count, word_of(ring)), random_words(rng, count, word_of(ring))
    t, s = random_words(rng, whole, word), random_words(rng, whole, word)
    rounding = (1 << shift) // 2
    expected = lambda z, mask, half: [(int(m) + (((int(v) + half) % 2**ring) >> shift)) % 2**cut for v, m in zip(z, mask)]
    out = t.copy()
    gate.add_cut(z_c, Cut(ring, shift, cut), rounding, out)
    assert [int(v) % 2**cut for v in out[:count]] == expected(z_c, t, rounding)
    assert np.array_equal(out[count:], t[count:]), "what pads a tile is the mask alone"

    half, message, x = np.empty(packed_bytes(count, cut), np.uint8), np.empty(packed_bytes(count, cut), np.uint8), np.empty(whole, word)
    masked = t.copy()
    gate.add_cut(z_c, Cut(ring, shift, cut), 0, masked)
    pack(masked, whole, cut, half)
    gate.open_masked(z_s, Cut(ring, shift, cut), half, s.copy(), x, message)
    wanted = [(a + b) % 2**cut for a, b in zip(expected(z_c, t, 0), expected(z_s, s, rounding))]
    assert [int(v) % 2**cut for v in x[:count]] == wanted
    back = np.empty(whole, word)
    unpack(message, whole, cut, back)
    assert np.array_equal(back & word((1 << cut) - 1), x & word((1 << cut) - 1))


SLOPES = (
    None,
    Slopes(0, 1, 0),
    Slopes(-1, 1, 0),
    Slopes(1, 0, 0),
    Slopes(655, 65536, 16),
    Slopes(0, 10923, 16),
    Slopes(-3, 5, 2),
    Slopes(5461, -16384, 14),
)


@settings(max_examples=150)
@given(st.sampled_from(SIZES + DEEP), st.sampled_from(SLOPES), st.integers(1, 150), st.integers(0, 2**32))
def test_gate_multiplies_by_the_decision_and_lifts(size, slopes, count, seed):
    """u + d = b (x - r) in the ring for every combination of b and beta's halves, for |x - r| below a quarter of the cut ring.

    With slopes it is that times the slope of b, to a unit; exactly for whole slopes.
    """
    (ring, cut), rng = size, np.random.default_rng(seed)
    assume(slopes is None or cut + max(abs(slopes.below), abs(slopes.above)).bit_length() <= 63)
    assume(size not in DEEP or (slopes is not None and ring - cut + slopes.bits <= 32))
    whole, big, small = padded(count), word_of(ring), word_of(cut)
    limit = 2 ** (cut - 2)
    values = np.array([signed(v, 64) % (2 * limit) - limit for v in random_words(rng, whole, np.uint64)], object)
    values[: min(4, whole)] = [-limit, limit - 1, 0, -1][: min(4, whole)]
    r = random_words(rng, whole, small)
    x = np.array([(int(v) + int(m)) % 2**cut for v, m in zip(values, r)], np.uint64).astype(small)
    planes = [rng.integers(0, np.iinfo(np.uint64).max, whole // 64, np.uint64, endpoint=True) for _ in range(3)]
    decision, beta_c, beta_s = planes
    opened = decision ^ beta_c ^ beta_s
    pads = Pads(random_words(rng, (2, whole), big), random_words(rng, whole, np.uint64 if slopes else np.uint32))
    d, finer = random_words(rng, whole, big), slopes.bits if slopes else 0
    tile_bits = 2 * ring + 2 * (ring - cut + finer)
    dealt, v = (np.empty(packed_bytes(count, width), np.uint8) for width in (tile_bits, ring))
    work = np.empty((5, whole), big)
    gate.deal_gate(r, beta_c, beta_s, pads, d, Lift(ring, cut), slopes, work, dealt)
    gate.infer_gate(x, opened, beta_c, Pads(pads.t.copy(), pads.w), Lift(ring, cut), slopes, v)
    u = np.empty(count, big)
    gate.serve_gate(x, opened, beta_s, v, dealt, Lift(ring, cut), slopes, work, u)
    got = [signed(int(a) + int(b), ring) for a, b in zip(u, d)]
    b = bits(decision)
    below, above = (slopes.below, slopes.above) if slopes else (0, 1)
    wanted = [int(value) * (above if bit else below) for value, bit in zip(values, b)][:count]
    errors = [signed((a << finer) - value, ring + finer) for a, value in zip(got, wanted)]
    assert max(map(abs, errors)) < 1 << finer


@settings(max_examples=60)
@given(st.sampled_from([*(s for s in SIZES if s[0] > s[1]), *DEEP]), st.integers(1, 150), st.integers(0, 2**32))
def test_truncation_lifts(size, count, seed):
    (ring, cut), rng = size, np.random.default_rng(seed)
    whole, big, small = padded(count), word_of(ring), word_of(cut)
    limit = 2 ** (cut - 2)
    values = np.array([signed(v, 64) % (2 * limit) - limit for v in random_words(rng, whole, np.uint64)], object)
    values[:2] = -limit, limit - 1
    r, d, w = (
        random_words(rng, whole, small),
        random_words(rng, whole, big),
        random_words(rng, whole, np.uint64 if size in DEEP else np.uint32),
    )
    x = np.array([(int(v) + int(m)) % 2**cut for v, m in zip(values, r)], np.uint64).astype(small)
    dealt, reply = np.empty(packed_bytes(count, 2 * ring - cut), np.uint8), np.empty(packed_bytes(count, ring - cut), np.uint8)
    carries = np.empty(whole // 64, np.uint64)
    gate.deal_identity(r, w, d, Lift(ring, cut), np.empty(whole, big), dealt)
    gate.carry_plane(x, cut, carries)
    assert np.array_equal(bits(carries), [((int(v) + limit) % 2**cut) < 2 ** (cut - 1) for v in x])
    gate.infer_identity(carries, w.copy(), Lift(ring, cut), reply)
    u = np.empty(count, big)
    gate.serve_identity(x, reply, dealt, Lift(ring, cut), np.empty((3, whole), big), u)
    assert [signed(int(a) + int(b), ring) for a, b in zip(u, d)] == [int(v) for v in values[:count]]


@pytest.mark.parametrize("ring, cut", SIZES)
def test_one_branch_of_the_pads_is_sent(ring, cut):
    """v depends on t_0 where the opened bit is 0 and on t_1 where it is 1, never on both."""
    rng, big = np.random.default_rng(0), word_of(ring)
    x, opened, beta = random_words(rng, 64, word_of(cut)), random_words(rng, 1, np.uint64), random_words(rng, 1, np.uint64)
    t0, t1, w = random_words(rng, 64, big), random_words(rng, 64, big), random_words(rng, 64, np.uint32)

    def message(t0, t1):
        packed, words = np.empty(packed_bytes(64, ring), np.uint8), np.empty(64, big)
        gate.infer_gate(x, opened, beta, Pads(np.stack([t0, t1]), w), Lift(ring, cut), None, packed)
        unpack(packed, 64, ring, words)
        return words

    first, second = message(t0, t1) != message(t0 + big(1), t1), message(t0, t1) != message(t0, t1 + big(1))
    assert np.array_equal(first, bits(opened) == 0) and np.array_equal(second, bits(opened) == 1)
