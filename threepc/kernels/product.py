"""The passes of a product of two hidden values: masked factors, the parties' summands of the product, its opening to the client, its lift.

One file for all, tile by tile as in runs.py, with the letters of protocol/product.py. A summand is the sum a b + c e of two products of what a party
holds; where a factor has fewer elements than the product, they are spread over it tile by tile (`Spread`), so that it is never written out.
Ring words, cut words and planes are as in gate.py.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.gate import _ONE, _lift, _low, add_cut
from threepc.kernels.keystream import draw
from threepc.kernels.options import kernel
from threepc.kernels.packing import pack, unpack
from threepc.kernels.runs import _blocks, _bounds, _packed

MOST_LIFTED = 31
"""Bits between a cut ring and the ring at most: so many are left of a 32-bit pad beside beta."""

_PAD = np.uint32((1 << MOST_LIFTED) - 1)


class Spread(NamedTuple):
    """Where a product's element p finds its factor: at p // block * row + p % row. The same shape has block = row; block is a multiple of row."""

    block: int
    row: int


class Terms(NamedTuple):
    """A party's summand a b + c e: a and c laid out as the first factor, b and e as the second; c and e are empty where there is one term.

    done: the summand itself, one word an element, where it was computed before (a matrix product); else empty. count: elements of the product.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    e: np.ndarray
    first: Spread
    second: Spread
    done: np.ndarray
    count: int


class ProductScratch(NamedTuple):
    """Room for a tile. words: 5 rows of ring words; t: ring words; w: uint32; masks: cut words."""

    words: np.ndarray
    t: np.ndarray
    w: np.ndarray
    masks: np.ndarray


@kernel
def _spread(x, spread, begin, end, out):
    """What the elements begin .. end - 1 of a product find in a factor x: a part of x, or of `out`."""
    block, row = spread
    if block == row:
        return x[begin:end]
    at = begin
    while at < end:
        first = at // block * row
        if row == 1:
            stop = min(end, (at // block + 1) * block)
            for i in range(at - begin, stop - begin):
                out[i] = x[first]
        else:
            offset = at % row
            stop = min(end, at + row - offset)
            for i in range(stop - at):
                out[at - begin + i] = x[first + offset + i]
        at = stop
    return out[: end - begin]


@kernel
def _summand(terms, begin, end, words):
    """The summand of the elements begin .. end - 1, all of them data."""
    if terms.done.shape[0]:
        return terms.done[begin:end]
    size = words.shape[0] // 5
    z = words[4 * size : 4 * size + end - begin]
    a = _spread(terms.a, terms.first, begin, end, words[:size])
    b = _spread(terms.b, terms.second, begin, end, words[size : 2 * size])
    if terms.c.shape[0]:
        c = _spread(terms.c, terms.first, begin, end, words[2 * size : 3 * size])
        e = _spread(terms.e, terms.second, begin, end, words[3 * size : 4 * size])
        for i in range(end - begin):
            z[i] = a[i] * b[i] + c[i] * e[i]
    else:
        for i in range(end - begin):
            z[i] = a[i] * b[i]
    return z


@kernel
def mask_factors(u, bits, server_stream, tiles, s, masked, message):
    """S: s drawn with P, and masked = u + s, also packed. u ends with the data."""
    step = _blocks(s.itemsize)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        draw(server_stream, tile * step, s[begin:end])
        masked[begin:end] = s[begin:end]
        for i in range(begin, min(end, u.shape[0])):
            masked[i] += u[i]
        pack(masked[begin:end], end - begin, bits, _packed(message, begin, end, bits))


@kernel
def open_factors(message, bits, d, tiles, opened):
    """C: opened = the masked factor + d. d ends with the data."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        unpack(_packed(message, begin, end, bits), end - begin, bits, opened[begin:end])
        for i in range(begin, min(end, d.shape[0])):
            opened[i] += d[i]


@kernel
def _draw_pads(client_stream, tile, count, scratch):
    """The tile's t, one ring word an element, and w: beta in its top bit, below it the pad of the other branch's lift."""
    t, w = scratch.t[:count], scratch.w[:count]
    block = draw(client_stream, tile * _blocks(t.itemsize + 4), t)
    draw(client_stream, block, w)
    return t, w


@kernel
def deal_products(terms, d, cut, server_stream, client_stream, tiles, scratch, message):
    """P: pack k (bits) and q (bits - kept_bits) of every element into message. d: ring words, padded."""
    bits, kept_bits, ring = cut.bits, cut.kept_bits, d.dtype.type
    mask, top, up = _low(kept_bits), np.uint64(kept_bits - 1), ring(kept_bits)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, r = end - begin, scratch.masks[: end - begin]
        draw(server_stream, tile * _blocks(r.itemsize), r)
        add_cut(_summand(terms, begin, min(end, terms.count), scratch.words), cut, 0, r)
        t, w = _draw_pads(client_stream, tile, count, scratch)
        for p in range(count):
            value = np.uint64(r[p]) & mask
            carry = np.uint32((value >> top) & _ONE)
            chosen = carry & (w[p] >> np.uint32(31))
            t[p] = ring(ring(chosen) << up) - ring(value) - d[begin + p] - t[p]
            w[p] = carry - chosen - chosen - (w[p] & _PAD)
        part = _packed(message, begin, end, 2 * bits - kept_bits)
        pack(t, count, bits, part[: count // 8 * bits])
        pack(w, count, bits - kept_bits, part[count // 8 * bits :])


@kernel
def serve_products(terms, cut, server_stream, tiles, scratch, message):
    """S: pack h = s + the cut of its summand, which is minus the terms, rounded."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        s, z = scratch.masks[: end - begin], _summand(terms, begin, min(end, terms.count), scratch.words)
        for i in range(z.shape[0]):
            z[i] = ~z[i] + z.dtype.type(1)
        draw(server_stream, tile * _blocks(s.itemsize), s)
        add_cut(z, cut, (1 << cut.shift) >> 1, s)
        pack(s, end - begin, cut.kept_bits, _packed(message, begin, end, cut.kept_bits))


@kernel
def infer_products(terms, half_opened, cut, client_stream, tiles, scratch, message, planes):
    """C: pack v = m + t + n^ (w << kept_bits), and the planes of n^ = n XOR beta. half_opened: h."""
    bits, kept_bits, ring = cut.bits, cut.kept_bits, scratch.t.dtype.type
    mask, quarter, up = _low(kept_bits), np.uint64(1) << np.uint64(kept_bits - 2), ring(kept_bits)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, x = end - begin, scratch.masks[: end - begin]
        unpack(_packed(half_opened, begin, end, kept_bits), count, kept_bits, x)
        add_cut(_summand(terms, begin, min(end, terms.count), scratch.words), cut, 0, x)
        t, w = _draw_pads(client_stream, tile, count, scratch)
        for j in range(count // 64):
            plane = np.uint64(0)
            for i in range(64):
                p = 64 * j + i
                m, n = _lift(x[p], kept_bits, quarter, mask)
                branch = (n & _ONE) ^ np.uint64(w[p] >> np.uint32(31))
                plane |= branch << np.uint64(i)
                pad = ring(ring(w[p] & _PAD) << up)
                t[p] = ring(m) + t[p] + ring(pad & ring(ring(0) - ring(branch)))
            planes[begin // 64 + j] = plane
        pack(t, count, bits, _packed(message, begin, end, bits))


@kernel
def finish_products(v_message, planes, dealt, cut, tiles, scratch, u):
    """S: u = v + k + n^ (q << kept_bits); u ends with the data."""
    bits, kept_bits, ring = cut.bits, cut.kept_bits, u.dtype.type
    size, up = scratch.words.shape[0] // 5, ring(kept_bits)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        count, part = end - begin, _packed(dealt, begin, end, 2 * bits - kept_bits)
        v, k, q = scratch.words[:count], scratch.words[size : size + count], scratch.words[2 * size : 2 * size + count]
        unpack(_packed(v_message, begin, end, bits), count, bits, v)
        unpack(part[: count // 8 * bits], count, bits, k)
        unpack(part[count // 8 * bits :], count, bits - kept_bits, q)
        for j in range(count // 64):
            plane = planes[begin // 64 + j]
            for i in range(64):
                p = 64 * j + i
                branch = ring(0) - ring((plane >> np.uint64(i)) & _ONE)
                v[p] += k[p] + ring(ring(q[p] << up) & branch)
        for i in range(begin, min(end, u.shape[0])):
            u[i] = v[i - begin]


@kernel
def multiply_matrices(a, b, maps, out):
    """out += a b for every map of maps.first .. maps.last - 1: a (maps, rows, depth), b (maps, depth, columns), out (maps, rows, columns)."""
    for n in range(maps.first, maps.last):
        for i in range(a.shape[1]):
            for k in range(a.shape[2]):
                factor = a[n, i, k]
                for j in range(b.shape[2]):
                    out[n, i, j] += factor * b[n, k, j]
