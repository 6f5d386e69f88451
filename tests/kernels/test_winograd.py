from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels import winograd
from threepc.kernels.convolution import convolve, output_size, pack_weight, warm_up
from threepc.kernels.geometry import Geometry
from threepc.kernels.tile import ROWS

RINGS = (50, 48, 40)


def random_words(rng, *shape):
    """Words with random bits also above the ring, as sums of shares have them."""
    return rng.integers(0, 2**64, shape, np.uint64)


def definition(x, weight, padding, dilation, bias):
    """Convolution in Python's integers, as an array of objects."""
    top, left, bottom, right = padding
    rows, columns = output_size(*x.shape[2:], (3, 3), (1, 1), padding, dilation)
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(object)
    y = np.zeros((len(x), len(weight), rows, columns), object) + bias.astype(object)[:, None, None]
    for c, i, j in np.ndindex(weight.shape[1:]):
        window = x[:, c, i * dilation[0] :, j * dilation[1] :][:, :rows, :columns]
        y += window[:, None] * weight[:, c, i, j].astype(object)[:, None, None]
    return y


def by_tiles(x, weight, bits, **options):
    """`convolve` made to take the tiles, however small the map."""
    with patch.object(winograd, "is_faster", return_value=True) as choice:
        y = convolve(x, pack_weight(weight, 1, bits), **options)
    choice.assert_called_once()
    return y


def check(x, weight, bits, padding=(0, 0, 0, 0), dilation=(1, 1), bias=None, threads=1):
    got = by_tiles(x, weight, bits, padding=padding, dilation=dilation, bias=bias, threads=threads)
    wanted = definition(x, weight, padding, dilation, np.zeros(len(weight), np.uint64) if bias is None else bias)
    np.testing.assert_array_equal(got.astype(object) % 2**bits, wanted % 2**bits)


@settings(max_examples=100, deadline=None)
@given(
    bits=st.sampled_from(RINGS),
    images=st.integers(1, 3),
    inputs=st.integers(1, 5),
    outputs=st.integers(1, 2 * ROWS + 1),
    dilation=st.tuples(*[st.integers(1, 4)] * 2),
    padding=st.tuples(*[st.integers(0, 5)] * 4),
    beyond=st.tuples(st.integers(0, 12), st.integers(0, 40)),
    with_bias=st.booleans(),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_definition(bits, images, inputs, outputs, dilation, padding, beyond, with_bias, threads, seed):
    rng = np.random.default_rng(seed)
    height, width = (max(2 * dilation[i] + 1 + beyond[i] - padding[i] - padding[i + 2], 1) for i in range(2))
    x, weight = random_words(rng, images, inputs, height, width), random_words(rng, outputs, inputs, 3, 3)
    check(x, weight, bits, padding, dilation, random_words(rng, outputs) if with_bias else None, threads)


@pytest.mark.parametrize("bits", RINGS)
def test_all_bits_of_all_words_set(bits):
    words = np.full((1, 9, 10, 10), 2**64 - 1, np.uint64)
    check(words, words[:, :, :3, :3].repeat(ROWS, axis=0), bits, bias=words[0, 0, 0, :ROWS])


@pytest.mark.parametrize("inputs, outputs, size, threads", [(101, ROWS + 3, 13, 1), (200, 3, 22, 2), (97, 2 * ROWS + 1, 5, 2)])
def test_several_blocks_of_channels_and_tiles(inputs, outputs, size, threads):
    rng = np.random.default_rng(1)
    x, weight = random_words(rng, 1, inputs, size, size), random_words(rng, outputs, inputs, 3, 3)
    check(x, weight, 48, (1, 1, 1, 1), bias=random_words(rng, outputs), threads=threads)


def test_more_output_channels_than_are_transformed_at_once():
    rng = np.random.default_rng(2)
    x, weight = random_words(rng, 1, 3, 24, 24), random_words(rng, 5 * ROWS, 3, 3, 3)
    geometry = Geometry(1, 3, 5 * ROWS, 24, 24, 3, 3, 1, 1, 1, 1, 1, 1, 24, 24, short=True)
    with patch.object(winograd, "_KERNEL_BYTES", 2 * 36 * 8 * (5 * ROWS + 8)):
        held = [winograd._space(geometry, winograd.WinogradPart(0, 5, 0, tiles), x.dtype).kernels.size for tiles in (1, 36)]
        assert held[1] == 2 * held[0]  # two panels of the five
        check(x, weight, 48, (1, 1, 1, 1))


def test_reads_and_writes_no_word_outside_its_arrays():
    # The arrays lie inside a larger one: whatever surrounds the input must not matter, whatever surrounds the output must stay.
    rng = np.random.default_rng(3)
    weight, around = random_words(rng, ROWS + 1, 3, 3, 3), random_words(rng, 1000)
    for dilation in ((1, 1), (2, 1)):
        x = around[300 : 300 + 2 * 3 * 7 * 9].reshape(2, 3, 7, 9)
        wanted = by_tiles(x.copy(), weight, 48, padding=(1, 1, 1, 1), dilation=dilation)
        frame = np.full(wanted.size + 200, 77, np.uint64)
        out = frame[100:-100].reshape(wanted.shape)
        assert by_tiles(x, weight, 48, padding=(1, 1, 1, 1), dilation=dilation, out=out) is out
        np.testing.assert_array_equal(out, wanted)
        assert (frame[:100] == 77).all() and (frame[-100:] == 77).all()


def test_rings_and_kernels_that_do_not_fit_go_another_way():
    with patch.object(winograd, "is_faster", side_effect=AssertionError):
        for bits, size, stride, groups in ((51, 3, 1, 1), (64, 3, 1, 1), (32, 3, 1, 1), (48, 1, 1, 1), (48, 3, 2, 1), (48, 3, 1, 2)):
            words = np.ones((4, 4 // groups, size, size), np.uint64 if bits > 32 else np.uint32)
            x = np.ones((1, 4, 20, 20), words.dtype)
            y = convolve(x, pack_weight(words, groups, bits), stride=(stride, stride))
            assert (y == size * size * 4 // groups).all()


@pytest.mark.parametrize(
    "channels, size, dilation, faster",
    [
        (64, 56, 1, True),
        (128, 28, 1, True),
        (256, 14, 1, True),
        (512, 3, 1, False),
        (512, 64, 4, True),
        (512, 64, 12, True),
        (512, 64, 36, False),
        (1, 56, 1, False),
    ],
)
def test_tiles_where_they_save_time(channels, size, dilation, faster):
    maps, copied = dilation**2, 2 * channels * size**2 * (dilation > 1)
    side = -(-size // dilation)
    assert winograd.is_faster(maps, channels, channels, (side, side), 9 * size**2, copied) == faster


def test_warm_up_names_it_for_the_rings_it_serves():
    for bits in (64, 48, 40, 32):
        assert any("Winograd" in label for label in warm_up(bits)) == (bits in RINGS)
