"""Max pooling is exact on cut values, for every geometry."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.protocol.harness import run, shares, signed, values_up_to, without_zeros
from threepc.protocol.max_pool import MaxPool

CUT_BITS = (48, 32, 28, 17)


def reference(truth, kernel, stride, padding, dilation):
    top, left, bottom, right = padding
    padded = functional.pad(torch.from_numpy(truth.astype(np.float64)), (left, right, top, bottom), value=-torch.inf)
    return functional.max_pool2d(padded, kernel, stride, 0, dilation).numpy()


def check(rng, shape, kernel, stride, padding, dilation, cut, **options):
    # differences of two values must fit in the cut ring
    truth = rng.permutation(values_up_to(rng, (1 << cut - 2) - 1, int(np.prod(shape)))).reshape(shape)
    pool = MaxPool(4, shape, kernel, stride, padding, dilation, cut)
    (client, server, provider), trio = run(pool, shares(rng, truth, cut), **options)
    wanted = reference(truth, kernel, stride, padding, dilation)
    assert pool.output_shape == wanted.shape
    assert np.array_equal(signed(client + server - provider, cut), wanted)
    assert trio.measured == without_zeros(pool.cost)
    return trio


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("cut", CUT_BITS)
def test_as_networks_have_it(cut, threads):
    rng = np.random.default_rng(cut)
    check(rng, (2, 3, 47, 111), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), cut, threads=threads)
    check(rng, (1, 5, 13, 12), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), cut, threads=threads)
    check(rng, (1, 2, 8, 10), (3, 3), (2, 2), (1, 1, 2, 2), (1, 1), cut, threads=threads)  # ceil_mode: the last window's middle is outside
    check(rng, (2, 2, 9, 11), (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), cut, threads=threads)


@settings(max_examples=40)
@given(st.data())
def test_any_geometry(data):
    draw = lambda low, high: data.draw(st.integers(low, high))
    kernel, stride, dilation = ((draw(1, 4), draw(1, 4)), (draw(1, 3), draw(1, 3)), (draw(1, 2), draw(1, 2)))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
    padding = tuple(draw(0, reach[i % 2] // (1 if i > 1 else 2)) for i in range(4))  # ceil_mode pads more behind the map
    shape = (draw(1, 2), draw(1, 3), draw(reach[0] + 1, 9), draw(reach[1] + 1, 9))
    blank = reference(np.zeros(shape), kernel, stride, padding, dilation)
    assume(np.isfinite(blank).all())  # the graph's own check refuses windows of padding alone
    check(np.random.default_rng(draw(0, 2**32)), shape, kernel, stride, padding, dilation, data.draw(st.sampled_from(CUT_BITS)))


def test_one_cell_costs_nothing():
    trio = check(np.random.default_rng(0), (1, 2, 5, 5), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 32)
    assert trio.measured.messages == 0


def test_messages_follow_the_comparisons():
    """Two comparisons along the rows, two along the columns, four messages each."""
    trio = check(np.random.default_rng(0), (1, 1, 8, 8), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 32)
    assert trio.measured.messages == 16


def test_a_window_without_a_cell_is_refused():
    with pytest.raises(ValueError, match="without a cell inside the map"):
        MaxPool(4, (1, 1, 4, 4), (2, 2), (2, 2), (2, 0, 0, 0), (1, 1), 32)
