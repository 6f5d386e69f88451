"""Decisions for every window, seen through ReLUs whose values are single units of the opened bits."""

import numpy as np
import pytest

from tests.protocol.harness import opened, run, shares, values_up_to, without_zeros
from threepc.kernels.gate import Cut
from threepc.protocol.drelu import DRelu
from threepc.protocol.relu import Relu
from threepc.protocol.window import window


@pytest.mark.parametrize("width", range(1, 63))
def test_every_width_decides_like_the_sign(width):
    """No cut and no lift, so that the result is exact: max(z, 0) for -2^width <= z < 2^width."""
    rng = np.random.default_rng(width)
    truth = values_up_to(rng, (1 << width) - 1, 1000)
    truth[0] = -(1 << width)
    protocol = Relu(0, (1, 1, 1, 1000), cut=Cut(64, 0, 64), ring=64, low_bit=0, width=width)
    results, trio = run(protocol, shares(rng, truth.reshape(1, 1, 1, -1), 64))
    assert np.array_equal(opened(results, 64).reshape(-1), np.maximum(truth, 0))
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", (17, 28, 32))
def test_whole_cut_ring_in_32_bit_words(bits):
    """As in max pooling: a window that leaves only the sign bit."""
    rng = np.random.default_rng(bits)
    truth = values_up_to(rng, (1 << bits - 1) - 1, 1000)
    truth[0] = -(1 << bits - 1)
    protocol = Relu(0, (1, 1, 1, 1000), cut=Cut(bits, 0, bits), ring=bits, low_bit=0, width=bits - 1)
    results, _ = run(protocol, shares(rng, truth.reshape(1, 1, 1, -1), bits))
    assert np.array_equal(opened(results, bits).reshape(-1), np.maximum(truth, 0))


@pytest.mark.parametrize("first, width", [(1, 1), (3, 7), (5, 30), (17, 30), (31, 16)])
def test_low_bits_left_out_round_the_threshold_down(first, width):
    """Without its low bits z is compared as (z + r >> first) - (r >> first): certain outside -2^first < z < 0, never wrong above."""
    rng, high = np.random.default_rng(first), first + width
    truth = values_up_to(rng, (1 << high) - (1 << first), 2000)
    protocol = Relu(0, (1, 1, 1, 2000), cut=Cut(64, 0, 64), ring=64, low_bit=first, width=width)
    got = opened(run(protocol, shares(rng, truth.reshape(1, 1, 1, -1), 64))[0], 64).reshape(-1)
    unsure = (truth < 0) & (truth > -(1 << first))
    assert np.array_equal(got[~unsure], np.maximum(truth, 0)[~unsure])
    assert np.isin(got[unsure] - truth[unsure] * (got[unsure] != 0), (0,)).all()


@pytest.mark.parametrize("width", (0, 64))
def test_windows_that_do_not_exist(width):
    with pytest.raises(ValueError, match="1 to 63 bits"):
        window(width)


def test_layout_of_the_usual_windows():
    """Planes dealt: tables, sign bit and products; wires; a bit."""
    for width, rows, products, wires in ((30, 70, 32, 21), (15, 35, 8, 9)):
        layout = window(width)
        assert (layout.table_rows, layout.product_rows, layout.wires) == (rows, products, wires)


@pytest.mark.parametrize("count", (1, 64, 65, 20000))
def test_declared_bytes_are_those_of_the_layout(count):
    decisions, planes = DRelu(0, count, 0, 30), -(-count // 64) * 8
    assert decisions.dealt_bytes == (70 + 1 + 32) * planes
    assert decisions.leaf_bytes + decisions.group_bytes == 21 * planes
    assert decisions.bit_bytes == planes
