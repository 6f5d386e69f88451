"""Passes over the elements of one tile: cut and masked opening, and the gate that multiplies an activation by a bit. See runs.py.

Ring words and cut words (`Cut`) are uint32 or uint64 and may carry garbage above their bits. Arrays of a tile hold a multiple of 64 words,
except z, u and their like, which end with the data: what pads a tile is the mask alone. Bits come as planes, element i in bit i % 64 of word
i // 64. The letters are the protocol's, see docs/notation.md.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import pack, unpack

_ONE = np.uint64(1)

NARROW_LIFT = 16
"""Bits of a lift that one half of a 32-bit word can mask."""


class Cut(NamedTuple):
    """The bits shift .. shift + kept_bits - 1 of ring words of `bits` bits: a product without the low bits that its truncation drops."""

    bits: int
    shift: int
    kept_bits: int


class Lift(NamedTuple):
    """The way back, from a cut ring of `kept_bits` bits to the ring of `bits` bits; none where they are equal.

    A pair of masks of so many bits is drawn as one word: of 32 bits up to `NARROW_LIFT`, else of 64.
    """

    bits: int
    kept_bits: int


class Slopes(NamedTuple):
    """What a gate multiplies its value by, in units of 2^-bits: `below` where the decision is 0, `above` where it is 1.

    Where a kernel is given None instead they are 0 and 1, and it is compiled for that alone.
    """

    below: int
    above: int
    bits: int


class Pads(NamedTuple):
    """What C and P draw for the gate of a tile.

    t: ring words, rows t_0, t_1 and, where the gate has a constant, p_0, p_1. w: one mask of the lift in each half, w_0 in the lower; uint32, and
    uint64 where there are slopes.
    """

    t: np.ndarray
    w: np.ndarray


@inline
def _low(bits):
    """The mask of the low `bits` bits as a 64-bit word."""
    return ~np.uint64(0) >> np.uint64(64 - bits)


@kernel
def add_cut(z, cut, rounding, out):
    """out += the cut of z + rounding, elementwise; beyond the end of z nothing. z: ring words; out: a tile of cut words."""
    ring, word = z.dtype.type, out.dtype.type
    mask, half, by = ring(_low(cut.bits)), ring(rounding), ring(cut.shift)
    for i in range(z.shape[0]):
        out[i] += word(ring(ring(z[i] + half) & mask) >> by)


@kernel
def open_masked(z, cut, half_opened, masks, x, message):
    """x = half_opened + masks + the cut of z, rounded to nearest; and x packed into message. `masks` is overwritten."""
    add_cut(z, cut, (1 << cut.shift) >> 1, masks)
    unpack(half_opened, x.shape[0], cut.kept_bits, x)
    for i in range(x.shape[0]):
        x[i] += masks[i]
    pack(x, x.shape[0], cut.kept_bits, message)


@inline
def _bit(planes, j, i):
    return (planes[j] >> np.uint64(i)) & _ONE


@inline
def _lift(x, kept_bits, quarter, mask):
    """m (a signed number in 64 bits) and n of an opened word: x - r is m - R + n M, lifted, where it lies in -quarter..quarter-1."""
    y = (np.uint64(x) + quarter) & mask
    return y - quarter, _ONE - (y >> np.uint64(kept_bits - 1))


@inline
def carry_bits(lift, slopes):
    """Bits of n M, which is a multiple of 2^(kept_bits - slopes.bits)."""
    if slopes is None:
        return lift.bits - lift.kept_bits
    return lift.bits - lift.kept_bits + slopes.bits


@inline
def _unit_bits(lift, slopes):
    """The unit of n M, as a power of two."""
    if slopes is None:
        return lift.kept_bits
    return lift.kept_bits - slopes.bits


@inline
def _times(value, factor, bits):
    """value * factor / 2^bits, rounded; value: a signed number in 64 bits."""
    return (np.int64(value) * factor + ((1 << bits) >> 1)) >> bits


@inline
def _if_not(value, slopes, ring):
    """What a value counts where the decision is 0, as a ring word."""
    if slopes is None:
        return ring(0)
    return ring(_times(value, slopes.below, slopes.bits))


@inline
def _if_so(value, slopes, ring):
    """What a value counts where the decision is 1, as a ring word."""
    if slopes is None:
        return ring(value)
    return ring(_times(value, slopes.above, slopes.bits))


@inline
def _carry(bit, chosen, slopes):
    """M in units of the carry: of the decision `chosen`, a bit."""
    if slopes is None:
        return bit & chosen
    return (np.uint64(slopes.below) ^ ((np.uint64(slopes.below) ^ np.uint64(slopes.above)) & (np.uint64(0) - chosen))) & (
        np.uint64(0) - bit
    )


@inline
def _halves(word, slopes):
    """w_0 and w_1."""
    if slopes is None:
        return np.uint64(word & np.uint32(0xFFFF)), np.uint64(word >> np.uint32(16))
    return word & np.uint64(0xFFFFFFFF), word >> np.uint64(32)


@inline
def _half(word, branch, slopes):
    """w_1 where all bits of branch are set, w_0 where none is."""
    if slopes is None:
        return np.uint64(word >> np.uint32(np.uint32(16) & np.uint32(branch))) & np.uint64(0xFFFF)
    return (word >> (np.uint64(32) & branch)) & np.uint64(0xFFFFFFFF)


@kernel
def deal_gate(r, beta_client, beta_server, pads, d, lift, slopes, work, message):  # noqa: PLR0913, PLR0917 - one for each letter
    """Pack k_0, k_1 (bits) and q_0, q_1 (`carry_bits`) of a tile into message.

    r: cut words; beta_*: planes; d: ring words; slopes: `Slopes` or None; work: (4, count) ring words of scratch.
    """
    bits, kept_bits = lift
    carries = carry_bits(lift, slopes)
    t0, t1, w, ring = pads.t[0], pads.t[1], pads.w, d.dtype.type
    mask, top = _low(kept_bits), np.uint64(kept_bits - 1)
    k0, k1, q0, q1 = work[0], work[1], work[2], work[3]
    for j in range(beta_client.shape[0]):
        for i in range(64):
            p = 64 * j + i
            server = _bit(beta_server, j, i)
            flip = ring(np.uint64(0) - server)
            chosen = ring(np.uint64(0) - (server ^ _bit(beta_client, j, i)))
            value = np.uint64(r[p]) & mask
            not_chosen, is_chosen = _if_not(value, slopes, ring), _if_so(value, slopes, ring)
            one = flip & ring(1)
            # sigma t is t or, where beta_S is set, -t = ~t + 1
            k0[p] = ring(0) - ring(ring(t0[p] ^ flip) + one) - ring((is_chosen & chosen) | (not_chosen & ~chosen)) - d[p]
            k1[p] = ring(ring(t1[p] ^ flip) + one) - ring((is_chosen & ~chosen) | (not_chosen & chosen)) - d[p]
    count = r.shape[0]
    size = count // 8 * bits
    pack(k0, count, bits, message[:size])
    pack(k1, count, bits, message[size : 2 * size])
    if carries > 0:
        for j in range(beta_client.shape[0]):
            for i in range(64):
                p = 64 * j + i
                server = _bit(beta_server, j, i)
                flip = np.uint64(0) - server
                chosen = server ^ _bit(beta_client, j, i)
                carry = (np.uint64(r[p]) >> top) & _ONE
                low, high = _halves(w[p], slopes)
                q0[p] = ring(_carry(carry, chosen, slopes) - ((low ^ flip) + server))
                q1[p] = ring(_carry(carry, chosen ^ _ONE, slopes) + ((high ^ flip) + server))
        step = count // 8 * carries
        pack(q0, count, carries, message[2 * size : 2 * size + step])
        pack(q1, count, carries, message[2 * size + step : 2 * size + 2 * step])


@inline
def _branch_value(x, opened, beta, pads, lift, slopes, v):
    kept_bits, carries = lift.kept_bits, carry_bits(lift, slopes)
    t0, t1, w, ring = pads.t[0], pads.t[1], pads.w, pads.t.dtype.type
    mask, quarter, up = _low(kept_bits), np.uint64(1) << np.uint64(kept_bits - 2), np.uint64(_unit_bits(lift, slopes))
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            branch = np.uint64(0) - _bit(opened, j, i)
            m, n = _lift(x[p], kept_bits, quarter, mask)
            t = t0[p] ^ ring(ring(t0[p] ^ t1[p]) & ring(branch))
            carry = ring(_half(w[p], branch, slopes) << up) & ring(ring(0) - ring(n)) if carries > 0 else ring(0)
            difference = ring(_if_so(m, slopes, ring) - _if_not(m, slopes, ring))
            v[p] = t + ring(difference & ring(np.uint64(0) - _bit(beta, j, i))) + carry


@kernel
def infer_gate(x, opened, beta, pads, lift, slopes, message):
    """Pack v = beta_C m + t_b^ + n w_b^ (bits) into message; t_0 is overwritten.

    x: cut words; opened, beta: planes of b^ and beta_C; slopes: `Slopes`, m being the difference of what it counts above and below, or None.
    """
    # inlined: a call would hide that v is t_0, and the loop would not be wide
    _branch_value(x, opened, beta, pads, lift, slopes, pads.t[0])
    pack(pads.t[0], x.shape[0], lift.bits, message)


@kernel
def branch_value(x, opened, beta, pads, lift, slopes, v):
    """v of `infer_gate` as words, in an array of their own."""
    _branch_value(x, opened, beta, pads, lift, slopes, v)


@kernel
def serve_gate(x, opened, beta, v_message, dealt, lift, slopes, work, u):  # noqa: PLR0913, PLR0917 - one for each letter
    """u of a tile: beta_S m + sigma v + k_0 + n q_0 where the opened bit is 0, (1 - beta_S) m - sigma v + k_1 + n q_1 where it is 1.

    x: cut words; opened, beta: planes of b^ and beta_S; v_message, dealt: what `infer_gate` and `deal_gate` packed; slopes: `Slopes`, with which
    u also gets what the value counts below, or None; work: (5, count) ring words of scratch; u ends with the data.
    """
    bits, kept_bits = lift
    carries = carry_bits(lift, slopes)
    ring = u.dtype.type
    mask, quarter, up = _low(kept_bits), np.uint64(1) << np.uint64(kept_bits - 2), ring(_unit_bits(lift, slopes))
    v, k0, k1, q0, q1 = work[0], work[1], work[2], work[3], work[4]
    count = x.shape[0]
    size, step = count // 8 * bits, count // 8 * carries
    unpack(v_message, count, bits, v)
    unpack(dealt[:size], count, bits, k0)
    unpack(dealt[size : 2 * size], count, bits, k1)
    if carries > 0:
        unpack(dealt[2 * size : 2 * size + step], count, carries, q0)
        unpack(dealt[2 * size + step : 2 * size + 2 * step], count, carries, q1)
        for p in range(count):
            n = ring(_lift(x[p], kept_bits, quarter, mask)[1])
            k0[p] += ring(ring(q0[p] << up) & ring(ring(0) - n))
            k1[p] += ring(ring(q1[p] << up) & ring(ring(0) - n))
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            branch = np.uint64(0) - _bit(opened, j, i)
            server = np.uint64(0) - _bit(beta, j, i)
            m = _lift(x[p], kept_bits, quarter, mask)[0]
            below = _if_not(m, slopes, ring)
            k = k0[p] ^ ring(ring(k0[p] ^ k1[p]) & ring(branch))
            # the factors of m and v are beta_S and sigma, or 1 - beta_S and -sigma
            difference = ring(_if_so(m, slopes, ring) - below)
            v[p] = ring(difference & ring(server ^ branch)) + ring(v[p] ^ ring(server ^ branch)) - ring(server ^ branch) + k + below
    for p in range(u.shape[0]):
        u[p] = v[p]


@kernel
def deal_constant(beta_client, beta_server, flips, pads, constant, bits, work, message):
    """Pack kappa_0 = beta' c - sigma p_0 and kappa_1 = (1 - beta') c - sigma p_1 (bits) of a tile.

    beta_*: planes of beta'; flips: of beta_S, which is in sigma; constant: c, a ring word; work: (2, count) ring words of scratch.
    """
    pad0, pad1, ring = pads.t[2], pads.t[3], pads.t.dtype.type
    first, second = work[0], work[1]
    for j in range(beta_client.shape[0]):
        for i in range(64):
            p = 64 * j + i
            chosen = ring(np.uint64(0) - (_bit(beta_server, j, i) ^ _bit(beta_client, j, i)))
            flip = ring(np.uint64(0) - _bit(flips, j, i))
            one = flip & ring(1)
            first[p] = ring(constant & chosen) - ring(ring(pad0[p] ^ flip) + one)
            second[p] = ring(constant & ~chosen) - ring(ring(pad1[p] ^ flip) + one)
    count = pad0.shape[0]
    size = count // 8 * bits
    pack(first, count, bits, message[:size])
    pack(second, count, bits, message[size : 2 * size])


@kernel
def add_chosen_pad(pads, opened):
    """t_0 += p_b'^ and t_1 -= p_b'^: the factor of v is sigma in one branch, -sigma in the other. opened: planes of b'^."""
    t0, t1, pad0, pad1, ring = pads.t[0], pads.t[1], pads.t[2], pads.t[3], pads.t.dtype.type
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            pad = pad0[p] ^ ring(ring(pad0[p] ^ pad1[p]) & ring(np.uint64(0) - _bit(opened, j, i)))
            t0[p] += pad
            t1[p] -= pad


@kernel
def add_chosen_constant(u, opened, dealt, bits, work):
    """u += kappa_b'^, which `deal_constant` packed; u ends with the data. work: (2, count) scratch."""
    ring = u.dtype.type
    first, second = work[0], work[1]
    count = 64 * opened.shape[0]
    size = count // 8 * bits
    unpack(dealt[:size], count, bits, first)
    unpack(dealt[size : 2 * size], count, bits, second)
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            first[p] ^= ring(ring(first[p] ^ second[p]) & ring(np.uint64(0) - _bit(opened, j, i)))
    for p in range(u.shape[0]):
        u[p] += first[p]


@kernel
def carry_plane(x, kept_bits, plane):
    """Bit n of every element: 1 where x + 2^(kept-2) stays below 2^(kept-1) modulo 2^kept."""
    quarter, top = np.uint64(1) << np.uint64(kept_bits - 2), np.uint64(kept_bits - 1)
    for j in range(plane.shape[0]):
        word = np.uint64(0)
        for i in range(64):
            word |= ((((np.uint64(x[64 * j + i]) + quarter) >> top) & _ONE) ^ _ONE) << np.uint64(i)
        plane[j] = word


@kernel
def deal_identity(r, w, d, lift, work, message):
    """Pack k = -R - d - E (bits) and M - M_C (bits - kept_bits); E and M_C are the low and high halves of w. work: (count,) ring words."""
    bits, kept_bits = lift
    ring, half, low = d.dtype.type, w.dtype.type(4 * w.itemsize), w.dtype.type((1 << 4 * w.itemsize) - 1)
    mask, top, up = _low(kept_bits), np.uint64(kept_bits - 1), ring(kept_bits)
    count = r.shape[0]
    for p in range(count):
        pad = ring(ring(w[p] & low) << up) if bits > kept_bits else ring(0)
        work[p] = ring(0) - ring(np.uint64(r[p]) & mask) - d[p] - pad
    size = count // 8 * bits
    pack(work, count, bits, message[:size])
    if bits > kept_bits:
        for p in range(count):
            work[p] = ring(((np.uint64(r[p]) >> top) & _ONE) - np.uint64(w[p] >> half))
        pack(work, count, bits - kept_bits, message[size : size + count // 8 * (bits - kept_bits)])


@kernel
def infer_identity(carries, w, lift, message):
    """Pack n M_C + E (bits - kept_bits); `w` is overwritten."""
    word, half, low = w.dtype.type, w.dtype.type(4 * w.itemsize), w.dtype.type((1 << 4 * w.itemsize) - 1)
    for j in range(carries.shape[0]):
        for i in range(64):
            p = 64 * j + i
            n = word(np.uint64(0) - _bit(carries, j, i))
            w[p] = (w[p] & low) + ((w[p] >> half) & n)
    pack(w, w.shape[0], lift.bits - lift.kept_bits, message)


@kernel
def serve_identity(x, reply, dealt, lift, work, u):
    """u = m + k + n M_S + (n M_C + E); reply, dealt: what `infer_identity` and `deal_identity` packed; work: (3, count) ring words; u ends with the data."""
    bits, kept_bits = lift
    ring = u.dtype.type
    mask, quarter, up = _low(kept_bits), np.uint64(1) << np.uint64(kept_bits - 2), ring(kept_bits)
    count = x.shape[0]
    size, step = count // 8 * bits, count // 8 * (bits - kept_bits)
    k, high, received = work[0], work[1], work[2]
    unpack(dealt[:size], count, bits, k)
    if bits > kept_bits:
        unpack(dealt[size : size + step], count, bits - kept_bits, high)
        unpack(reply, count, bits - kept_bits, received)
        for p in range(count):
            n = ring(_lift(x[p], kept_bits, quarter, mask)[1])
            k[p] += ring(ring(received[p] + ring(high[p] & ring(ring(0) - n))) << up)
    for p in range(u.shape[0]):
        u[p] = k[p] + ring(_lift(x[p], kept_bits, quarter, mask)[0])
