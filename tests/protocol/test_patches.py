"""The geometry of block ReLUs: counts, sums of patches and bits spread back, against slices of the map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.kernels.packing import padded
from threepc.protocol.patches import Patches


@settings(max_examples=50)
@given(st.data())
def test_sums_and_spread(data):
    images, height, width = (data.draw(st.integers(1, most)) for most in (3, 12, 80))
    # patches may be larger than the map
    sizes = tuple(data.draw(st.lists(st.tuples(st.integers(1, 14), st.integers(1, 90)), max_size=4)))
    patches = Patches(sizes, height, width)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = rng.integers(0, 2**32, (images, len(sizes), height, width), np.uint32)
    values = np.concatenate([x.reshape(-1), np.ones(padded(x.size) - x.size, np.uint32)])
    bits = rng.integers(0, 2, padded(images * patches.count), np.uint8)
    sums, decided, number = [], np.zeros(x.shape, np.uint8), 0
    for image in range(images):
        for c, (h, w) in enumerate(sizes):
            for i in range(0, height, h):
                for j in range(0, width, w):
                    sums.append(((x[image, c, i : i + h, j : j + w] >> 4) & 0xFFFF).sum())
                    decided[image, c, i : i + h, j : j + w] = bits[number]
                    number += 1
    assert number == images * patches.count
    got = patches.sums(values, images, 4, 20)
    assert np.array_equal(got[:number], np.array(sums, np.uint32)) and got.size == padded(number) and not got[number:].any()
    spread = patches.spread(np.packbits(bits, bitorder="little").view(np.uint64), images)
    spread = np.unpackbits(spread.view(np.uint8), bitorder="little")
    assert np.array_equal(spread[: x.size], decided.reshape(-1)) and spread.size == padded(x.size) and not spread[x.size :].any()


@pytest.mark.parametrize("sizes, height, width", [(((1, 1), (0, 2)), 3, 5), (((1, 0),), 3, 5), (((-1, 1),), 3, 5), ((), 0, 5), ((), 3, -1)])
def test_a_size_below_one_pixel_is_refused(sizes, height, width):
    """The kernels divide by it, and walk maps with it."""
    with pytest.raises(InputError, match="must have at least one pixel"):
        Patches(sizes, height, width)


def test_plain_means_that_every_pixel_decides_alone():
    assert Patches(((1, 1), (1, 1)), 3, 5).plain and Patches((), 3, 5).plain and Patches(((4, 4),), 1, 1).plain
    assert not Patches(((1, 1), (1, 2)), 3, 5).plain
    assert Patches(((1, 1), (2, 2), (9, 9)), 3, 5).count == 15 + 6 + 1
