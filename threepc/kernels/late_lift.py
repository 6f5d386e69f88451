"""The lift of a gate's result from the cut ring to the ring: see protocol/late_relu.py, whose letters these are. First a tile, then passes as in runs.py.

Carries are words of at most 32 bits. x is S's share of the result, cut words that end with the data; d: ring words, padded. work: scratch of a tile.
"""

import numpy as np

from threepc.kernels.keystream import BLOCK_BYTES, draw
from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import TILE, TILE_WORDS, pack, unpack
from threepc.kernels.runs import _bounds, _packed

_ONE = np.uint64(1)
_WORD_BLOCKS, _PLANE_BLOCKS = 4 * TILE // BLOCK_BYTES, 8 * TILE_WORDS // BLOCK_BYTES


@inline
def _low(bits):
    return ~np.uint64(0) >> np.uint64(64 - bits)


@inline
def _carry(d, kept_bits):
    """M: whether R = -d in the cut ring is in its upper half."""
    return np.uint32(((np.uint64(0) - np.uint64(d)) >> np.uint64(kept_bits - 1)) & _ONE)


@inline
def _all_or_none(planes, j, i):
    return np.uint32(0) - np.uint32((planes[j] >> np.uint64(i)) & _ONE)


@kernel
def deal_lift(d, lift, signs, words, message):
    """Pack kappa = s M - w into message. signs: planes of s; words: w, overwritten."""
    for j in range(signs.shape[0]):
        for i in range(64):
            p = 64 * j + i
            words[p] = (_carry(d[p], lift.kept_bits) & _all_or_none(signs, j, i)) - words[p]
    pack(words, words.shape[0], lift.bits - lift.kept_bits, message)


@kernel
def keep_lift(d, lift, words, kept):
    """Pack -h - e and above it M into kept. words: scratch."""
    carries = lift.bits - lift.kept_bits
    low, mask, up = _low(lift.kept_bits), np.uint32(_low(carries)), np.uint32(carries)
    for p in range(words.shape[0]):
        high = np.uint32(np.uint64(d[p]) >> np.uint64(lift.kept_bits))
        rest = np.uint32(0) - high - np.uint32((np.uint64(d[p]) & low) != 0)
        words[p] = (rest & mask) | (_carry(d[p], lift.kept_bits) << up)
    pack(words, words.shape[0], carries + 1, kept)


@kernel
def choose(x, kept_bits, choices):
    """choices, planes of s, become n^ = n XOR s; what pads the last word stays s."""
    quarter, top = np.uint64(1) << np.uint64(kept_bits - 2), np.uint64(kept_bits - 1)
    for j in range(choices.shape[0]):
        word = choices[j]
        for i in range(min(64, x.shape[0] - 64 * j)):
            word ^= ((((np.uint64(x[64 * j + i]) + quarter) >> top) & _ONE) ^ _ONE) << np.uint64(i)
        choices[j] = word


@kernel
def infer_lift(choices, kept, lift, work, message):
    """Pack a = w - e - h where n^ is 0, M - w - e - h where it is 1, into message. kept: of `keep_lift`; work: (2, count) uint32, w in row 1."""
    carries, words, w = lift.bits - lift.kept_bits, work[0], work[1]
    mask, up = np.uint32(_low(carries)), np.uint32(carries)
    unpack(kept, words.shape[0], carries + 1, words)
    for j in range(choices.shape[0]):
        for i in range(64):
            p = 64 * j + i
            flip = _all_or_none(choices, j, i)
            words[p] = (words[p] & mask) + ((words[p] >> up) & flip) + ((w[p] ^ flip) - flip)
    pack(words, words.shape[0], carries, message)


@kernel
def serve_lift(x, choices, reply, dealt, lift, work, u):
    """u = m + 2^kept (a + kappa where n^ is 0, a - kappa where it is 1). reply, dealt: C's and P's messages; work: (2, count) uint32."""
    carries, ring, high, kappa = lift.bits - lift.kept_bits, u.dtype.type, work[0], work[1]
    mask, quarter, up = ring(_low(lift.kept_bits)), ring(np.uint64(1) << np.uint64(lift.kept_bits - 2)), ring(lift.kept_bits)
    unpack(reply, high.shape[0], carries, high)
    unpack(dealt, high.shape[0], carries, kappa)
    for j in range(choices.shape[0]):
        for i in range(64):
            p = 64 * j + i
            flip = _all_or_none(choices, j, i)
            high[p] += (kappa[p] ^ flip) - flip
    for p in range(u.shape[0]):
        u[p] = ring(ring(ring(ring(x[p]) + quarter) & mask) - quarter) + ring(ring(high[p]) << up)


@kernel
def deal_lifts(d, lift, client_stream, server_stream, tiles, work, signs, message):
    """P: see `deal_lift`. The streams of w, with C, and of s, with S; work (TILE,) uint32, signs (TILE_WORDS,): scratch."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        words, s = work[: end - begin], signs[: (end - begin) // 64]
        draw(client_stream, tile * _WORD_BLOCKS, words)
        draw(server_stream, tile * _PLANE_BLOCKS, s)
        deal_lift(d[begin:end], lift, s, words, _packed(message, begin, end, lift.bits - lift.kept_bits))


@kernel
def keep_lifts(d, lift, tiles, work, kept):
    """C, offline: see `keep_lift`. work (TILE,) uint32."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        keep_lift(d[begin:end], lift, work[: end - begin], _packed(kept, begin, end, lift.bits - lift.kept_bits + 1))


@kernel
def serve_choices(x, kept_bits, server_stream, tiles, choices):
    """S: see `choose`. choices: planes of the whole run."""
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        own = choices[begin // 64 : end // 64]
        draw(server_stream, tile * _PLANE_BLOCKS, own)
        choose(x[begin:end], kept_bits, own)


@kernel
def infer_lifts(choices, kept, lift, client_stream, tiles, work, message):
    """C: see `infer_lift`. work (2 TILE,) uint32."""
    carries = lift.bits - lift.kept_bits
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        rows, out = work[: 2 * (end - begin)].reshape(2, end - begin), _packed(message, begin, end, carries)
        draw(client_stream, tile * _WORD_BLOCKS, rows[1])
        infer_lift(choices[begin // 64 : end // 64], _packed(kept, begin, end, carries + 1), lift, rows, out)


@kernel
def serve_lifts(x, choices, reply, dealt, lift, tiles, work, u):
    """S: see `serve_lift`. work (2 TILE,) uint32; u: without padding."""
    carries = lift.bits - lift.kept_bits
    for tile in range(tiles.first, tiles.last):
        begin, end = _bounds(tile, tiles)
        rows, own = work[: 2 * (end - begin)].reshape(2, end - begin), choices[begin // 64 : end // 64]
        a, kappa = _packed(reply, begin, end, carries), _packed(dealt, begin, end, carries)
        serve_lift(x[begin:end], own, a, kappa, lift, rows, u[begin:end])
