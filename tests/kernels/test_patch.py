"""Sums over patches and their bits spread back, against the patch of every pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.packing import padded
from threepc.kernels.patch import spread_bits, sum_patches

WORDS = (np.uint32, np.uint64)


def patch_of_every_pixel(sizes, height, width, images):
    """Its number, (pixels of all images,), and how many patches there are."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    owner, patches = [], 0
    for h, w in list(sizes) * images:
        across = -(-width // w)
        owner.append((patches + rows // h * across + columns // w).reshape(-1))
        patches += -(-height // h) * across
    return np.concatenate(owner), patches


def check(rng, word, sizes, height, width, images, shift, cut):
    """Both kernels on random contents; what is to be padding is not zero before."""
    owner, patches = patch_of_every_pixel(sizes, height, width, images)
    sizes = np.array(sizes, np.int64)
    x = rng.integers(0, np.iinfo(word).max, padded(owner.size), word, endpoint=True)
    for run in (x, x[: owner.size].copy()):
        sums = rng.integers(0, 9, padded(patches), word)
        sum_patches(run, shift, cut, sizes, height, width, images, sums)
        wanted = np.zeros(sums.shape, word)
        np.add.at(wanted, owner, (x[: owner.size] & word(2**cut - 1)) >> word(shift))
        assert np.array_equal(sums, wanted)

    planes = rng.integers(0, np.iinfo(np.uint64).max, padded(patches) // 64, np.uint64, endpoint=True)
    out = rng.integers(0, 9, padded(owner.size) // 64, np.uint64)
    spread_bits(planes, sizes, height, width, images, out)
    bits = np.unpackbits(planes.view(np.uint8), bitorder="little")
    got = np.unpackbits(out.view(np.uint8), bitorder="little")
    assert np.array_equal(got[: owner.size], bits[owner]) and not got[owner.size :].any()


@settings(max_examples=150)
@given(st.data())
def test_sums_and_spread_of_any_mixture_of_sizes(data):
    word, images = data.draw(st.sampled_from(WORDS)), data.draw(st.integers(1, 3))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20) | st.integers(1, 200))
    side = lambda most: st.integers(1, min(4, most)) | st.integers(1, most)
    sizes = data.draw(st.lists(st.tuples(side(height), side(width)), min_size=1, max_size=6))
    cut = data.draw(st.integers(2, 8 * np.dtype(word).itemsize))
    shift = data.draw(st.integers(0, cut - 1))
    check(np.random.default_rng(data.draw(st.integers(0, 2**32))), word, sizes, height, width, images, shift, cut)


@pytest.mark.parametrize("w", range(1, 71))
def test_every_width_of_patches(w):
    """Groups of bits that fill a word and those that do not, rows of less than a word and more, patches of more than a word."""
    rng = np.random.default_rng(w)
    for width in (w, w + 1, 2 * w + 1, 64 + w, 192 + w):
        check(rng, WORDS[width % 2], ((1, w), (2, w), (3, w)), 4, width, 2, 3, 20)


@pytest.mark.parametrize("width", (1023, 1024, 1300))
def test_wide_maps(width):
    sizes = ((1, 1), (2, 1), (1, 2), (2, 7), (3, 63), (3, 64), (1, 65), (2, 500), (3, 1000), (1, width))
    check(np.random.default_rng(width), np.uint32, sizes, 3, width, 2, 4, 24)


@pytest.mark.parametrize("word", WORDS)
def test_one_patch_of_everything(word):
    x = np.full(64, np.iinfo(word).max, word)
    out = np.empty(64, word)
    sum_patches(x, 4, 20, np.array([[8, 8]]), 8, 8, 1, out)
    assert out[0] == 64 * 0xFFFF and not out[1:].any()
