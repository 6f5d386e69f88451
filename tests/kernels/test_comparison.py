"""The bit-sliced pieces of a comparison against their definitions, on two holders' XOR shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.comparison import combine, copy_rows, deal_products, deal_tables, mask_rows, select_leaves, xor
from threepc.kernels.planes import slice_bits

ONES, ZERO = ~np.uint64(0), np.uint64(0)


def random_rows(rng, *shape):
    return rng.integers(0, np.iinfo(np.uint64).max, shape, np.uint64, endpoint=True)


def bits(plane):
    """A plane's bits as booleans."""
    return np.unpackbits(plane.view(np.uint8), bitorder="little").astype(bool)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 2**32))
def test_leaves_of_dealt_tables_compare_chunks(widths, words, seed):
    """From a table of the mask and the public value: shares of [chunk of v < chunk of r] and of their equality."""
    rng = np.random.default_rng(seed)
    firsts = np.concatenate([[0], np.cumsum(widths)])
    rows = np.concatenate([[0], np.cumsum([(1 << w) - 1 for w in widths])])
    chunks = np.stack([widths, firsts[:-1], rows[:-1]], axis=1).astype(np.int32)
    v, r = random_rows(rng, 64 * words), random_rows(rng, 64 * words)
    r[::3] = v[::3]  # equality is rare among random chunks
    of_v, of_r = (np.empty((firsts[-1], words), np.uint64) for _ in range(2))
    slice_bits(v, 0, of_v)
    slice_bits(r, 0, of_r)
    half, other = random_rows(rng, rows[-1], words), np.empty((rows[-1], words), np.uint64)
    deal_tables(of_r, chunks, half, other)
    leaves = [np.empty((2 * len(widths), words), np.uint64) for _ in range(2)]
    select_leaves(of_v, chunks, half, ONES, leaves[0])
    select_leaves(of_v, chunks, other, ZERO, leaves[1])
    together = leaves[0] ^ leaves[1]
    for c, (width, first) in enumerate(zip(widths, firsts)):
        a, b = ((x >> np.uint64(first)) & np.uint64((1 << width) - 1) for x in (v, r))
        assert np.array_equal(bits(together[2 * c]), a < b)
        assert np.array_equal(bits(together[2 * c + 1]), a == b)


@settings(max_examples=60)
@given(st.data())
def test_products_of_masked_wires(data):
    """combine adds the product of wires to shares: AND of (opened ^ mask), expanded over the subsets of the masks."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    words, wires, outputs = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    some_wires = st.sets(st.integers(0, wires - 1), min_size=1, max_size=5)
    terms = data.draw(st.lists(st.tuples(st.integers(0, outputs - 1), some_wires), min_size=1, max_size=4))
    subsets = lambda s: [tuple(w for i, w in enumerate(s) if n >> i & 1) for n in range(1 << len(s))]
    products = sorted({q for _, term in terms for q in subsets(sorted(term)) if len(q) > 1})
    factors = np.full((len(products), 5), -1, np.int32)
    for row, q in zip(factors, products):
        row[: len(q)] = q
    program = []
    for target, term in terms:
        for secret in subsets(sorted(term)):
            index = -1 if not secret else secret[0] if len(secret) == 1 else wires + products.index(secret)
            public = sorted(term - set(secret))
            program.append([target, index, len(public), *public, *[-1] * (5 - len(public))])
    values, masks_a, masks_b = (random_rows(rng, wires, words) for _ in range(3))
    opened = values ^ masks_a ^ masks_b
    half, other = random_rows(rng, len(products), words), np.empty((len(products), words), np.uint64)
    deal_products(factors, masks_a, masks_b, half, other)
    for q, a, b in zip(products, half, other):
        assert np.array_equal(a ^ b, np.bitwise_and.reduce([masks_a[w] ^ masks_b[w] for w in q]))
    out_a, out_b = random_rows(rng, outputs, words), random_rows(rng, outputs, words)
    wanted = out_a ^ out_b
    for target, term in terms:
        wanted[target] ^= np.bitwise_and.reduce([values[w] for w in term])
    combine(np.array(program, np.int32), opened, masks_a, half, ONES, out_a)
    combine(np.array(program, np.int32), opened, masks_b, other, ZERO, out_b)
    assert np.array_equal(out_a ^ out_b, wanted)


@pytest.mark.parametrize("rows", ([0], [2, 0, 1], [1, -1, 1]))
def test_rows_are_copied_masked_and_added(rows):
    rng, index = np.random.default_rng(0), np.array(rows, np.int32)
    source, masks, out = random_rows(rng, 3, 5), random_rows(rng, 3, 5), random_rows(rng, 3, 5)
    out = out[: len(rows)]
    copy_rows(index, source, out)
    for row, got in zip(rows, out):
        assert np.array_equal(got, source[row] if row >= 0 else np.zeros(5, np.uint64))
    if min(rows) >= 0:
        mask_rows(index, source, masks, out)
        assert np.array_equal(out, source[index] ^ masks[: len(rows)])
    xor(source[: len(rows)], masks[: len(rows)], out)
    assert np.array_equal(out, source[: len(rows)] ^ masks[: len(rows)])
