"""Averages that the layer before them spares a truncation: which, what they give, and what a stranger may not ask for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.graph.building import Builder
from tests.protocol.harness import network_trio, run_network
from threepc.errors import InputError
from threepc.graph.clear import evaluate
from threepc.plan.averages import with_early
from threepc.plan.error import choose_by_error
from threepc.plan.headroom import measure
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.protocol.steps import REDUCED

PATCHES = ((1, 1), (0, 1), (2, 4), (1, 0), (1, 1), (2, 2), (1, 1), (4, 4))


def classifier(maximum=None, size=8, gain=1.0, also=False):
    """A convolution, a ReLU or a clip, its global average over size x size, and a classifier; also: whose classifier reads the ReLU besides."""
    net = Builder(3, size, size)
    x = net.conv("input", 8, gain=gain)
    net.weights[x]["bias"] *= gain
    x = net.clip(x, maximum) if maximum else net.relu(x)
    y = net.conv(net.avgpool(x), 5, 1, gain=1 / gain)
    return net.output(net.concat(y, net.avgpool(net.conv(x, 5, 1))) if also else y)


def images(graph, count=3):
    return torch.randn(count, *graph.input.shape, generator=torch.Generator().manual_seed(4))


def calibrated(graph, weights, bits=32, sizes=None):
    pixels = images(graph)
    precision, _ = choose_by_error(graph, weights, pixels, measure(graph, weights, pixels, sizes), Precision(bits), 2, sizes, None)
    return precision


@pytest.mark.parametrize("options", ({}, {"quick": ("relu2",)}, {"late": ("relu2",)}))
@pytest.mark.parametrize("patches", (None, PATCHES))
def test_a_classifier_takes_two_messages_less_and_gives_the_same(options, patches):
    graph, weights = classifier()
    sizes = patches and {"relu2": patches}
    precision = calibrated(graph, weights, sizes=sizes)
    plan, before = schedule(graph, precision, sizes, **options), schedule(graph, replace(precision, early=()), sizes, **options)
    assert precision.early == ("relu2",)
    assert plan.cost.messages == before.cost.messages - 2 and plan.cost.total("online") < before.cost.total("online")
    relu = next(step for step in plan.steps if step.name == "relu2")
    assert (relu.result.form, relu.result.fraction) == (REDUCED, precision.fraction - 6), "64 values are averaged"
    pixels = images(graph, 1)
    exact = evaluate(graph, weights, pixels, sizes=sizes)[graph.output.name].numpy()
    ours = run_network(network_trio(plan, weights), plan, pixels.numpy())
    assert np.abs(ours - exact).max() < 0.01 * np.abs(exact).max()


def test_a_clip_keeps_its_bound():
    """6 is a multiple of the coarser unit, 5.3 of neither: that clip would end elsewhere."""
    graph, weights = classifier(6.0)
    assert with_early(graph, Precision(32, 11, {"conv1": 12}), None).early == ("clip2",)
    graph, weights = classifier(5.3)
    assert with_early(graph, Precision(32, 11, {"conv1": 12}), None).early == ()


@pytest.mark.parametrize(
    "options, precision",
    (
        ({"size": 6}, Precision(32, 11, {"conv1": 12})),  # no power of two is left after the division is folded, but here it is not
        ({"also": True}, Precision(32, 11, {"conv1": 12})),
        ({}, Precision(48, 16)),  # the product has room for the average's bits
        ({}, Precision(32, 6, {"conv1": 12})),  # nothing would be left of a value's fraction
        ({"size": 16}, Precision(32, 11, {"conv1": 16})),  # nor of its bits
    ),
)
def test_where_it_does_not_suit_the_plan_stays(options, precision):
    graph, _ = classifier(**options)
    assert with_early(graph, precision, None) is precision or with_early(graph, precision, None) == precision


def test_small_values_keep_their_bits():
    """Values of a unit of the last place or two, after a truncation that removes four bits more, would be noise."""
    graph, weights = classifier(size=4, gain=1 / 256)
    assert with_early(graph, calibrated(graph, weights), None).early, "it could be"
    assert calibrated(graph, weights).early == ()


@pytest.mark.parametrize(
    "name, reason",
    (
        ("conv1", "is no relu or clip of this network"),
        ("nothing", "is no relu or clip of this network"),
        ("relu2", "is no ReLU that an average of 2, 4, 8, ... values alone reads"),
    ),
)
def test_a_stranger_names_layers_that_it_suits(name, reason):
    graph, _ = classifier(also=True)
    with pytest.raises(InputError, match=reason):
        schedule(graph, Precision(32, 11, {"conv1": 12}, early=(name,)))


def test_a_stranger_leaves_values_their_bits():
    graph, _ = classifier()
    deepest = Precision(48, 16, {"conv1": 24}, truncation=24)  # a lift's pads are no longer
    for precision in (Precision(32, 6, {"conv1": 12}), Precision(32, 11, {"conv1": 16}), Precision(24, 7, {"conv1": 8}), deepest):
        with pytest.raises(InputError, match="conv1: no truncation that could remove 6 bits besides"):
            schedule(graph, replace(precision, early=("relu2",)))
