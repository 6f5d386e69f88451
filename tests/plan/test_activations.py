"""Piecewise linear activations in a plan: right in every form of value, and what they cost against ReLU."""

from dataclasses import replace

import numpy as np
import pytest

from tests.graph.building import Builder, residual
from tests.plan.test_schedule import check
from threepc.errors import InputError
from threepc.graph.ir import Graph
from threepc.graph.passes import fold_hidden_slopes
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule

ACTIVATIONS = {
    "leaky": ("bend", {"slopes": [0.01, 1.0]}),
    "falling": ("bend", {"slopes": [-0.3, 1.25], "at": -0.75}),
    "abs": ("bend", {"slopes": [-1.0, 1.0]}),
    "at most": ("bend", {"slopes": [1.0, 0.0], "at": 0.5}),
    "hardtanh": ("clip", {"min": -1.0, "max": 1.0}),
    "hardsigmoid": ("clip", {"min": -3.0, "max": 3.0, "to": [0.0, 1.0]}),
}


@pytest.mark.parametrize("bits", (64, 48, 40, 32, 24))  # in 24 bits a slope has no more bits than a carry leaves it
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_raw_reduced_and_pooled_values(name, bits):
    net, (kind, attrs) = Builder(3, 12, 12), ACTIVATIONS[name]
    x = net.node(kind, net.conv("input", 4), **attrs)
    x = net.node(kind, net.add(x, net.node(kind, x, **attrs)), **attrs)
    x = net.node(kind, net.maxpool(net.conv(x, 5)), **attrs)
    plan, *_ = check(*net.output(net.conv(x, 3)), bits, batch=2, tolerance={24: 0.08}.get(bits, 0.02 if bits < 48 else 0.005))
    assert plan.relus == 2 * (3 * 4 * 12 * 12 + 5 * 6 * 6) and plan.drelus == plan.relus * (2 if kind == "clip" else 1)


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
@pytest.mark.parametrize("slopes, most", [([0.01, 1.0], 1.3), ([0.1, 1.0], 1.3), ([0.125, 1.0], 1.05), ([-1.0, 1.0], 1.0)])
def test_a_slope_costs_little_more_than_none(slopes, most, bits):
    """As many messages; bytes: two bits an element for each bit of the slope, over both phases and all links."""
    (graph, _), plans = residual(), []
    for leaky in (False, True):
        nodes = [replace(n, kind="bend", attrs={"slopes": slopes}) if leaky and n.kind == "relu" else n for n in graph.nodes]
        plans.append(schedule(Graph(tuple(nodes)), Precision.default(bits)))
    plain, sloped = (plan.cost.total("offline") + plan.cost.total("online") for plan in plans)
    assert plain <= sloped <= most * plain
    assert plans[0].cost.messages == plans[1].cost.messages


def prelus(net, x, channels, slopes=(0.25, -0.1)):
    """A PReLU as it is imported."""
    name = net.node(
        "conv", net.node("rectify", x), channels=channels, kernel=[1, 1], stride=[1, 1], padding=[0] * 4, dilation=[1, 1], groups=channels
    )
    own = np.resize(slopes, channels)
    net.weights[name] = {"weight": np.stack([1 - own, own], axis=1)[:, :, None, None], "bias": np.zeros(channels)}
    return name


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
@pytest.mark.parametrize("folded", (False, True))
def test_hidden_slopes(folded, bits):
    """Read by a convolution, a pooling and a sum."""
    net = Builder(3, 10, 10)
    x = prelus(net, net.conv("input", 6), 6)
    y = prelus(net, net.add(net.conv(x, 6), x), 6)
    graph, weights = net.output(net.conv(net.maxpool(net.conv(y, 5)), 4))
    if folded:
        graph, weights = fold_hidden_slopes(graph, weights)
    plan, *_ = check(graph, weights, bits, batch=2, tolerance=0.02 if bits < 48 else 0.005)
    assert plan.relus == plan.drelus == 2 * 2 * 6 * 100


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
def test_a_hidden_slope_costs_little_more_than_none(bits):
    plans = []
    for act in (lambda net, x, channels: net.relu(x), prelus):
        net = Builder(3, 16, 16)
        x = act(net, net.conv("input", 8), 8)
        for _ in range(2):
            x = act(net, net.add(net.conv(act(net, net.conv(x, 8), 8), 8), x), 8)
        plans.append(schedule(fold_hidden_slopes(*net.output(net.conv(x, 4)))[0], Precision.default(bits)))
    plain, hidden = (plan.cost.total("offline") + plan.cost.total("online") for plan in plans)
    assert hidden <= 1.3 * plain
    assert plans[0].cost.messages == plans[1].cost.messages


def test_slopes_and_bounds_that_no_gate_holds():
    for kind, attrs, message in (
        ("bend", {"slopes": [0.1, 1e9]}, "bend1: a slope of 1e[+]09 is too steep"),
        ("bend", {"slopes": [1.0, 0.0], "at": 1e9}, "bend1: a clip at 1e[+]09 is beyond the numbers"),
        ("clip", {"min": -1e9, "max": 1.0}, "clip1: a clip at 1 is beyond the numbers"),
        ("clip", {"max": 1.0, "to": [0.0, 1e8]}, "clip1: a slope of 1e[+]08 is too steep"),
        ("clip", {"max": 1.0, "to": [1e10, 1e10]}, "clip1: its values are beyond the numbers"),
    ):
        net = Builder(2, 4, 4)
        graph, _ = net.output(net.node(kind, "input", **attrs))
        with pytest.raises(InputError, match=message):
            schedule(graph, Precision())
    net = Builder(1, 4, 4)
    graph, _ = net.output(net.clip(net.node("clip", "input", min=-1.0, max=1.0)))
    with pytest.raises(InputError, match="'clip1' is a clip that does not start from 0"):
        schedule(graph, Precision(), {"clip1": ((2, 2),)})
