"""Passes over the elements of one tile: cut and masked opening, and the gate that multiplies an activation by a bit. See runs.py.

Ring words hold `bits` bits; cut words the `cut` bits that are left when the low `shift` bits of a product are dropped. Both are uint32 or
uint64 and may carry garbage above their bits. Arrays of a tile hold a multiple of 64 words, except z, u and their like, which end with the
data: what pads a tile is the mask alone. Bits come as planes, element i in bit i % 64 of word i // 64.
The letters are the protocol's: x opened value, r its mask, m and n the public parts of a lifted value, R and M the secret ones,
beta the mask of the decision bit, sigma = 1 - 2 beta_S; w holds two masks of at most 16 bits, low and high half.
"""

import numpy as np

from threepc.kernels.options import inline, kernel
from threepc.kernels.packing import pack, unpack

_ONE = np.uint64(1)


@inline
def _low(bits):
    """The mask of the low `bits` bits as a 64-bit word."""
    return ~np.uint64(0) >> np.uint64(64 - bits)


@kernel
def add_cut(z, bits, shift, rounding, out):
    """out += (z + rounding) mod 2^bits >> shift, elementwise; beyond the end of z nothing. out: a tile of cut words."""
    ring, word = z.dtype.type, out.dtype.type
    mask, half, by = ring(_low(bits)), ring(rounding), ring(shift)
    for i in range(z.shape[0]):
        out[i] += word(ring(ring(z[i] + half) & mask) >> by)


@kernel
def open_masked(z, bits, shift, rounding, half_opened, masks, cut, x, message):
    """x = half_opened + masks + (z >> shift), and packed into message; `masks` is overwritten."""
    add_cut(z, bits, shift, rounding, masks)
    unpack(half_opened, x.shape[0], cut, x)
    for i in range(x.shape[0]):
        x[i] += masks[i]
    pack(x, x.shape[0], cut, message)


@inline
def _bit(planes, j, i):
    return (planes[j] >> np.uint64(i)) & _ONE


@inline
def _lift(x, cut, quarter, mask, ring):
    """m and n of an opened word: x - r lifted to the ring is m - R + n M wherever the value lies in -quarter..quarter-1."""
    y = (np.uint64(x) + quarter) & mask
    return ring(y - quarter), ring(_ONE - (y >> np.uint64(cut - 1)))


@kernel
def deal_gate(r, beta_client, beta_server, t0, t1, w, d, bits, cut, work, message):
    """Pack k_0, k_1 (bits) and q_0, q_1 (bits - cut) of a tile into message.

    r: cut words; t0, t1, d: ring words; w: uint32; beta_*: planes; work: (4, count) ring words of scratch.
    """
    ring = t0.dtype.type
    mask, top = _low(cut), np.uint64(cut - 1)
    k0, k1, q0, q1 = work[0], work[1], work[2], work[3]
    for j in range(beta_client.shape[0]):
        for i in range(64):
            p = 64 * j + i
            server = _bit(beta_server, j, i)
            flip = ring(np.uint64(0) - server)
            chosen = ring(np.uint64(0) - (server ^ _bit(beta_client, j, i)))
            value = ring(np.uint64(r[p]) & mask)
            one = flip & ring(1)
            # sigma t is t or, where beta_S is set, -t = ~t + 1
            k0[p] = ring(0) - ring(ring(t0[p] ^ flip) + one) - ring(value & chosen) - d[p]
            k1[p] = ring(ring(t1[p] ^ flip) + one) - ring(value & ~chosen) - d[p]
    count = r.shape[0]
    size = count // 8 * bits
    pack(k0, count, bits, message[:size])
    pack(k1, count, bits, message[size : 2 * size])
    if bits > cut:
        for j in range(beta_client.shape[0]):
            for i in range(64):
                p = 64 * j + i
                server = _bit(beta_server, j, i)
                flip = np.uint64(0) - server
                chosen = server ^ _bit(beta_client, j, i)
                carry = (np.uint64(r[p]) >> top) & _ONE
                low, high = np.uint64(w[p] & np.uint32(0xFFFF)), np.uint64(w[p] >> np.uint32(16))
                q0[p] = ring((carry & chosen) - ((low ^ flip) + server))
                q1[p] = ring((carry & (chosen ^ _ONE)) + ((high ^ flip) + server))
        step = count // 8 * (bits - cut)
        pack(q0, count, bits - cut, message[2 * size : 2 * size + step])
        pack(q1, count, bits - cut, message[2 * size + step : 2 * size + 2 * step])


@kernel
def infer_gate(x, opened, beta, t0, t1, w, bits, cut, message):
    """Pack v = beta_C m + t_b + n w_b (bits) into message; `t0` is overwritten."""
    ring = t0.dtype.type
    mask, quarter, up = _low(cut), np.uint64(1) << np.uint64(cut - 2), np.uint64(cut)
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            branch = np.uint64(0) - _bit(opened, j, i)
            m, n = _lift(x[p], cut, quarter, mask, ring)
            t = t0[p] ^ ring(ring(t0[p] ^ t1[p]) & ring(branch))
            pad = np.uint64(w[p] >> np.uint32(np.uint32(16) & np.uint32(branch))) & np.uint64(0xFFFF)
            carry = ring(pad << up) & ring(ring(0) - n) if bits > cut else ring(0)
            t0[p] = t + ring(m & ring(np.uint64(0) - _bit(beta, j, i))) + carry
    pack(t0, x.shape[0], bits, message)


@kernel
def serve_gate(x, opened, beta, v_message, material, bits, cut, work, u):
    """u of a tile: beta_S m + sigma v + k_0 + n q_0 where the opened bit is 0, (1 - beta_S) m - sigma v + k_1 + n q_1 where it is 1.

    material: what `deal_gate` packed; work: (5, count) ring words of scratch; u ends with the data.
    """
    ring = u.dtype.type
    mask, quarter, up = _low(cut), np.uint64(1) << np.uint64(cut - 2), ring(cut)
    v, k0, k1, q0, q1 = work[0], work[1], work[2], work[3], work[4]
    count = x.shape[0]
    size, step = count // 8 * bits, count // 8 * (bits - cut)
    unpack(v_message, count, bits, v)
    unpack(material[:size], count, bits, k0)
    unpack(material[size : 2 * size], count, bits, k1)
    if bits > cut:
        unpack(material[2 * size : 2 * size + step], count, bits - cut, q0)
        unpack(material[2 * size + step : 2 * size + 2 * step], count, bits - cut, q1)
        for p in range(count):
            n = ring(_lift(x[p], cut, quarter, mask, ring)[1])
            k0[p] += ring(ring(q0[p] << up) & ring(ring(0) - n))
            k1[p] += ring(ring(q1[p] << up) & ring(ring(0) - n))
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            branch = np.uint64(0) - _bit(opened, j, i)
            server = np.uint64(0) - _bit(beta, j, i)
            m = _lift(x[p], cut, quarter, mask, ring)[0]
            k = k0[p] ^ ring(ring(k0[p] ^ k1[p]) & ring(branch))
            # the factors of m and v are beta_S and sigma, or 1 - beta_S and -sigma
            v[p] = ring(m & ring(server ^ branch)) + ring(v[p] ^ ring(server ^ branch)) - ring(server ^ branch) + k
    for p in range(u.shape[0]):
        u[p] = v[p]


@kernel
def deal_constant(beta_client, beta_server, flips, pad0, pad1, constant, bits, work, message):
    """Pack kappa_0 = beta c - sigma pad_0 and kappa_1 = (1 - beta) c - sigma pad_1 (bits) of a tile; sigma = 1 - 2 flips.

    beta_*, flips: planes; pad0, pad1: ring words; constant: a ring word; work: (2, count) ring words of scratch.
    """
    ring = pad0.dtype.type
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
def add_chosen_pad(t0, t1, opened, pad0, pad1):
    """t_0 += pad and t_1 -= pad, where pad is pad_0 or, where the opened bit is 1, pad_1: the factor of v is sigma in one branch, -sigma in the other."""
    ring = t0.dtype.type
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            pad = pad0[p] ^ ring(ring(pad0[p] ^ pad1[p]) & ring(np.uint64(0) - _bit(opened, j, i)))
            t0[p] += pad
            t1[p] -= pad


@kernel
def add_chosen_constant(u, opened, material, bits, work):
    """u += kappa_0 or, where the opened bit is 1, kappa_1, which `deal_constant` packed; u ends with the data. work: (2, count) scratch."""
    ring = u.dtype.type
    first, second = work[0], work[1]
    count = 64 * opened.shape[0]
    size = count // 8 * bits
    unpack(material[:size], count, bits, first)
    unpack(material[size : 2 * size], count, bits, second)
    for j in range(opened.shape[0]):
        for i in range(64):
            p = 64 * j + i
            first[p] ^= ring(ring(first[p] ^ second[p]) & ring(np.uint64(0) - _bit(opened, j, i)))
    for p in range(u.shape[0]):
        u[p] += first[p]


@kernel
def carry_plane(x, cut, plane):
    """Bit n of every element: 1 where x + 2^(cut-2) stays below 2^(cut-1) modulo 2^cut."""
    quarter, top = np.uint64(1) << np.uint64(cut - 2), np.uint64(cut - 1)
    for j in range(plane.shape[0]):
        word = np.uint64(0)
        for i in range(64):
            word |= ((((np.uint64(x[64 * j + i]) + quarter) >> top) & _ONE) ^ _ONE) << np.uint64(i)
        plane[j] = word


@kernel
def deal_identity(r, w, d, bits, cut, work, message):
    """Pack k = -R - d - E (bits) and M - M_C (bits - cut); E and M_C are the low and high halves of w. work: (count,) ring words."""
    ring = d.dtype.type
    mask, top, up = _low(cut), np.uint64(cut - 1), ring(cut)
    count = r.shape[0]
    for p in range(count):
        pad = ring(ring(w[p] & np.uint32(0xFFFF)) << up) if bits > cut else ring(0)
        work[p] = ring(0) - ring(np.uint64(r[p]) & mask) - d[p] - pad
    size = count // 8 * bits
    pack(work, count, bits, message[:size])
    if bits > cut:
        for p in range(count):
            work[p] = ring(((np.uint64(r[p]) >> top) & _ONE) - np.uint64(w[p] >> np.uint32(16)))
        pack(work, count, bits - cut, message[size : size + count // 8 * (bits - cut)])


@kernel
def infer_identity(carries, w, bits, cut, message):
    """Pack n M_C + E (bits - cut); `w` is overwritten."""
    for j in range(carries.shape[0]):
        for i in range(64):
            p = 64 * j + i
            n = np.uint32(np.uint64(0) - _bit(carries, j, i))
            w[p] = (w[p] & np.uint32(0xFFFF)) + ((w[p] >> np.uint32(16)) & n)
    pack(w, w.shape[0], bits - cut, message)


@kernel
def serve_identity(x, carry_message, material, bits, cut, work, u):
    """u = m + k + n M_S + (n M_C + E); work: (3, count) ring words of scratch; u ends with the data."""
    ring = u.dtype.type
    mask, quarter, up = _low(cut), np.uint64(1) << np.uint64(cut - 2), ring(cut)
    count = x.shape[0]
    size, step = count // 8 * bits, count // 8 * (bits - cut)
    k, high, received = work[0], work[1], work[2]
    unpack(material[:size], count, bits, k)
    if bits > cut:
        unpack(material[size : size + step], count, bits - cut, high)
        unpack(carry_message, count, bits - cut, received)
        for p in range(count):
            n = ring(_lift(x[p], cut, quarter, mask, ring)[1])
            k[p] += ring(ring(received[p] + ring(high[p] & ring(ring(0) - n))) << up)
    for p in range(u.shape[0]):
        u[p] = k[p] + _lift(x[p], cut, quarter, mask, ring)[0]
