"""What each party does alone, against numpy and Python's integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.elementwise import add_multiple, add_shifted, scale, shift_left, sum_windows
from threepc.kernels.gate import Cut
from threepc.protocol.summands import add, add_signed, broadcast, concat, cut_summand, multiply, reshape, window_sums

WORDS = (np.uint32, np.uint64)


def random_words(rng, shape, word):
    return rng.integers(0, np.iinfo(word).max, shape, word, endpoint=True)


@given(st.sampled_from(WORDS), st.integers(0, 100), st.integers(0, 31), st.integers(0, 2**32 - 1))
def test_shifts_and_scales(word, count, left, seed):
    rng = np.random.default_rng(seed)
    x, y, factor = random_words(rng, count, word), random_words(rng, count, word), word(seed)
    out = y.copy()
    add_shifted(out, x, left)
    assert np.array_equal(out, y + (x << word(left)))
    out = y.copy()
    add_multiple(out, x, factor)
    assert np.array_equal(out, y + x * factor)
    shift_left(x, left, out)
    assert np.array_equal(out, x << word(left))
    scale(x, factor, out)
    assert np.array_equal(out, x * factor)


@settings(max_examples=60)
@given(st.data())
def test_window_sums_over_zero_padding(data):
    word, draw = data.draw(st.sampled_from(WORDS)), lambda low, high: data.draw(st.integers(low, high))
    kernel, stride = (draw(1, 4), draw(1, 4)), (draw(1, 3), draw(1, 3))
    padding = [draw(0, 2) for _ in range(4)]
    size = [draw(max(1, kernel[i] - padding[i] - padding[i + 2]), 9) for i in range(2)]
    x = random_words(np.random.default_rng(draw(0, 2**32)), (draw(1, 3), *size), word)
    padded = np.pad(x, ((0, 0), (padding[0], padding[2]), (padding[1], padding[3])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, (1, 2))[:, :: stride[0], :: stride[1]]
    wanted = windows.sum((3, 4), dtype=word)
    out = np.empty(wanted.shape, word)
    sum_windows(x, *kernel, *stride, padding[0], padding[1], out)
    assert np.array_equal(out, wanted)
    assert np.array_equal(window_sums(x[None], kernel, stride, padding, (1, *wanted.shape))[0], wanted)


@pytest.mark.parametrize("word", WORDS)
def test_tensor_operations_with_missing_summands(word):
    """None stands for zeros in every operation; a result of zeros is None again."""
    rng = np.random.default_rng(0)
    x, y = random_words(rng, (2, 3, 4, 5), word), random_words(rng, (2, 1, 4, 5), word)
    assert np.array_equal(add([x, None, x], [0, 3, 2]), x + (x << word(2)))
    assert np.array_equal(add([None, x], [5, 1]), x << word(1))
    assert np.array_equal(add_signed([x, None, x], [-4, 3, 1]), x * word(0) - x * word(3))
    joined = concat([x, None, y], [1, 0, 0], [(2, 3, 4, 5), (2, 2, 4, 5), (2, 1, 4, 5)])
    assert np.array_equal(joined, np.concatenate([x << word(1), np.zeros((2, 2, 4, 5), word), y], axis=1))
    assert np.array_equal(multiply(x, 77), x * word(77))
    assert np.array_equal(reshape(x, (2, 60, 1, 1)), x.reshape(2, 60, 1, 1))
    assert np.array_equal(broadcast(x[:, :, :1, :1], (2, 3, 6, 7)), np.broadcast_to(x[:, :, :1, :1], (2, 3, 6, 7)))
    assert np.array_equal(window_sums(x, (4, 5), (1, 1), [0] * 4, (2, 3, 1, 1)), x.sum((2, 3), dtype=word)[:, :, None, None])
    for nothing in (
        add([None, None], [0, 1]),
        add_signed([None, None], [1, -1]),
        concat([None, None], [0, 0], [(1, 1, 1, 1)] * 2),
        multiply(None, 3),
        reshape(None, (1,)),
        broadcast(None, (1,)),
        window_sums(None, (1, 1), (1, 1), [0] * 4, (1,)),
    ):
        assert nothing is None


@pytest.mark.parametrize("bits, shift, cut", [(64, 16, 48), (48, 16, 32), (40, 12, 28), (32, 15, 17), (48, 0, 32), (32, 0, 32)])
def test_cut_takes_the_middle_bits(bits, shift, cut):
    word = np.uint64 if bits > 32 else np.uint32
    x = random_words(np.random.default_rng(bits), (1, 2, 3, 50), word)
    for at_server in (False, True):
        half = (1 << shift) // 2 if at_server else 0
        wanted = [(((int(v) + half) % 2**bits) >> shift) % 2**cut for v in x.reshape(-1)]
        got = cut_summand(x, Cut(bits, shift, cut), at_server)
        assert got.shape == x.shape and got.dtype == (np.uint64 if cut > 32 else np.uint32)
        assert [int(v) % 2**cut for v in got.reshape(-1)] == wanted
