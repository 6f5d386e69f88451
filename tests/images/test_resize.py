import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from threepc.images.resize import bilinear

sides = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sides, sides, st.booleans(), st.integers(0, 2**16))
def test_equals_torch(source, target, align_corners, seed):
    maps = np.random.default_rng(seed).normal(size=(2, 3, *source))
    expected = interpolate(torch.from_numpy(maps), size=target, mode="bilinear", align_corners=align_corners).numpy()
    np.testing.assert_allclose(bilinear(maps, *target, align_corners), expected, atol=1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
def test_single_precision_stays_single(align_corners):
    assert bilinear(np.ones((1, 2, 3, 4), np.float32), 6, 5, align_corners).dtype == np.float32
