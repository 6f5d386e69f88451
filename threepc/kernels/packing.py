"""Words to l-bit messages and back: only the low `bits` of a word travel.

A run of words is cut into limbs of 32, 16, 8, 4, 2 and 1 bits (as the binary digits of `bits` say, largest first, lowest bits first);
all words' first limbs come first, then all second limbs, so that every limb is one loop over contiguous memory. A limb below a
byte holds elements j, j + count/2 (or count/4, count/8) in one byte: no shuffles.
"""
import numpy as np

from .options import inline, kernel

BLOCK = 64
"""Runs are padded to multiples of 64 words, so that every limb fills whole bytes and a bit plane whole 64-bit words."""


def padded(count: int) -> int:
    """`count` rounded up to whole blocks of 64."""
    return -(-count // BLOCK) * BLOCK


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` words of `bits` bits take in a message (count is padded to a multiple of 64)."""
    return padded(count) // 8 * bits


@inline
def _small_limb(source, count, shift, limb, out, at):
    each = count * limb // 8
    for j in range(each):
        byte = np.uint8(0)
        for part in range(8 // limb):
            value = np.uint8(source[j + part * each] >> source.dtype.type(shift)) & np.uint8((1 << limb) - 1)
            byte |= np.uint8(value << np.uint8(part * limb))
        out[at + j] = byte
    return each


@kernel
def pack(source, count, bits, out):
    """out[: packed_bytes(count, bits)] = the low `bits` bits of source[:count]; uint32 or uint64 words, uint8 message."""
    word = source.dtype.type
    if bits == 48:
        low, high = out[: 4 * count].view(np.uint32), out[4 * count : 6 * count].view(np.uint16)
        for i in range(count):
            low[i] = np.uint32(source[i])
            high[i] = np.uint16(source[i] >> word(32))
        return
    at, shift = 0, 0
    if bits - shift >= 64:
        whole = out[: 8 * count].view(np.uint64)
        for i in range(count):
            whole[i] = np.uint64(source[i])
        return
    if bits - shift >= 32:
        limb32 = out[: 4 * count].view(np.uint32)
        for i in range(count):
            limb32[i] = np.uint32(source[i])
        at, shift = 4 * count, 32
    if bits - shift >= 16:
        limb16 = out[at : at + 2 * count].view(np.uint16)
        for i in range(count):
            limb16[i] = np.uint16(source[i] >> word(shift))
        at, shift = at + 2 * count, shift + 16
    if bits - shift >= 8:
        for i in range(count):
            out[at + i] = np.uint8(source[i] >> word(shift))
        at, shift = at + count, shift + 8
    if bits - shift >= 4:
        at += _small_limb(source, count, shift, 4, out, at)
        shift += 4
    if bits - shift >= 2:
        at += _small_limb(source, count, shift, 2, out, at)
        shift += 2
    if bits - shift >= 1:
        at += _small_limb(source, count, shift, 1, out, at)


@inline
def _read_small_limb(message, at, count, shift, limb, out):
    each = count * limb // 8
    mask = np.uint8((1 << limb) - 1)
    word = out.dtype.type
    for part in range(8 // limb):
        if shift:
            for j in range(each):
                out[j + part * each] |= word(word((message[at + j] >> np.uint8(part * limb)) & mask) << word(shift))
        else:
            for j in range(each):
                out[j + part * each] = word((message[at + j] >> np.uint8(part * limb)) & mask)
    return each


@kernel
def unpack(message, count, bits, out):
    """out[:count] = the words that `pack` wrote to `message`; bits above are zero."""
    word = out.dtype.type
    if bits == 48:
        low, high = message[: 4 * count].view(np.uint32), message[4 * count : 6 * count].view(np.uint16)
        for i in range(count):
            out[i] = word(low[i]) | word(word(high[i]) << word(32))
        return
    at, shift = 0, 0
    if bits - shift >= 64:
        whole = message[: 8 * count].view(np.uint64)
        for i in range(count):
            out[i] = word(whole[i])
        return
    if bits - shift >= 32:
        limb32 = message[: 4 * count].view(np.uint32)
        for i in range(count):
            out[i] = word(limb32[i])
        at, shift = 4 * count, 32
    if bits - shift >= 16:
        limb16 = message[at : at + 2 * count].view(np.uint16)
        if shift:
            for i in range(count):
                out[i] |= word(word(limb16[i]) << word(shift))
        else:
            for i in range(count):
                out[i] = word(limb16[i])
        at, shift = at + 2 * count, shift + 16
    if bits - shift >= 8:
        if shift:
            for i in range(count):
                out[i] |= word(word(message[at + i]) << word(shift))
        else:
            for i in range(count):
                out[i] = word(message[at + i])
        at, shift = at + count, shift + 8
    if bits - shift >= 4:
        at += _read_small_limb(message, at, count, shift, 4, out)
        shift += 4
    if bits - shift >= 2:
        at += _read_small_limb(message, at, count, shift, 2, out)
        shift += 2
    if bits - shift >= 1:
        at += _read_small_limb(message, at, count, shift, 1, out)
