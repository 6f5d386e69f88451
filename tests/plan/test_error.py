"""The error to expect: what the twin then has, of every kind of rounding; and precisions that are chosen by it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module
from threepc.graph.passes import standard_passes
from threepc.plan import twin
from threepc.plan.calibration import SPARE_BITS, choose, deepen
from threepc.plan.error import CLEAR_GAIN, LARGEST, LEEWAY, SEARCHED, Expected, Reference, choose_by_error
from threepc.plan.error import IMAGES as TRIED
from threepc.plan.headroom import measure, room
from threepc.plan.precision import MAX_TRUNCATION, Precision
from threepc.plan.schedule import schedule

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network(module):
    return standard_passes(*import_module(module.eval(), torch.zeros(1, *IMAGES.shape[1:])))


def difference(size=7e-3):
    """Two channels that are nearly the same, and what they differ by: the roundings of many small weights are a large part of it."""
    first, second = nn.Conv2d(3, 2, 9, bias=False), nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        first.weight[0] = 0.03 * torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0))
        first.weight[1] = (1 + size) * first.weight[0]
        second.weight[:] = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    return nn.Sequential(first, nn.ReLU(), second)


def chain(*layers):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), *layers, nn.Conv2d(8, 4, 3))


def small():
    """Results of about a thousandth of a unit of activations, of which 16 bits are sent."""
    layers = chain(nn.ReLU())
    with torch.no_grad():
        layers[-1].weight.mul_(1e-5)
        layers[-1].bias.mul_(1e-5)
    return layers


NETWORKS = {
    "outputs": small,
    "weights": difference,
    "activations": lambda: chain(nn.ReLU(), nn.MaxPool2d(2)),
    "slopes": lambda: chain(nn.LeakyReLU(0.3)),
    "kept factors": lambda: chain(nn.Hardswish()),
    "averages": lambda: chain(Wrapped(lambda _, x: F.adaptive_avg_pool2d(x, 3))),
}


def simulated(graph, weights, precision):
    plan = schedule(graph, precision, batch=len(IMAGES))
    exact, name = evaluate(graph, weights, IMAGES)[graph.output.name].numpy(), graph.output.name
    runs = [twin.simulate(plan, twin.pack(plan, weights), IMAGES.numpy(), seed=seed)[name] for seed in range(3)]
    return np.median([np.abs(run - exact).max() / np.abs(exact).max() for run in runs])


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("bits", [48, 32])
def test_the_error_to_expect_is_about_that_of_the_twin(bits, kind):
    graph, weights = network(NETWORKS[kind]())
    precision = choose(graph, measure(graph, weights, IMAGES), bits)
    expected = Reference(graph, weights, IMAGES).expected(precision)
    assert 0.4 < expected.error / simulated(graph, weights, precision) < 2.5
    assert expected.images == len(IMAGES)


def chosen(graph, weights, bits, fraction=None, window=None):
    return choose_by_error(graph, weights, IMAGES, measure(graph, weights, IMAGES), Precision(bits, window=window), 2, None, fraction)


def test_a_network_that_loses_little_keeps_its_precision():
    graph, weights = network(NETWORKS["activations"]())
    for bits in (48, 32):
        precision, expected = chosen(graph, weights, bits)
        assert precision == choose(graph, measure(graph, weights, IMAGES), bits) and precision.truncation == MAX_TRUNCATION
        assert not expected.exceeds(bits)


def test_a_network_that_loses_too_much_gets_deeper_truncations():
    graph, weights = network(difference())
    usual = choose(graph, measure(graph, weights, IMAGES), 48)
    precision, expected = chosen(graph, weights, 48)
    assert Reference(graph, weights, IMAGES).expected(usual).exceeds(48) and not expected.exceeds(48)
    assert precision.truncation > MAX_TRUNCATION
    assert simulated(graph, weights, precision) < LARGEST[48] < simulated(graph, weights, usual)


def test_a_small_ring_takes_the_fraction_that_loses_least_unless_one_is_asked_for():
    graph, weights = network(difference(0.1))
    precision, expected = chosen(graph, weights, 32)
    others = [chosen(graph, weights, 32, fraction)[1].error for fraction in (9, 10, 11)]
    assert expected.error <= min(others) / CLEAR_GAIN and expected.exceeds(32) == (expected.error > LARGEST[32] / LEEWAY)
    assert chosen(graph, weights, 32, 9)[0].fraction == 9
    assert chosen(graph, weights, 48, window=(12, 40))[0].window == (12, 40)


def test_a_gain_that_other_images_would_not_show_changes_nothing(monkeypatch):
    graph, weights = network(difference(0.1))
    usual = choose(graph, measure(graph, weights, IMAGES), 32)
    errors = {usual.fraction: 0.05, 12: 0.05 * CLEAR_GAIN}
    monkeypatch.setattr(Reference, "expected", lambda _, precision: Expected((errors.get(precision.fraction, 1.0),), 0.0))
    assert chosen(graph, weights, 32)[0] == usual
    errors[12] -= 1e-6
    assert chosen(graph, weights, 32)[0].fraction == 12


def test_images_of_little_contrast_do_not_stand_for_all():
    graph, weights = network(nn.Conv2d(3, 2, 1))
    weights["conv2d"]["bias"][:] = 100.0  # beside which what weights of few bits lose grows with the image
    scales = torch.tensor([0.1, 5.0, 0.2, 0.3, 0.4])
    images = scales[:, None, None, None] * torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    every, least, most = (Reference(graph, weights, part).expected(Precision(48, 4)) for part in (images, images[:1], images[1:2]))
    assert (every.images, most.images) == (SEARCHED, 1)
    assert every.error > 0.5 * most.error > least.error


def cancelling_on_one_image(count):
    """A difference of two channels, and images of which one, neither of least nor of most contrast, has them nearly the same."""
    graph, weights = network(nn.Conv2d(3, 1, 1, bias=False))
    weights["conv2d"]["weight"][:, :, 0, 0] = [[1.0, -1.0, 0.0]]
    images = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    images *= torch.linspace(0.5, 1.5, count)[:, None, None, None]
    images[1, 1] = images[1, 0] + 1e-3 * images[1, 2]
    return graph, weights, images


def test_the_image_that_loses_most_of_all_counts_and_no_more_than_some_are_tried():
    for count in (6, TRIED + 5):
        (graph, weights, images), told = cancelling_on_one_image(count), []
        ranges = measure(graph, weights, images)
        precision, expected = choose_by_error(graph, weights, images, ranges, Precision(48, window=(16, 46)), 2, None, None, told.append)
        first = Reference(graph, weights, images).expected(precision)
        assert first.images == SEARCHED and expected.images == min(count, TRIED) == len(expected.errors)
        assert expected.errors[:SEARCHED] == first.errors and first.error < LARGEST[48] / 10
        assert count > TRIED or (expected.error > LARGEST[48] and expected.exceeds(48))
        assert expected.typical < expected.error / 10
        assert told == [f"error to expect, {tried} of {expected.images} images" for tried in range(SEARCHED, expected.images, SEARCHED)]


def test_what_only_some_images_lose_makes_finer_scales_looked_for():
    graph, weights, images = cancelling_on_one_image(6)
    precision, expected = choose_by_error(graph, weights, images, measure(graph, weights, images), Precision(48), 2, None, None)
    usual = choose(graph, measure(graph, weights, images), 48)
    reference = Reference(graph, weights, images)
    ((_, before),) = reference.on_all([(usual, reference.expected(usual))])
    assert precision.fraction > usual.fraction and expected.error < CLEAR_GAIN * before.error


def amplifying():
    """A small difference of large channels, again and again, of weights that no rounding changes: what activations' bits cannot hold."""
    first, *others = [nn.Conv2d(3, 2, 1, bias=False), *(nn.Conv2d(2, 2, 1, bias=False) for _ in range(4))]
    with torch.no_grad():
        first.weight[:] = torch.tensor([[1.0, 0.5, 0.25], [0.75, 0.5, 0.25]]).reshape(2, 3, 1, 1)
        for layer in others:
            layer.weight[:] = torch.tensor([[2.5, -2.0], [-2.0, 2.5]]).reshape(2, 2, 1, 1)
    layers = [part for layer in others for part in (layer, nn.LeakyReLU(0.5))]
    return nn.Sequential(first, nn.LeakyReLU(0.5), *layers, nn.Conv2d(2, 1, 1, bias=False))


def test_activations_get_more_bits_where_their_roundings_are_what_is_lost_and_no_value_less_room():
    graph, weights = network(amplifying())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LARGEST, 48, 1e-6)
        precision, expected = chosen(graph, weights, 48)
        asked = chosen(graph, weights, 48, 16)[0]
    ranges = measure(graph, weights, IMAGES)
    usual = choose(graph, ranges, 48)
    assert precision.fraction > MAX_TRUNCATION == asked.fraction and precision.truncation > MAX_TRUNCATION
    assert expected.typical < CLEAR_GAIN * Reference(graph, weights, IMAGES).expected(deepen(graph, ranges, usual)).typical
    assert min(bits for _, bits in room(schedule(graph, precision), ranges).values()) >= 2 + SPARE_BITS
    assert simulated(graph, weights, precision) < CLEAR_GAIN * simulated(graph, weights, usual)


@pytest.mark.parametrize(("deep", "taken"), [((0.02, 0.001), True), ((0.0201, 0.001), False), ((0.02, 0.008), False)])
def test_a_deeper_truncation_is_taken_where_most_images_lose_less_and_none_more(monkeypatch, deep, taken):
    graph, weights = network(difference())
    usual = choose(graph, measure(graph, weights, IMAGES), 48)
    monkeypatch.setattr(Reference, "expected", lambda _, one: Expected((0.02, 0.01) if one == usual else deep, 0.0))
    assert (chosen(graph, weights, 48)[0].truncation > MAX_TRUNCATION) == taken


def test_what_a_clip_bounds_is_not_rounded():
    graph, weights = network(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()))
    weights["0"]["bias"][:] = 100.0
    assert Reference(graph, weights, IMAGES).expected(Precision(48)).error == 0


def test_classes_that_change_are_counted():
    graph, weights = network(nn.Conv2d(3, 2, 1))
    weights["conv2d"]["weight"][:, :, 0, 0] = [[0.3, 0.4, 0.5], [0.3 + 1e-7, 0.4, 0.5]]
    weights["conv2d"]["bias"][:] = 0.0
    expected = Reference(graph, weights, IMAGES).expected(Precision(48))
    assert 0.3 < expected.changed < 0.7 and expected.error < 1e-3
