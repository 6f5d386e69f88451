"""l-bit messages: every width, and no bit that does not travel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.packing import BLOCK, pack, packed_bytes, padded, unpack


def words_of(rng, count, word):
    return rng.integers(0, np.iinfo(word).max, count, word, endpoint=True)


WIDTHS = [(bits, word) for word in (np.uint32, np.uint64) for bits in range(1, 8 * np.dtype(word).itemsize + 1)]


@pytest.mark.parametrize("bits, word", WIDTHS)
def test_every_width_comes_back(bits, word):
    """Garbage above the width is dropped, what comes back is clean."""
    rng = np.random.default_rng(bits)
    for blocks in (1, 2, 7):
        source, message = words_of(rng, BLOCK * blocks, word), np.empty(packed_bytes(BLOCK * blocks, bits), np.uint8)
        back = words_of(rng, source.size, word)
        pack(source, source.size, bits, message)
        unpack(message, source.size, bits, back)
        assert np.array_equal(back, source & word((1 << bits) - 1))


@pytest.mark.parametrize("bits, word", WIDTHS)
def test_every_bit_of_a_message_means_something(bits, word):
    """Any bytes are the message of some words: nothing is constant, nothing is sent twice."""
    rng = np.random.default_rng(bits)
    message = rng.integers(0, 256, packed_bytes(3 * BLOCK, bits), np.uint8)
    words, again = np.empty(3 * BLOCK, word), np.empty_like(message)
    unpack(message, words.size, bits, words)
    pack(words, words.size, bits, again)
    assert np.array_equal(again, message)


@settings(max_examples=50)
@given(st.sampled_from(WIDTHS), st.integers(1, 5), st.integers(0, 4), st.integers(0, 2**32))
def test_a_part_of_a_run_is_packed_alone(width, blocks, more, seed):
    """Only `count` words are read and written; what follows stays."""
    (bits, word), rng, count = width, np.random.default_rng(seed), BLOCK * blocks
    source = words_of(rng, count + BLOCK * more, word)
    size = packed_bytes(count, bits)
    message = np.full(size + 100, 0xA5, np.uint8)
    pack(source, count, bits, message)
    assert (message[size:] == 0xA5).all()
    back = np.full(source.size, 7, word)
    unpack(message, count, bits, back)
    assert np.array_equal(back[:count], source[:count] & word((1 << bits) - 1)) and (back[count:] == 7).all()


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_sizes(count, bits):
    assert padded(count) % BLOCK == 0 and 0 <= padded(count) - count < BLOCK
    assert packed_bytes(count, bits) * 8 == padded(count) * bits
