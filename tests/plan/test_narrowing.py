"""Bits that layers compare: enough for their values with room to spare, and of low ones only those that hardly matter."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from threepc.graph.importer import import_module
from threepc.graph.passes import standard_passes
from threepc.plan.bounds import bounds
from threepc.plan.calibration import MARGIN_BITS, SPARE_BITS, calibrate
from threepc.plan.headroom import measure
from threepc.plan.narrowing import narrow
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.plan.twin import Rounding

IMAGES = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def narrowed(*layers, bits=48, sizes=None):
    """(graph, ranges, precision, precision after `narrow`) of a convolution and some layers after it."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers).eval()
    graph, weights = standard_passes(*import_module(module, torch.zeros(1, 2, 8, 8)), frozenset(sizes or ()))
    precision = calibrate(graph, weights, IMAGES, bits, sizes=sizes)
    ranges = measure(graph, weights, IMAGES, sizes)
    return graph, ranges, precision, narrow(graph, ranges, precision, sizes=sizes)


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
@pytest.mark.parametrize("gain", (0.01, 1.0, 30.0))
def test_values_keep_the_margin_and_the_room_that_finer_weights_leave(bits, gain):
    scaled = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        scaled.weight *= gain
    graph, ranges, before, after = narrowed(nn.ReLU(), scaled, nn.ReLU6(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.MaxPool2d(2), bits=bits)
    usual = {bound.step: bound for bound in bounds(schedule(graph, before)) if bound.decided}
    fewer = list(bounds(schedule(graph, after)))
    assert {bound.step for bound in fewer if bound.decided} == set(usual)
    for bound in fewer:
        least = np.log2(ranges.of(bound)) + MARGIN_BITS + SPARE_BITS
        assert bound.exponent >= least or bound.exponent == usual.get(bound.step, bound).exponent
    assert schedule(graph, after).cost.total("offline") < schedule(graph, before).cost.total("offline")
    assert narrow(graph, ranges, after) == after


def test_what_is_left_out_adds_little_to_what_a_truncation_loses():
    graph, ranges, _, precision = narrowed(nn.ReLU())
    ((name, (low, _)),) = precision.compared.items()
    assert low >= 4
    deviation = 2.0**16 * ranges.sums[name] / 8
    x = np.rint(np.random.default_rng(2).normal(0, deviation, 4_000_000)).astype(np.int64)
    wrong = x[(Rounding(seed=3).units(x, low) >= 0) != (x >= 0)]
    assert -(1 << low) < wrong.min() and wrong.max() < 0
    assert float(np.square(wrong).sum() / len(x)) < 1 / 14


def test_as_many_low_bits_are_left_out_as_add_no_more_than_that():
    """Of values of a normal distribution whose largest are eight times its deviation: p 2^(3 low) / 12 is 1/14 at most, and not for a bit more."""
    graph, ranges, precision, _ = narrowed(nn.ReLU())
    for size in range(-12, 10):
        sums = dict.fromkeys(ranges.sums, 1.001 * 2.0**size)
        low, _ = narrow(graph, dataclasses.replace(ranges, sums=sums), precision).compared["1"]
        of_a_unit = 8 / (np.sqrt(2 * np.pi) * sums["1"] * 2.0**16)
        assert low == 0 or of_a_unit * 2.0 ** (3 * low) / 12 <= 1 / 14
        assert of_a_unit * 2.0 ** (3 * low + 3) / 12 > 1 / 14


def test_bounds_of_clips_stay_exact():
    for bound, kept in ((6.0, 4), (0.25, 4), (2.0**-14, 2)):
        *_, precision = narrowed(nn.Hardtanh(0.0, bound))
        (low, _), unit = precision.compared["1"], round(bound * 2**16)
        assert low >= kept and unit % (1 << low) == 0


def test_sums_of_patches_and_maxima_leave_nothing_out():
    sizes = {"1": ((2, 2), (1, 1), (1, 0), (0, 1))}
    *_, block = narrowed(nn.ReLU(), sizes=sizes)
    graph, ranges, _, pooled = narrowed(nn.MaxPool2d(2), nn.Conv2d(4, 1, 1))
    assert block.compared["1"][0] == 0 and block.compared["1"][1] < 30
    assert pooled.compared["1"][0] == 0 and pooled.compared["1"][1] < 31
    largest = 2 * ranges.values[graph["1"].inputs[0]]  # of the differences that a maximum compares
    assert 2.0 ** (pooled.compared["1"][1] - 16 - MARGIN_BITS - SPARE_BITS) >= largest


def test_nothing_changes_where_a_user_chose_a_window_or_all_bits_are_needed():
    graph, ranges, precision, _ = narrowed(nn.ReLU())
    chosen = dataclasses.replace(precision, window=(16, 40))
    assert narrow(graph, ranges, chosen) is chosen
    large = dataclasses.replace(ranges, sums=dict.fromkeys(ranges.sums, 2.0**13))
    low, width = narrow(graph, large, precision).compared["1"]
    assert low + width == 30
    tiny = dataclasses.replace(ranges, sums=dict.fromkeys(ranges.sums, 2.0**-60))
    assert narrow(graph, tiny, precision).compared["1"] == (0, 1), "one bit is compared of what is next to nothing"


def test_a_layer_s_own_bits_hold_for_it_alone():
    precision = Precision(48, compared={"a": (3, 20)})
    assert precision.comparison(32, "a") == (3, 20) and precision.comparison(32, "b") == precision.comparison(32) == (0, 30)
    assert dataclasses.replace(precision, window=(16, 40)).comparison(32, "a") == (0, 24)
