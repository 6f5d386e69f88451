"""Passes of a lookup over some tiles of a run: the table's rows that a one-hot share chooses, and the polynomial in an opened value.

Letters as in threepc/protocol/lookup.py. Words are uint64, sums wrap, and bits above those of a `Layout` mean nothing. A tile is worked off in
runs of RUN elements, whose scratch stays in the cache; messages and streams are laid out run after run.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.emitter import at, emitted, number
from threepc.kernels.keystream import BLOCK_BYTES, draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import TILE, pack, unpack

RUN = 1024
COEFFICIENTS = 3
"""A piece is a polynomial of degree two."""
DEALT = 6
"""Words that P deals for each element: sigma, sigma r, sigma r^2 and the pads' part of the polynomial in A."""
_ONE = np.uint64(1)


class Layout(NamedTuple):
    """What is public about a lookup: bits and rows.

    index: k, bits of a row's number; low: bits of an element within a row; total: L, bits of the sums; dropped: bits of a sum that are not sent.
    table: uint64, flat: for each coefficient the rows 0, -1, -2, ... modulo 2^k, twice.
    """

    index: int
    low: int
    total: int
    dropped: int
    table: np.ndarray


class Drawn(NamedTuple):
    """What C and P draw for the elements of a run. choice: C's half of the one-hot bits; words: C's halves of what is dealt; pads: of coefficients."""

    choice: np.ndarray
    words: np.ndarray
    pads: np.ndarray


class Space(NamedTuple):
    """Scratch of a run, flat uint64: room for `Drawn`; for the server's pads, or the sums over C's bits; for DEALT words an element."""

    drawn: Drawn
    sums: np.ndarray
    work: np.ndarray


@inline
def _choice_words(layout):
    """64-bit words of an element's one-hot bits."""
    return (1 << layout.index) >> 6


@inline
def _width(layout, i):
    """Bits of coefficient i as it is opened."""
    return layout.total - (COEFFICIENTS - 1 - i) * layout.low


@inline
def _opened_bits(layout):
    return _width(layout, 0) + _width(layout, 1) + _width(layout, 2)


@inline
def _part(message, begin, end, bits):
    return message[begin // 8 * bits : end // 8 * bits]


@emitted
def _sum_chosen(emit, chosen, table, rows, words, out):
    """out[i] = the sum of table[i * rows + j] over all j < 64 * words whose bit is set in the words at the place `chosen`, for three i."""
    builder, lanes = emit.builder, emit.lanes

    def step(word, sums):
        bits = emit.load(emit.shift(chosen, word))
        for part in range(0, 64, lanes):
            mask = emit.mask(builder.lshr(bits, number(part)))
            first = builder.add(builder.mul(word, number(64)), number(part))
            for i in range(COEFFICIENTS):
                row = emit.load(emit.shift(table, builder.add(builder.mul(rows, number(i)), first)), lanes)
                sums[i] = builder.add(sums[i], builder.select(mask, row, emit.zero(lanes)))
        return sums

    _, sums = emit.repeat(number(0), words, 1, [emit.zero(lanes)] * COEFFICIENTS, step)
    for i in range(COEFFICIENTS):
        width = lanes
        while width > 1:
            width //= 2
            halves = (emit.shuffle(sums[i], sums[i], range(first, first + width)) for first in (0, width))
            sums[i] = builder.add(*halves)
        builder.store(builder.extract_element(sums[i], number(0)), emit.shift(out, i))


@inline
def _choose(x, choice, layout, sums):
    """sums[3 p + i] = over all j with bit j set in element p's `choice`, row A_hi - j of coefficient i. x: opened words A; choice: flat words."""
    words, rows = _choice_words(layout), 1 << layout.index
    for p in range(x.shape[0]):
        first = (-(np.int64(x[p]) >> layout.low)) & (rows - 1)
        _sum_chosen(at(choice, p * words), at(layout.table, first), 2 * rows, words, at(sums, COEFFICIENTS * p))


@inline
def _draw_client(stream, begin, count, layout, room):
    """What C and P draw for the run of `count` elements from `begin` on."""
    choice, words, pads = room.choice[: count * _choice_words(layout)], room.words[: DEALT * count], room.pads[: COEFFICIENTS * count]
    block = begin * 8 * (_choice_words(layout) + DEALT + COEFFICIENTS) // BLOCK_BYTES
    block = draw(stream, block, choice)
    block = draw(stream, block, words)
    draw(stream, block, pads)
    return Drawn(choice, words, pads)


@inline
def _draw_server(stream, begin, pads):
    draw(stream, begin * 8 * COEFFICIENTS // BLOCK_BYTES, pads)


@kernel
def deal_lookups(r, d, layout, client_stream, server_stream, tiles, space, message):
    """P: pack the server's halves, with -d in the constant. r, d: words, the whole run."""
    size, words = (1 << layout.index) + DEALT * layout.total, _choice_words(layout)
    up1, up0 = np.uint64(layout.low), np.uint64(2 * layout.low)
    for begin in range(tiles.first * TILE, min(tiles.last * TILE, tiles.count), RUN):
        end = min(begin + RUN, tiles.count)
        count = end - begin
        drawn, own, work = _draw_client(client_stream, begin, count, layout, space.drawn), space.sums[: COEFFICIENTS * count], space.work
        _draw_server(server_stream, begin, own)
        part = _part(message, begin, end, size)
        choice = part[: count * 8 * words].view(np.uint64)
        choice[:] = drawn.choice
        for p in range(count):
            mask = np.uint64(r[begin + p])
            row = np.int64(mask >> np.uint64(layout.low)) & ((1 << layout.index) - 1)
            place, bit = p * words + row // 64, np.uint64(row % 64)
            choice[place] ^= _ONE << bit
            # sigma is 1 where C's half of the bit is set, -1 where it is the server's
            flip = ((drawn.choice[place] >> bit) & _ONE) - _ONE
            low = mask & ((_ONE << np.uint64(layout.low)) - _ONE)
            p0 = (drawn.pads[3 * p] + own[3 * p]) << up0
            p1 = (drawn.pads[3 * p + 1] + own[3 * p + 1]) << up1
            p2 = drawn.pads[3 * p + 2] + own[3 * p + 2]
            work[p] = _signed(_ONE, flip)
            work[count + p] = _signed(low, flip)
            work[2 * count + p] = _signed(low * low, flip)
            shift = np.uint64(d[begin + p]) << np.uint64(layout.dropped)
            work[3 * count + p] = np.uint64(0) - _signed(p0 - p1 * low + p2 * low * low, flip) - shift
            work[4 * count + p] = np.uint64(0) - _signed(p1 - ((p2 * low) << _ONE), flip)
            work[5 * count + p] = np.uint64(0) - _signed(p2, flip)
        step = count // 8 * layout.total
        for i in range(DEALT):
            row = work[i * count : (i + 1) * count]
            for p in range(count):
                row[p] -= drawn.words[i * count + p]
            pack(row, count, layout.total, part[count * 8 * words + i * step : count * 8 * words + (i + 1) * step])


@inline
def _signed(value, flip):
    """value, or -value where flip is all ones."""
    return (value ^ flip) - flip


@inline
def _pack_masked(sums, pads, flip, layout, count, work, message):
    """Pack the coefficients, negated where flip is all ones, under their pads; `sums` becomes what was packed."""
    done = 0
    for i in range(COEFFICIENTS):
        bits = _width(layout, i)
        for p in range(count):
            sums[3 * p + i] = _signed(sums[3 * p + i], flip) + pads[3 * p + i]
            work[p] = sums[3 * p + i]
        pack(work[:count], count, bits, message[done : done + count // 8 * bits])
        done += count // 8 * bits


@inline
def _add_received(sums, layout, count, work, message):
    done = 0
    for i in range(COEFFICIENTS):
        bits = _width(layout, i)
        unpack(message[done : done + count // 8 * bits], count, bits, work[:count])
        for p in range(count):
            sums[3 * p + i] += work[p]
        done += count // 8 * bits


@inline
def _evaluate(x, sums, words, layout, work):
    """work[p] = this party's summand of the result, from opened coefficients and its halves of what was dealt."""
    count, up1, up0 = x.shape[0], np.uint64(layout.low), np.uint64(2 * layout.low)
    mask = (_ONE << up1) - _ONE
    for p in range(count):
        a = np.uint64(x[p]) & mask
        b0, b1, b2 = sums[3 * p] << up0, sums[3 * p + 1] << up1, sums[3 * p + 2]
        value = (b0 + (b1 + b2 * a) * a) * words[p] - (b1 + ((b2 * a) << _ONE)) * words[count + p] + b2 * words[2 * count + p]
        work[p] = value + words[3 * count + p] + (words[4 * count + p] + words[5 * count + p] * a) * a


@kernel
def serve_choices(x, layout, dealt, server_stream, tiles, sums, space, message):
    """S: its halves of the coefficients under its pads, kept in sums (the whole run) and packed into message. dealt: P's message."""
    size, words, bits = (1 << layout.index) + DEALT * layout.total, _choice_words(layout), _opened_bits(layout)
    for begin in range(tiles.first * TILE, min(tiles.last * TILE, tiles.count), RUN):
        end = min(begin + RUN, tiles.count)
        count = end - begin
        choice, own = _part(dealt, begin, end, size)[: count * 8 * words].view(np.uint64), sums[3 * begin : 3 * end]
        _choose(x[begin:end], choice, layout, own)
        pads = space.sums[: COEFFICIENTS * count]
        _draw_server(server_stream, begin, pads)
        _pack_masked(own, pads, ~np.uint64(0), layout, count, space.work, _part(message, begin, end, bits))


@kernel
def infer_lookups(x, layout, received, client_stream, tiles, space, message):
    """C: its halves of the coefficients under its pads, and v, packed into message; received: the server's halves."""
    bits, kept = _opened_bits(layout), layout.total - layout.dropped
    for begin in range(tiles.first * TILE, min(tiles.last * TILE, tiles.count), RUN):
        end = min(begin + RUN, tiles.count)
        count = end - begin
        drawn = _draw_client(client_stream, begin, count, layout, space.drawn)
        sums, row, part = space.sums[: COEFFICIENTS * count], space.work, _part(message, begin, end, bits + kept)
        _choose(x[begin:end], drawn.choice, layout, sums)
        _pack_masked(sums, drawn.pads, np.uint64(0), layout, count, row, part)
        _add_received(sums, layout, count, row, _part(received, begin, end, bits))
        _evaluate(x[begin:end], sums, drawn.words, layout, row[:count])
        _drop(row[:count], np.uint64(0), layout)
        pack(row[:count], count, kept, part[count // 8 * bits :])


@inline
def _drop(values, rounding, layout):
    """values = their upper bits, after `rounding` was added."""
    mask = ~np.uint64(0) >> np.uint64(64 - layout.total)
    for p in range(values.shape[0]):
        values[p] = ((values[p] + rounding) & mask) >> np.uint64(layout.dropped)


@kernel
def serve_lookups(x, layout, sums, dealt, received, tiles, space, u):
    """S: u, without padding, from its masked halves `sums` of the coefficients and C's message."""
    bits, kept, word = _opened_bits(layout), layout.total - layout.dropped, u.dtype.type
    size, words = (1 << layout.index) + DEALT * layout.total, _choice_words(layout)
    for begin in range(tiles.first * TILE, min(tiles.last * TILE, tiles.count), RUN):
        end = min(begin + RUN, tiles.count)
        count = end - begin
        material, theirs = _part(dealt, begin, end, size)[count * 8 * words :], _part(received, begin, end, bits + kept)
        own, row, halves, step = sums[3 * begin : 3 * end], space.work[:count], space.drawn.words, count // 8 * layout.total
        for i in range(DEALT):
            unpack(material[i * step : (i + 1) * step], count, layout.total, halves[i * count : (i + 1) * count])
        _add_received(own, layout, count, row, theirs)
        _evaluate(x[begin:end], own, halves, layout, row)
        _drop(row, (_ONE << np.uint64(layout.dropped)) - _ONE, layout)
        v = halves[:count]
        unpack(theirs[count // 8 * bits :], count, kept, v)
        for p in range(min(end, u.shape[0]) - begin):
            u[begin + p] = word(row[p] + v[p])
