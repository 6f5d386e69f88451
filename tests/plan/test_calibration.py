"""Calibration: every value of the plan fits its ring with the margin asked for, scales are as fine as that allows, refusals are by name."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.graph.building import twins
from tests.graph.networks import Wrapped
from threepc.errors import InputError
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module
from threepc.graph.ir import holder
from threepc.graph.passes import standard_passes
from threepc.images.card import Preprocessing
from threepc.plan.calibration import calibrate, choose, deepen, default_images
from threepc.plan.headroom import count_outside, measure, room
from threepc.plan.precision import DEEPEST_TRUNCATION, Precision
from threepc.plan.schedule import schedule
from threepc.protocol.steps import RAW, ReluStep


def network(module, shape=(3, 8, 8), blocks=frozenset()):
    return standard_passes(*import_module(module.eval(), torch.zeros(1, *shape)), blocks)


def residual(gain=1.0):
    torch.manual_seed(0)
    a, b, c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
    with torch.no_grad():
        b.weight *= gain
    net = Wrapped(lambda m, x: m.c(torch.relu(m.a(x) + m.b(torch.relu(m.a(x))))), a=a, b=b, c=c)
    return network(net)


@settings(max_examples=25)
@given(gain=st.floats(0.01, 200), bits=st.sampled_from([32, 40, 48, 64]), margin=st.integers(0, 4), seed=st.integers(0, 99))
def test_every_value_of_the_plan_fits_with_its_margin(gain, bits, margin, seed):
    graph, weights = residual(gain)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    precision = calibrate(graph, weights, images, bits, margin)
    values = evaluate(graph, weights, images, [node.name for node in graph.nodes])
    for step in schedule(graph, precision).steps:
        if step.result.form == RAW and step.name in values:
            assert float(values[step.name].abs().max()) * 2.0 ** (step.result.fraction + margin) <= 2.0 ** (bits - 2)


def test_one_layer_gets_all_bits_that_its_range_leaves():
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight[:], conv.bias[:] = 5.0, 0.0
    graph, weights = network(nn.Sequential(conv, nn.ReLU()), (1, 4, 4))
    own = lambda largest, **more: calibrate(graph, weights, torch.full((1, 1, 4, 4), largest / 5), 32, **more).of_weights("0")
    assert own(8.0) == 30 - 11 - 2 - 3
    assert own(8.1) == own(16.0) == 30 - 11 - 2 - 4  # ranges count as powers of two
    assert own(8.0, margin_bits=0) == own(0.25) == own(0.0) == 16  # all that a truncation removes
    assert own(8.0, margin_bits=4) == own(8.0, fraction=13) == 12


def test_branches_that_meet_get_one_scale_and_others_their_own():
    graph, weights = residual(gain=30.0)
    precision = calibrate(graph, weights, torch.ones(1, 3, 8, 8), 32)
    holders = {holder(graph[name]) for name in graph["add"].inputs}
    meeting = {precision.of_weights(name) for name in holders}
    assert len(meeting) == 1
    alone = max(precision.of_weights(name) for name in {holder(graph[name]) for name in weights} - holders)
    assert alone > meeting.pop()


def test_wide_rings_keep_their_usual_precision():
    graph, weights = residual()
    for bits in (48, 64):
        assert calibrate(graph, weights, torch.ones(1, 3, 8, 8), bits) == Precision.default(bits)


def test_it_is_a_function_of_its_arguments():
    graph, weights = residual()
    images = default_images(Preprocessing(size=(8, 8), mean=(120.0,) * 3, std=(60.0,) * 3))
    assert calibrate(graph, weights, images, 32) == calibrate(graph, weights, images.copy(), 32)
    with_largest = np.concatenate([images, 400 * images[:1]])
    products = lambda own: sum(step.result.fraction for step in schedule(graph, calibrate(graph, weights, own, 40)).linear)
    assert products(with_largest) < products(images)


def small_weights():
    """Three layers of which the second has weights of a thousandth, and its biases make up for it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU())
    with torch.no_grad():
        net[2].weight *= 1e-2
    return network(net)


@pytest.mark.parametrize("bits", [64, 48, 40])
def test_small_weights_get_more_bits_than_a_truncation_removes_at_no_cost(bits):
    graph, weights = small_weights()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    precision, ranges = calibrate(graph, weights, images, bits), measure(graph, weights, images)
    plan, usual = schedule(graph, precision), schedule(graph, Precision(bits, precision.fraction, dict.fromkeys(weights, 16)))
    assert precision.of_weights("2") > max(16, precision.of_weights("0"))
    assert plan.cost == usual.cost  # what inspect predicts of other weights stays true, to the byte
    deciding = {step.name: step for step in plan.steps}["3"]
    assert deciding.protocol.cut.shift == 16 and deciding.result.fraction > precision.fraction
    assert min(left for _, left in room(plan, ranges).values()) >= 2
    assert not count_outside(plan, weights, images.numpy() * 4)


@pytest.mark.parametrize("bits", [64, 48, 40])
def test_deeper_truncations_give_every_layer_finer_weights_in_as_many_messages(bits):
    graph, weights = residual()
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ranges = measure(graph, weights, images)
    usual = choose(graph, ranges, bits)
    deep = deepen(graph, ranges, usual)
    plan, before = schedule(graph, deep), schedule(graph, usual)
    more = [deep.of_weights(step.name) - usual.of_weights(step.name) for step in plan.holding]
    assert deep.truncation == DEEPEST_TRUNCATION and min(more) >= (0 if bits == 40 else 2) and max(more) >= 2
    assert plan.cost.messages == before.cost.messages and plan.cost.total("online") <= before.cost.total("online")
    assert min(left for _, left in room(plan, ranges).values()) >= 2 + 4
    assert any(isinstance(step, ReluStep) and step.protocol.cut.shift > 16 for step in plan.steps)
    assert Precision.from_plain(deep.to_plain()) == deep and "truncation" not in usual.to_plain()


def test_deeper_truncations_leave_alone_what_has_no_room():
    graph, weights = residual()
    ranges = measure(graph, weights, 3e3 * torch.ones(1, 3, 8, 8))
    usual = choose(graph, ranges, 48)
    deep = deepen(graph, ranges, usual)
    assert all(deep.of_weights(name) == usual.of_weights(name) for name in weights)
    assert min(left for _, left in room(schedule(graph, deep), ranges).values()) >= 2


@pytest.mark.parametrize("bits", [48, 32])
def test_weights_too_small_for_any_scale_end_at_the_ring(bits):
    layers = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(4)]
    with torch.no_grad():
        for conv in layers:
            conv.weight *= 1e-5
            conv.bias[:] = 0.0
    graph, weights = network(nn.Sequential(*layers), (2, 4, 4))
    precision = calibrate(graph, weights, torch.ones(1, 2, 4, 4), bits)
    assert max(step.result.fraction for step in schedule(graph, precision).steps) <= bits - 2


@pytest.mark.parametrize("bits", [64, 48, 40, 32])
def test_large_inputs_leave_bits_to_the_weights_that_meet_them(bits):
    graph, weights = network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))
    weights["0"]["weight"] *= 1e-2
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    small, large = calibrate(graph, weights, images, bits), calibrate(graph, weights, 255 * images, bits)
    assert small.input_fraction is None and large.of_input == large.fraction - 5
    assert large.of_weights("0") >= 16 + 5 - (bits == 32)
    window = choose(graph, measure(graph, weights, 255 * images), bits, window=(12, 28))
    assert window.of_input == window.fraction and window.window == (12, 28)


@pytest.mark.parametrize("bits", [32, 28, 24])
def test_products_of_more_fractional_bits_than_a_narrow_ring_has_get_fewer(bits):
    """An average of 64 numbers brings six, and its layer's weights none that the ring cannot hold."""
    graph, weights = network(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), nn.AvgPool2d(8), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)), (2, 8, 8)
    )
    precision = calibrate(graph, weights, torch.full((1, 2, 8, 8), 1e-3), bits)
    assert max(step.result.fraction for step in schedule(graph, precision).steps) <= bits - 2


def test_sums_of_patches_count():
    conv = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        conv.weight[:], conv.bias[:] = 1.0, 0.0
    graph, weights = network(nn.Sequential(conv, nn.ReLU()), (1, 8, 8), frozenset({"1"}))
    images = torch.full((1, 1, 8, 8), 2.0)
    assert measure(graph, weights, images, {"1": ((4, 3), (0, 1))}).sums == {"1": 24.0}
    own = lambda *patches: calibrate(graph, weights, images, 32, sizes={"1": patches}).of_weights("0")
    assert own((1, 1), (1, 1)) == own((0, 1), (1, 0)) == 16
    assert own((4, 4), (1, 1)) == 12
    assert own((5, 5), (8, 1)) == 11


def test_a_clip_counts_what_lies_below_its_bound():
    graph, weights = network(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU6()), (1, 2, 2))
    weights["0"]["weight"][:], weights["0"]["bias"][:] = -1.0, 0.0
    assert measure(graph, weights, torch.full((1, 1, 2, 2), 3.0)).sums == {"1": 9.0}


def test_average_of_a_product_without_relu():
    graph, weights = network(Wrapped(lambda m, x: m.b(nn.functional.avg_pool2d(m.a(x), 2)), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 2, 1)))
    for bits in (32, 48):
        plan = schedule(graph, calibrate(graph, weights, torch.ones(1, 3, 8, 8), bits))
        assert plan.steps[-1].kind == "output"


def test_refusals_name_the_layer_and_what_would_do():
    graph, weights = residual(gain=1e5)
    images = torch.ones(1, 3, 8, 8)
    with pytest.raises(InputError, match=r"^(add|b): values up to .* ring of 32 bits with 11 .*; \d+ fractional bits .* would do") as error:
        calibrate(graph, weights, images, 32, fraction=11)
    fewer = int(re.search(r"; (\d+) fractional", str(error.value))[1])
    assert calibrate(graph, weights, images, 32, fraction=fewer) == calibrate(graph, weights, images, 32)  # chosen where nobody says
    with pytest.raises(InputError, match=rf"ring of 32 bits with {fewer + 1} .*; {fewer} fractional bits .* would do"):
        calibrate(graph, weights, images, 32, fraction=fewer + 1)
    with pytest.raises(InputError, match="take a ring of 40 bits"):
        choose(graph, measure(graph, weights, 1e3 * images.clamp(max=0.05)), 32)
    with pytest.raises(InputError, match=r"input.* up to 500 .*10 fractional bits"):
        calibrate(*network(nn.Conv2d(3, 1, 1)), 500 * images, 32, fraction=11)
    with pytest.raises(InputError, match="not finite"):
        calibrate(graph, weights, images * math.nan, 32)


def test_images_of_chance_cover_the_normalised_range():
    card = Preprocessing(size=(20, 12), mean=(100.0, 50.0, 0.0), std=(50.0, 25.0, 1.0))
    images = default_images(card, count=5, seed=3)
    assert images.shape == (5, 3, 20, 12) and images.dtype == np.float32
    np.testing.assert_array_equal(images, default_images(card, count=5, seed=3))
    assert not np.array_equal(images, default_images(card, count=5, seed=4))
    np.testing.assert_allclose(images.min(axis=(0, 2, 3)), [-2, -2, 0], atol=0.3)
    np.testing.assert_allclose(images.max(axis=(0, 2, 3)), [3.1, 8.2, 255], rtol=0.1)


@pytest.mark.parametrize("bits, more", ((48, 2.0**13), (32, 32.0)))
def test_weights_that_two_layers_use_get_the_bits_that_both_can_hold(bits, more):
    graph, weights = twins()
    images = np.random.default_rng(0).normal(size=(2, 4, 9, 9))
    first, second, _ = (node.name for node in graph.nodes if node.kind == "conv")
    enlarged = {name: dict(part) for name, part in weights.items()}
    enlarged[second]["bias"] = weights[second]["bias"] + more
    usual, fewer = (calibrate(graph, own, images, bits) for own in (weights, enlarged))
    assert fewer.fraction + fewer.of_weights(first) < usual.fraction + usual.of_weights(first)
    for precision, own in ((usual, weights), (fewer, enlarged), (deepen(graph, measure(graph, weights, images), usual), weights)):
        assert second not in precision.weight_fraction
        assert all(left >= 2 for _, left in room(schedule(graph, precision), measure(graph, own, images)).values())
