"""Sums over patches and their bits spread back, against loops."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.packing import padded
from threepc.kernels.patch import spread_bits, sum_patches


@settings(max_examples=60)
@given(st.data())
def test_sums_and_spread(data):
    word = data.draw(st.sampled_from((np.uint32, np.uint64)))
    images, pixels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 150))
    patches = data.draw(st.integers(1, pixels))
    cut = data.draw(st.integers(2, 8 * np.dtype(word).itemsize))
    shift = data.draw(st.integers(0, cut - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    owner = np.concatenate([np.arange(patches), rng.integers(0, patches, pixels - patches)]).astype(np.int32)
    rng.shuffle(owner)
    x = rng.integers(0, np.iinfo(word).max, images * pixels, word, endpoint=True)
    sums = rng.integers(0, 9, padded(images * patches), word)
    sum_patches(x, shift, cut, owner, patches, sums)
    wanted = np.zeros(sums.shape, object)
    for image in range(images):
        for pixel in range(pixels):
            wanted[image * patches + owner[pixel]] += (int(x[image * pixels + pixel]) % 2**cut) >> shift
    assert np.array_equal(sums.astype(object), wanted % 2 ** (8 * np.dtype(word).itemsize))

    planes = rng.integers(0, np.iinfo(np.uint64).max, padded(images * patches) // 64, np.uint64)
    out = rng.integers(0, 9, padded(images * pixels) // 64, np.uint64)
    spread_bits(planes, owner, patches, images, out)
    bits = np.unpackbits(planes.view(np.uint8), bitorder="little")
    got = np.unpackbits(out.view(np.uint8), bitorder="little")
    index = (np.arange(images)[:, None] * patches + owner[None, :]).reshape(-1)
    assert np.array_equal(got[: images * pixels], bits[index]) and not got[images * pixels :].any()


@pytest.mark.parametrize("word", (np.uint32, np.uint64))
def test_one_patch_of_everything(word):
    x = np.full(64, np.iinfo(word).max, word)
    out = np.empty(64, word)
    sum_patches(x, 4, 20, np.zeros(64, np.int32), 1, out)
    assert out[0] == 64 * 0xFFFF and not out[1:].any()
