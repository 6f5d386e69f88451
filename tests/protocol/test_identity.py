"""Truncation alone: every channel of a block ReLU that passes, and what a linear bottleneck ends with."""

import numpy as np
import pytest

from tests.protocol.harness import CUTS, opened, run, shares, values_up_to, without_zeros
from threepc.kernels.gate import Cut
from threepc.protocol.relu import Relu


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", CUTS)
def test_lifted_value_is_the_cut_value(bits, threads):
    rng, (shift, cut) = np.random.default_rng(bits), CUTS[bits]
    shape = (2, 3, 77, 75)  # 34,650 elements
    limit = (1 << cut - 2) - 2
    truth = values_up_to(rng, limit << shift, int(np.prod(shape))).reshape(shape)
    protocol = Relu(9, shape, Cut(bits, shift, cut), bits, 0, 1, sizes=((0, 1),) * 3)
    results, trio = run(protocol, shares(rng, truth, bits), threads=threads)
    error = opened(results, bits) - truth / 2.0**shift
    assert np.abs(error).max() < 1.5
    assert abs(error.mean()) < 8 * 0.5 / np.sqrt(error.size)
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", CUTS)
def test_declared_cost(bits):
    """n (one bit) to C, the upper bits back; k and the half of M from P; C's half of the opening."""
    shift, cut = CUTS[bits]
    cost = Relu(0, (1, 1, 64, 64), Cut(bits, shift, cut), bits, 0, 1, sizes=((0, 1),)).cost
    assert without_zeros(cost).offline == {"provider->server": 512 * (bits + shift), "client->server": 512 * cut}
    assert without_zeros(cost).online == {"server->client": 512, "client->server": 512 * shift}
    assert cost.messages == 2


@pytest.mark.parametrize("bits", CUTS)
def test_bottom_and_top_of_the_range(bits):
    """-2^(cut-2) and 2^(cut-2) - 1 are the last values that are lifted; rounding may add a unit and a half."""
    rng, (shift, cut) = np.random.default_rng(bits), CUTS[bits]
    low, high = -(1 << cut - 2) + 2, (1 << cut - 2) - 3
    truth = (np.array([low, high] * 2048, np.int64) << shift).reshape(1, 1, 64, 64)
    protocol = Relu(0, truth.shape, Cut(bits, shift, cut), bits, 0, 1, sizes=((0, 1),))
    got = opened(run(protocol, shares(rng, truth, bits))[0], bits)
    assert np.abs(got - truth / 2.0**shift).max() < 1.5
