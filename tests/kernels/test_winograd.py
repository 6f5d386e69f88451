import itertools
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels import winograd
from threepc.kernels.convolution import convolve, output_size, pack_weight, warm_up
from threepc.kernels.geometry import Geometry
from threepc.kernels.options import has_ifma
from threepc.kernels.tile import ROWS

RINGS = (50, 48, 40, 32)


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
    """`convolve` made to take the tiles, however small the map; words of 32 bits take them with IFMA alone."""
    with (
        patch.object(winograd, "is_faster", return_value=True) as choice,
        patch.object(winograd, "convolve", wraps=winograd.convolve) as tiles,
    ):
        y = convolve(x, pack_weight(weight, 1, bits), **options)
    assert choice.call_count == tiles.call_count == (x.itemsize == 8 or has_ifma())
    return y


def check(x, weight, bits, padding=(0, 0, 0, 0), dilation=(1, 1), bias=None, threads=1):
    if bits <= 32:
        x, weight, bias = (words if words is None else words.astype(np.uint32) for words in (x, weight, bias))
    got = by_tiles(x, weight, bits, padding=padding, dilation=dilation, bias=bias, threads=threads)
    wanted = definition(x, weight, padding, dilation, np.zeros(len(weight), x.dtype) if bias is None else bias)
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
        held = [winograd._space(geometry, winograd.WinogradPart(0, 5, 0, tiles)).kernels.size for tiles in (1, 36)]
        assert held[1] == 2 * held[0]  # two panels of the five
        check(x, weight, 48, (1, 1, 1, 1))


def test_reads_and_writes_no_word_outside_its_arrays():
    # The arrays lie inside a larger one: whatever surrounds the input must not matter, whatever surrounds the output must stay.
    rng = np.random.default_rng(3)
    for bits, dilation in itertools.product((48, 32), ((1, 1), (2, 1))):
        word = np.dtype(np.uint64 if bits > 32 else np.uint32)
        weight, around = random_words(rng, ROWS + 1, 3, 3, 3).astype(word), random_words(rng, 1000).astype(word)
        x = around[300 : 300 + 2 * 3 * 7 * 9].reshape(2, 3, 7, 9)
        wanted = by_tiles(x.copy(), weight, bits, padding=(1, 1, 1, 1), dilation=dilation)
        frame = np.full(wanted.size + 200, 77, word)
        out = frame[100:-100].reshape(wanted.shape)
        assert by_tiles(x, weight, bits, padding=(1, 1, 1, 1), dilation=dilation, out=out) is out
        np.testing.assert_array_equal(out, wanted)
        assert (frame[:100] == 77).all() and (frame[-100:] == 77).all()


def test_rings_and_kernels_that_do_not_fit_go_another_way():
    with patch.object(winograd, "is_faster", side_effect=AssertionError):
        for bits, size, stride, groups in ((51, 3, 1, 1), (64, 3, 1, 1), (32, 3, 2, 1), (48, 1, 1, 1), (48, 3, 2, 1), (48, 3, 1, 2)):
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
        assert any("Winograd" in label for label in warm_up(bits)) == (bits in RINGS and (bits > 32 or has_ifma()))


@pytest.mark.skipif(not has_ifma(), reason="words of 32 bits take tiles with IFMA alone")
def test_words_of_32_bits_take_tiles_where_these_save_more_than_their_narrower_products():
    for images, channels, size, faster in (
        (1, 64, 56, True),
        (1, 256, 14, True),
        (16, 256, 8, True),
        (1, 256, 8, False),
        (1, 512, 7, False),
    ):
        weight = pack_weight(np.zeros((channels, channels, 3, 3), np.uint32), 1, 32)
        x = np.zeros((images, channels, size, size), np.uint32)
        with patch.object(winograd, "convolve") as tiles:
            convolve(x, weight, padding=(1, 1, 1, 1))
        assert tiles.called == faster, (images, channels, size)
