"""Bit-sliced comparison with a table of the mask: planes of 64 elements a word, one row a plane.

Rows are uint64 arrays (rows, words). `ones` is all ones at one of the two holders of XOR shares and zero at the other: it alone adds constants.
What a row stands for is decided by the tables of threepc/protocol/window.py; nothing here knows of parties or masks' meaning.
"""

import numpy as np

from threepc.kernels.options import inline, kernel


@inline
def _select(bit, when_one, when_zero):
    return when_zero ^ (bit & (when_one ^ when_zero))


@kernel
def select_leaves(bits, chunks, tables, ones, out):
    """Share of [value < r] in out[2 c] and of [value = r] in out[2 c + 1] for every chunk c.

    bits: planes of the public value; chunks (n, 3): width, first plane, first row in tables; tables: shares of [r = i] for
    i < 2^width - 1 (the last is the XOR of the others and one).
    """
    words = bits.shape[1]
    for c in range(chunks.shape[0]):
        width, bit, row = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        less, equal = out[2 * c], out[2 * c + 1]
        low, p0 = bits[bit], tables[row]
        if width == 1:
            for j in range(words):
                equal[j] = p0[j] ^ (low[j] & ones)
                less[j] = ~low[j] & (p0[j] ^ ones)
        elif width == 2:
            high, p1, p2 = bits[bit + 1], tables[row + 1], tables[row + 2]
            for j in range(words):
                a, b, s0 = low[j], high[j], p0[j] ^ ones
                s1 = s0 ^ p1[j]
                p3 = s1 ^ p2[j]
                equal[j] = _select(b, _select(a, p3, p2[j]), _select(a, p1[j], p0[j]))
                less[j] = _select(b, ~a & p3, _select(a, s1, s0))
        else:
            middle, high = bits[bit + 1], bits[bit + 2]
            p1, p2, p3, p4, p5, p6 = tables[row + 1], tables[row + 2], tables[row + 3], tables[row + 4], tables[row + 5], tables[row + 6]
            for j in range(words):
                a, b, c2, s0 = low[j], middle[j], high[j], p0[j] ^ ones
                s1 = s0 ^ p1[j]
                s2 = s1 ^ p2[j]
                s3 = s2 ^ p3[j]
                s4 = s3 ^ p4[j]
                s5 = s4 ^ p5[j]
                p7 = s5 ^ p6[j]
                equal[j] = _select(
                    c2,
                    _select(b, _select(a, p7, p6[j]), _select(a, p5[j], p4[j])),
                    _select(b, _select(a, p3[j], p2[j]), _select(a, p1[j], p0[j])),
                )
                less[j] = _select(c2, _select(b, ~a & p7, _select(a, s5, s4)), _select(b, _select(a, s3, s2), _select(a, s1, s0)))


@kernel
def combine(program, opened, masks, products, ones, out):  # noqa: C901, PLR0912 - each number of factors has a loop that does not test it
    """Evaluate shares of products of masked wires: out[dest] ^= secret AND opened[public rows], for each step of the program.

    program (steps, 3 + fan-in): dest, secret (-1 the constant, below masks.shape[0] a wire's mask, else a dealt product), number of public
    rows, the public rows.
    """
    words = out.shape[1]
    wires = masks.shape[0]
    for step in range(program.shape[0]):
        target, secret, publics = out[program[step, 0]], program[step, 1], program[step, 2]
        if secret < 0:
            if ones == 0:
                continue
            first = opened[program[step, 3]]
            begin = 1
        else:
            first = masks[secret] if secret < wires else products[secret - wires]
            begin = 0
        left = publics - begin
        if left == 0:
            for j in range(words):
                target[j] ^= first[j]
        elif left == 1:
            a = opened[program[step, 3 + begin]]
            for j in range(words):
                target[j] ^= first[j] & a[j]
        elif left == 2:
            a, b = opened[program[step, 3 + begin]], opened[program[step, 4 + begin]]
            for j in range(words):
                target[j] ^= first[j] & a[j] & b[j]
        elif left == 3:
            a, b, c = opened[program[step, 3 + begin]], opened[program[step, 4 + begin]], opened[program[step, 5 + begin]]
            for j in range(words):
                target[j] ^= first[j] & a[j] & b[j] & c[j]
        else:
            for j in range(words):
                value = first[j]
                for k in range(begin, publics):
                    value &= opened[program[step, 3 + k], j]
                target[j] ^= value


@kernel
def copy_rows(rows, source, out):
    """out[i] = source[rows[i]], or zero where rows[i] is negative."""
    for i in range(rows.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = source[rows[i], j] if rows[i] >= 0 else np.uint64(0)


@kernel
def mask_rows(rows, source, masks, out):
    """out[i] = source[rows[i]] ^ masks[i]: one holder's half of an opening."""
    for i in range(rows.shape[0]):
        a, m = source[rows[i]], masks[i]
        for j in range(out.shape[1]):
            out[i, j] = a[j] ^ m[j]


@kernel
def xor(a, b, out):
    """out = a ^ b, all (rows, words)."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] ^ b[i, j]


@kernel
def deal_tables(bits, chunks, half, out):
    """out[row + i] = half[row + i] ^ [chunk of r = i]: the other holder's shares of the one-hot tables of r's chunks."""
    words = bits.shape[1]
    for c in range(chunks.shape[0]):
        width, bit, row = chunks[c, 0], chunks[c, 1], chunks[c, 2]
        for i in range((1 << width) - 1):
            a = bits[bit]
            flip_a = np.uint64(0) if i & 1 else ~np.uint64(0)
            mine, theirs = half[row + i], out[row + i]
            if width == 1:
                for j in range(words):
                    theirs[j] = mine[j] ^ a[j] ^ flip_a
            elif width == 2:
                b, flip_b = bits[bit + 1], np.uint64(0) if i & 2 else ~np.uint64(0)
                for j in range(words):
                    theirs[j] = mine[j] ^ ((a[j] ^ flip_a) & (b[j] ^ flip_b))
            else:
                b, flip_b = bits[bit + 1], np.uint64(0) if i & 2 else ~np.uint64(0)
                high, flip_high = bits[bit + 2], np.uint64(0) if i & 4 else ~np.uint64(0)
                for j in range(words):
                    theirs[j] = mine[j] ^ ((a[j] ^ flip_a) & (b[j] ^ flip_b) & (high[j] ^ flip_high))


@kernel
def deal_products(factors, masks_a, masks_b, half, out):
    """out[p] = half[p] ^ AND over the wires of product p of (masks_a ^ masks_b); factors (products, fan-in), -1 pads."""
    words = out.shape[1]
    for p in range(factors.shape[0]):
        mine, theirs = half[p], out[p]
        f0, f1 = factors[p, 0], factors[p, 1]
        a0, b0, a1, b1 = masks_a[f0], masks_b[f0], masks_a[f1], masks_b[f1]
        for j in range(words):
            theirs[j] = (a0[j] ^ b0[j]) & (a1[j] ^ b1[j])
        for k in range(2, factors.shape[1]):
            if factors[p, k] >= 0:
                a, b = masks_a[factors[p, k]], masks_b[factors[p, k]]
                for j in range(words):
                    theirs[j] &= a[j] ^ b[j]
        for j in range(words):
            theirs[j] ^= mine[j]
