"""Bit slicing against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.planes import slice_bits


def planes_of(words, first, count):
    """planes[b] = bit first + b of all words, word 64 j + i in bit i of word j."""
    bits = (words[None, :].astype(np.uint64) >> np.arange(first, first + count, dtype=np.uint64)[:, None]).astype(np.uint8) & 1
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


@settings(max_examples=150)
@given(st.data())
def test_is_the_definition(data):
    word = data.draw(st.sampled_from((np.uint32, np.uint64)))
    size = 8 * np.dtype(word).itemsize
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - first))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    words = rng.integers(0, np.iinfo(word).max, 64 * data.draw(st.integers(1, 6)), word, endpoint=True)
    planes = np.full((count, words.size // 64), 3, np.uint64)
    slice_bits(words, first, planes)
    assert np.array_equal(planes, planes_of(words, first, count))


@pytest.mark.parametrize("word", (np.uint32, np.uint64))
def test_each_single_bit(word):
    """Every bit of every one of 64 words lands in its place and nowhere else."""
    size = 8 * np.dtype(word).itemsize
    planes = np.empty((size, 1), np.uint64)
    for element in range(64):
        for bit in range(size):
            words = np.zeros(64, word)
            words[element] = word(1 << bit)
            slice_bits(words, 0, planes)
            wanted = np.zeros((size, 1), np.uint64)
            wanted[bit] = np.uint64(1) << np.uint64(element)
            assert np.array_equal(planes, wanted)


@pytest.mark.parametrize("word", (np.uint32, np.uint64))
def test_a_part_of_larger_arrays(word):
    """Words in the middle of a run, planes in the middle of others: nothing beside them is touched."""
    rng = np.random.default_rng(0)
    words, planes = rng.integers(0, 1 << 31, 64 * 9, word), np.full((12, 4), 9, np.uint64)
    slice_bits(words[64 : 64 * 5], 2, planes[3:10])
    assert np.array_equal(planes[3:10], planes_of(words[64 : 64 * 5], 2, 7))
    assert (planes[:3] == 9).all() and (planes[10:] == 9).all()
