"""What an emitting function is given, and that its masked moves touch no other memory."""

import numpy as np
import pytest

from threepc.kernels.emitter import VECTOR_BYTES, Before, Matrix, at, emitted
from threepc.kernels.options import kernel


@emitted
def _copy_masked(emit, target, source, readable, writable):
    emit.store_masked(emit.load_masked(source, emit.mask(readable)), target, emit.mask(writable))


@kernel
def copy_masked(target, t, source, s, readable, writable):
    _copy_masked(at(target, t), at(source, s), readable, writable)


@pytest.mark.parametrize("word", [np.uint32, np.uint64])
def test_masked_moves_touch_only_the_lanes_of_their_masks(word):
    """From an array that ends within the vector, to one whose other words must stay."""
    lanes = VECTOR_BYTES // np.dtype(word).itemsize
    rng = np.random.default_rng(0)
    for _ in range(50):
        readable, writable = (int(bits) for bits in rng.integers(0, 1 << lanes, 2))
        readable &= (1 << lanes // 2) - 1
        source, target = np.arange(100, 105 + lanes // 2, dtype=word), np.full(12 + lanes, 7, word)
        expected = target.copy()
        for n in range(lanes):
            if writable >> n & 1:
                expected[9 + n] = source[5 + n] if readable >> n & 1 else 0
        copy_masked(target, 9, source, 5, readable, writable)
        np.testing.assert_array_equal(target, expected)


@emitted
def _scale(emit, matrix, before, rows, factor):
    """The first word of each row = itself * factor + (the word before if fresh, else nothing)."""
    added = emit.builder.select(before.fresh, emit.load(before.words), emit.builder.sub(factor, factor))

    def row(index, carried):
        place = emit.shift(matrix.first, emit.builder.mul(matrix.step, index))
        emit.builder.store(emit.builder.add(emit.builder.mul(emit.load(place), factor), added), place)
        return carried

    emit.repeat(emit.builder.sub(rows, rows), rows, 1, [], row)


@kernel
def scale(array, first, step, words, fresh, rows, factor):
    _scale(Matrix(at(array, first), step), Before(at(words, 1), fresh), rows, factor)


@pytest.mark.parametrize("fresh", [True, False])
def test_named_tuples_integers_and_booleans_arrive_as_values(fresh):
    array, expected = np.arange(20, dtype=np.uint64), np.arange(20, dtype=np.uint64)
    scale(array, 2, 5, np.array([1, 1000], np.uint64), fresh, 3, np.uint8(3))
    expected[2:17:5] = expected[2:17:5] * 3 + (1000 if fresh else 0)
    np.testing.assert_array_equal(array, expected)
