"""Room of a network's values: what counts as outside, by real numbers, whatever the ring and whether or not a gate lifts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from threepc.graph.importer import import_module
from threepc.graph.passes import standard_passes
from threepc.plan.bounds import bounds
from threepc.plan.headroom import count_outside, measure, room
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.plan.twin import Rounding, pack, walk


def network(*more: nn.Module):
    """A product of the input and 1, and what follows."""
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight[:], conv.bias[:] = 1.0, 0.0
    return standard_passes(*import_module(nn.Sequential(conv, *more).eval(), torch.zeros(1, 1, 2, 2)), frozenset())


def pixels(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, 2, 2)


@pytest.mark.parametrize("bits", [64, 48, 40, 32])
def test_a_value_at_the_bound_is_outside_and_the_next_smaller_is_not(bits):
    graph, weights = network(nn.ReLU())
    plan = schedule(graph, Precision.default(bits))
    exponent = min(bound.exponent for bound in bounds(plan) if bound.step == "1")
    limit = 2.0**exponent
    inside = float(np.nextafter(np.float32(limit), np.float32(0)))
    assert "1" not in count_outside(plan, weights, pixels(inside, -inside, 0, 1))
    assert count_outside(plan, weights, pixels(limit, -2 * limit, 0, 1))["1"] >= 2


@pytest.mark.parametrize("bits", [48, 32])
def test_a_product_that_wraps_without_any_gate_is_counted(bits):
    """A multiple of the ring comes out small: only the real number says that it was too large."""
    graph, weights = network()
    weights["0"]["weight"][:] = 2.0
    plan = schedule(graph, Precision.default(bits))
    (fraction,) = {step.result.fraction for step in plan.steps if step.name == "0"}
    whole = 2.0 ** (bits - fraction - 2)
    assert count_outside(plan, weights, pixels(2 * whole, 0, 0, 0)) == {"0": 1}


def test_the_twin_and_the_counts_agree_at_a_gate():
    graph, weights = network(nn.ReLU())
    plan = schedule(graph, Precision.default(32))
    exponent = next(bound.exponent for bound in bounds(plan) if bound.step == "1")
    weights["0"]["weight"][:] = 4.0
    images, rounding = pixels(0.375 * 2.0**exponent, -0.375 * 2.0**exponent, 1, -1), Rounding()
    list(walk(plan, pack(plan, weights), images, rounding))
    assert rounding.outside == count_outside(plan, weights, images)["1"] == 2


def test_a_window_that_a_user_chose_bounds_nothing_and_the_usual_one_does():
    graph, weights = network(nn.ReLU())
    usual, chosen = (schedule(graph, Precision(64, window=window)) for window in (None, (16, 30)))
    large = pixels(2.0**14, -(2.0**14), 0, 0)  # within a ring of 64 bits, but not within 30 bits above the point's 16
    assert count_outside(usual, weights, large) == {"1": 2}
    assert count_outside(chosen, weights, large) == {}


def test_room_is_what_is_left_of_the_bound():
    graph, weights = network(nn.ReLU())
    images = pixels(4.0, -8.0, 0, 1)
    for bits in (48, 32):
        plan = schedule(graph, Precision.default(bits))
        largest, left = room(plan, measure(graph, weights, images))["1"]
        fewer = dataclasses.replace(plan.precision, fraction=plan.precision.fraction - 1)
        assert largest == 8.0 and left == bits - 2 - 2 * plan.precision.fraction - 3
        assert room(schedule(graph, fewer), measure(graph, weights, images))["1"][1] > left
