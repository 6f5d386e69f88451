"""Words to l-bit messages and back: only the low `bits` of a word travel.

A run of `count` words is laid out as limbs, lowest bits first: whole words of 32 bits, then what is left of a word, at most 31 bits. Such a rest
of b bits goes into lanes of w = 16 or 32 bits: the run is cut into w rows of count / w words, of which row r has the bits r b .. r b + b - 1 of
every lane, one lane a column. So packing is shifts of contiguous rows by as many bits each: vector instructions and no shuffles.
The layout is that of SIMD-BP128 (Lemire and Boytsov, Software: Practice and Experience 2015) with lanes as long as the run.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.options import inline, kernel

BLOCK = 64
"""Runs are padded to multiples of 64 words, so that every row is whole and a bit plane has whole 64-bit words."""

TILE = 16384
"""Elements of a full tile: what a pass needs of it stays in the L2 cache. Messages and streams are laid out tile after tile."""
TILE_WORDS = TILE // BLOCK


class Tiles(NamedTuple):
    """The tiles first .. last - 1 of a run of `count` elements (padded): what one thread does in one call of a kernel."""

    first: int
    last: int
    count: int


def padded(count: int) -> int:
    """`count` rounded up to whole blocks of 64."""
    return -(-count // BLOCK) * BLOCK


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` words of `bits` bits take in a message (count is padded to a multiple of 64)."""
    return padded(count) // 8 * bits


@inline
def _pack_rows(source, count, shift, bits, lanes):
    """lanes = the bits shift .. shift + bits - 1 of source[:count]; lanes: words of w bits, at least `bits`."""
    lane, width = lanes.dtype.type, 8 * lanes.itemsize
    columns = count // width
    mask, down = lane(~np.uint64(0) >> np.uint64(64 - bits)), source.dtype.type(shift)
    for r in range(width):
        row, at = source[r * columns : (r + 1) * columns], r * bits % width
        begin = r * bits // width * columns
        here, left = lanes[begin : begin + columns], lane(at)
        if at == 0:
            for j in range(columns):
                here[j] = lane(row[j] >> down) & mask
        elif at + bits <= width:
            for j in range(columns):
                here[j] |= lane(lane(lane(row[j] >> down) & mask) << left)
        else:
            following, right = lanes[begin + columns : begin + 2 * columns], lane(width - at)
            for j in range(columns):
                value = lane(row[j] >> down) & mask
                here[j] |= lane(value << left)
                following[j] = value >> right


@inline
def _unpack_rows(lanes, count, shift, bits, out):
    """The inverse of `_pack_rows`: out[:count] gets these bits, and keeps its bits below `shift`, which are all that it has."""
    lane, word, width = lanes.dtype.type, out.dtype.type, 8 * lanes.itemsize
    columns = count // width
    mask, up = lane(~np.uint64(0) >> np.uint64(64 - bits)), word(shift)
    for r in range(width):
        row, at = out[r * columns : (r + 1) * columns], r * bits % width
        begin = r * bits // width * columns
        here, right = lanes[begin : begin + columns], lane(at)
        if at + bits <= width and shift:
            for j in range(columns):
                row[j] |= word(word(lane(here[j] >> right) & mask) << up)
        elif at + bits <= width:
            for j in range(columns):
                row[j] = word(lane(here[j] >> right) & mask)
        else:
            following, left = lanes[begin + columns : begin + 2 * columns], lane(width - at)
            if shift:
                for j in range(columns):
                    row[j] |= word(word((lane(here[j] >> right) | lane(following[j] << left)) & mask) << up)
            else:
                for j in range(columns):
                    row[j] = word((lane(here[j] >> right) | lane(following[j] << left)) & mask)


@kernel
def pack(source, count, bits, out):
    """out[: packed_bytes(count, bits)] = the low `bits` bits of source[:count]; uint32 or uint64 words, uint8 message."""
    message, whole = out[: count // 8 * bits], 0
    if bits == 48:
        # both limbs in one pass
        word = source.dtype.type
        low, high = message[: 4 * count].view(np.uint32), message[4 * count :].view(np.uint16)
        for i in range(count):
            low[i] = np.uint32(source[i])
            high[i] = np.uint16(source[i] >> word(32))
        return
    while bits - whole >= 32:
        limb, down = message[whole * count // 8 : (whole + 32) * count // 8].view(np.uint32), source.dtype.type(whole)
        for i in range(count):
            limb[i] = np.uint32(source[i] >> down)
        whole += 32
    if bits - whole > 16:
        _pack_rows(source, count, whole, bits - whole, message[whole * count // 8 :].view(np.uint32))
    elif bits > whole:
        _pack_rows(source, count, whole, bits - whole, message[whole * count // 8 :].view(np.uint16))


@kernel
def unpack(message, count, bits, out):
    """out[:count] = the words that `pack` wrote to `message`; bits above are zero."""
    message, whole, word = message[: count // 8 * bits], 0, out.dtype.type
    if bits == 48:
        low, high = message[: 4 * count].view(np.uint32), message[4 * count :].view(np.uint16)
        for i in range(count):
            out[i] = word(low[i]) | word(word(high[i]) << word(32))
        return
    while bits - whole >= 32:
        limb, up = message[whole * count // 8 : (whole + 32) * count // 8].view(np.uint32), word(whole)
        if whole:
            for i in range(count):
                out[i] |= word(word(limb[i]) << up)
        else:
            for i in range(count):
                out[i] = word(limb[i])
        whole += 32
    if bits - whole > 16:
        _unpack_rows(message[whole * count // 8 :].view(np.uint32), count, whole, bits - whole, out)
    elif bits > whole:
        _unpack_rows(message[whole * count // 8 :].view(np.uint16), count, whole, bits - whole, out)
