"""The lift of a gate's result from the cut ring to the ring, tile by tile: see protocol/late_relu.py, whose letters these are. Passes as in runs.py.

Carries are words of at most 32 bits. x is S's share of the result, cut words that end with the data; d: ring words, padded.
"""

import numpy as np

from threepc.kernels.keystream import BLOCK_BYTES, draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import TILE, TILE_WORDS, pack, unpack

_ONE = np.uint64(1)
_WORD_BLOCKS, _PLANE_BLOCKS = 4 * TILE // BLOCK_BYTES, 8 * TILE_WORDS // BLOCK_BYTES


@inline
def _bounds(tile, tiles):
    begin = tile * TILE
    return begin, min(begin + TILE, tiles.count)


@inline
def _low(bits):
    return ~np.uint64(0) >> np.uint64(64 - bits)


@inline
def _carry(d, kept_bits):
    """M: whether R = -d in the cut ring is in its upper half."""
    return np.uint32((((np.uint64(0) - np.uint64(d)) & _low(kept_bits)) >> np.uint64(kept_bits - 1)) & _ONE)


@inline
def _all_or_none(planes, j, i):
    return np.uint32(0) - np.uint32((planes[j] >> np.uint64(i)) & _ONE)


@kernel
def deal_lifts(d, lift, streams, tiles, work, signs, message):
    """P: kappa = s M - w into message. streams: of w, with C, and of s, with S; work (TILE,) uint32, signs (TILE_WORDS,): scratch."""
    bits, kept_bits = lift
    carries = bits - kept_bits
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, s = work[: end - begin], signs[: (end - begin) // 64]
        draw(streams[0], tile * _WORD_BLOCKS, words)
        draw(streams[1], tile * _PLANE_BLOCKS, s)
        for j in range(s.shape[0]):
            for i in range(64):
                p = 64 * j + i
                words[p] = (_carry(d[begin + p], kept_bits) & _all_or_none(s, j, i)) - words[p]
        pack(words, end - begin, carries, message[begin // 8 * carries : end // 8 * carries])


@kernel
def keep_lifts(d, lift, tiles, work, kept):
    """C, offline: -h - e and above it M, packed into kept. work (TILE,) uint32: scratch."""
    bits, kept_bits = lift
    carries = bits - kept_bits
    low, mask, up = _low(kept_bits), np.uint32(_low(carries)), np.uint32(carries)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words = work[: end - begin]
        for p in range(end - begin):
            high = np.uint32(np.uint64(d[begin + p]) >> np.uint64(kept_bits))
            rest = np.uint32(0) - high - np.uint32((np.uint64(d[begin + p]) & low) != 0)
            words[p] = (rest & mask) | (_carry(d[begin + p], kept_bits) << up)
        pack(words, end - begin, carries + 1, kept[begin // 8 * (carries + 1) : end // 8 * (carries + 1)])


@kernel
def serve_choices(x, kept_bits, server_stream, tiles, choices):
    """S: n^ = n XOR s, planes of the whole run; what pads the last words is s alone."""
    quarter, top = np.uint64(1) << np.uint64(kept_bits - 2), np.uint64(kept_bits - 1)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        own, values = choices[begin // 64 : end // 64], x[begin:end]
        draw(server_stream, tile * _PLANE_BLOCKS, own)
        for j in range(own.shape[0]):
            word = own[j]
            for i in range(min(64, values.shape[0] - 64 * j)):
                word ^= ((((np.uint64(values[64 * j + i]) + quarter) >> top) & _ONE) ^ _ONE) << np.uint64(i)
            own[j] = word


@kernel
def infer_lifts(choices, kept, lift, client_stream, tiles, work, message):
    """C: a = w - e - h where n^ is 0, M - w - e - h where it is 1, into message. kept: of `keep_lifts`; work (2, TILE) uint32: scratch."""
    carries = lift.bits - lift.kept_bits
    mask, up = np.uint32(_low(carries)), np.uint32(carries)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        own, words, w = choices[begin // 64 : end // 64], work[0, : end - begin], work[1, : end - begin]
        draw(client_stream, tile * _WORD_BLOCKS, w)
        unpack(kept[begin // 8 * (carries + 1) : end // 8 * (carries + 1)], end - begin, carries + 1, words)
        for j in range(own.shape[0]):
            for i in range(64):
                p = 64 * j + i
                flip = _all_or_none(own, j, i)
                words[p] = (words[p] & mask) + ((words[p] >> up) & flip) + ((w[p] ^ flip) - flip)
        pack(words, end - begin, carries, message[begin // 8 * carries : end // 8 * carries])


@kernel
def serve_lifts(x, choices, reply, dealt, lift, tiles, work, u):
    """S: u = m + 2^kept (a + kappa where n^ is 0, a - kappa where it is 1). reply, dealt: C's and P's messages; work (2, TILE) uint32; u as long as x."""
    bits, kept_bits = lift
    carries, ring = bits - kept_bits, u.dtype.type
    mask, quarter, up = ring(_low(kept_bits)), ring(np.uint64(1) << np.uint64(kept_bits - 2)), ring(kept_bits)
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        own, high, kappa = choices[begin // 64 : end // 64], work[0, : end - begin], work[1, : end - begin]
        unpack(reply[begin // 8 * carries : end // 8 * carries], end - begin, carries, high)
        unpack(dealt[begin // 8 * carries : end // 8 * carries], end - begin, carries, kappa)
        for j in range(own.shape[0]):
            for i in range(64):
                p = 64 * j + i
                flip = _all_or_none(own, j, i)
                high[p] += (kappa[p] ^ flip) - flip
        for p in range(min(end, x.shape[0]) - begin):
            u[begin + p] = ((ring(x[begin + p]) + quarter) & mask) - quarter + ring(ring(high[p]) << up)
