"""Whether what a party receives is uniform given all that it knows: statistics on thousands of equal elements.

Every received bit of an element is then a sample of one distribution. A bit, or the XOR of two, that is not balanced shows with dozens of
standard deviations; chance reaches LIMIT with probability below 1e-11 over all that the tests ask.

A bit of all elements is a row (COUNT / 64,) uint64, an element a bit: a message of some thousand rows has tens of millions of pairs.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from threepc.kernels.packing import TILE, unpack
from threepc.prf import Purpose
from threepc.ring import word_of

COUNT = 8192
"""Elements, within one tile: planes and words of a message are then those of all elements."""
LIMIT = 9.0
"""Standard deviations."""


def unmasked(value, shape, bits):
    """Summands (client, server, provider) of equal values without any randomness, which might cover up for a mask."""
    nothing = np.zeros(shape, word_of(bits))
    return nothing, np.full(shape, value).astype(word_of(bits)), nothing


@intrinsic
def ones_of(typingctx, word):
    """How many bits of a uint64 are set: one instruction for eight words, where the processor has it."""

    def generate(context, builder, signature, arguments):
        return builder.call(builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)]), arguments)

    return types.uint64(types.uint64), generate


@njit
def turn(words, rows):
    """Row j of rows becomes bit j of all words."""
    for row in range(rows.shape[0]):
        for at in range(rows.shape[1]):
            some = np.uint64(0)
            for k in range(64):
                some |= (words[64 * at + k] >> np.uint64(row) & np.uint64(1)) << np.uint64(k)
            rows[row, at] = some


@njit
def least_balanced(rows, others, pairs):
    """(i, j, how many more zeros than ones, or ones than zeros) of the i and j, with j < i for pairs, whose rows differ least evenly."""
    found, size = (-1, -1, -1), 64 * rows.shape[1]
    for block in range(0, others.shape[0], 16):  # stays in the first cache while all rows pass
        for i in range(block + 1 if pairs else 0, rows.shape[0]):
            for j in range(block, min(block + 16, i if pairs else others.shape[0])):
                ones = np.uint64(0)
                for at in range(rows.shape[1]):
                    ones += ones_of(rows[i, at] ^ others[j, at])
                excess = abs(size - 2 * np.int64(ones))
                if excess > found[2]:
                    found = (i, j, excess)
    return found


def bits_of(words, bits):
    """Rows (bits, COUNT / 64) of words (COUNT,)."""
    rows = np.empty((bits, COUNT // 64), np.uint64)
    turn(np.ascontiguousarray(words, np.uint64), rows)
    return rows


def planes_of(array):
    """Rows of bit planes."""
    return np.ascontiguousarray(array).view(np.uint64).reshape(-1, COUNT // 64)


def parts_of(sent, values):
    """(words, their width) of every packed value and (planes, None) of every other part of messages as a Recorder kept them.

    values: the widths of the values in every part that holds any.
    """
    layouts = {sum(widths): widths for widths in values}
    for _, _, parts in sent:
        for part in parts:
            message = part.view(np.uint8)
            widths, at = layouts.get(message.nbytes * 8 // COUNT), 0
            if widths is None:
                yield message, None
                continue
            for width in widths:
                words = np.empty(COUNT, word_of(width))
                unpack(message[at : at + COUNT // 8 * width], COUNT, width, words)
                yield words, width
                at += COUNT // 8 * width


def received_bits(sent, *values):
    """Bits of messages, see `parts_of`."""
    return np.concatenate([planes_of(part) if width is None else bits_of(part, width) for part, width in parts_of(sent, values)])


def combined_bits(combine, sent, *values):
    """Bits of the sum, or difference, of any two packed values of one width, over several messages: pads that cancel show here."""
    words = [part for part in parts_of(sent, values) if part[1] is not None]
    return np.concatenate([bits_of(combine(a, b), width) for i, (a, width) in enumerate(words) for b, other in words[:i] if other == width])


def drawn_bits(stream, bits, gate_bits=None):
    """Bits of everything that a party drew from a stream for one tile of COUNT elements in a ring of `bits` bits. gate_bits: where gates have others."""

    def arrays(purpose, drawn):
        words = gate_bits or bits if purpose == Purpose.GATE else bits
        size, word = drawn.size // TILE, np.dtype(word_of(words)).itemsize
        if purpose == Purpose.DECISION or size == 0:
            return [planes_of(drawn[: drawn.size * COUNT // TILE])]
        sizes = [word] * (size // word) + [4] * (size % word > 0)
        ends = np.cumsum([COUNT * s for s in sizes])
        return [bits_of(drawn[end - COUNT * s : end].view(f"u{s}"), 8 * s) for s, end in zip(sizes, ends)]

    return np.concatenate([part for purpose, drawn in stream.drawn if drawn.size for part in arrays(purpose, drawn)])


def assert_uniform(received, known):
    """Every received bit is balanced, and so is its XOR with every other received bit and with every bit that the receiver knows."""
    nothing = np.zeros((1, COUNT // 64), np.uint64)
    asked = [("received bit", nothing, False), ("received bits", received, True), ("received and known bits", known, False)]
    for name, others, pairs in asked[: 2 if known is None else 3]:
        assert len(received) and len(others), f"no {name}"
        i, j, excess = least_balanced(received, others, pairs)
        assert excess < LIMIT * math.sqrt(COUNT), f"{name} {i}" if others is nothing else f"{name} {i, j}"
