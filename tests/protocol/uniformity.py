"""Whether what a party receives is uniform given all that it knows: statistics on thousands of equal elements.

Every received bit of an element is then a sample of one distribution. A bit, or the XOR of two, that is not balanced shows with dozens of
standard deviations; chance reaches LIMIT with probability below 1e-11 over all that the tests ask.
"""

import numpy as np

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


def bits_of(words, bits):
    """Bits (bits, COUNT) of words, as ±1."""
    rows = (words[None, :] >> np.arange(bits, dtype=words.dtype)[:, None]) & words.dtype.type(1)
    return rows.astype(np.float32) * 2 - 1


def planes_of(array):
    """Bits (rows, COUNT) of bit planes, as ±1."""
    octets = np.ascontiguousarray(array).view(np.uint8).reshape(-1, COUNT // 8)
    return np.unpackbits(octets, axis=1, bitorder="little").astype(np.float32) * 2 - 1


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
    count = received.shape[1]
    single = np.abs(received.sum(axis=1)) / np.sqrt(count)
    assert single.max() < LIMIT, f"received bit {single.argmax()}"
    among = np.abs(received @ received.T) / np.sqrt(count)
    np.fill_diagonal(among, 0)
    assert among.max() < LIMIT, f"received bits {np.unravel_index(among.argmax(), among.shape)}"
    if known is not None:
        across = np.abs(received @ known.T) / np.sqrt(count)
        assert across.max() < LIMIT, f"received and known bits {np.unravel_index(across.argmax(), across.shape)}"
