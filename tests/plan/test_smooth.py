"""Smooth activations: their tables against the curves, and whole networks with them against torch in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.graph.building import Builder
from tests.plan.test_schedule import check, kinds
from tests.plan.test_twin import images_for, served
from tests.protocol.harness import network_trio, run_network
from threepc.errors import InputError
from threepc.graph.clear import operate
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph, Node
from threepc.graph.passes import standard_passes
from threepc.graph.smooth import BELOW, RANGE, SMOOTH
from threepc.party import debug
from threepc.plan.bounds import bounds
from threepc.plan.calibration import calibrate
from threepc.plan.headroom import measure, room
from threepc.plan.pieces import GUARD_BITS, LEAST_INDEX, MOST_INDEX, UNITS, pieces
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.protocol.steps import ReluStep

RINGS = (64, 48, 40, 32)
parameters = st.floats(1 / 16, 16, width=32)


def activation(function, parameter=1.0):
    return {"function": function, "parameter": parameter}


def by_torch(function, parameter, x):
    """The function in float64."""
    node = Node("f", "smooth", ("x",), (1, 1, 1), activation(function, parameter))
    return operate(node, [torch.from_numpy(x)]).numpy()


def by_table(function, parameter, fraction, x, below):
    """The function as a plan composes it, the curve of the row that a value is in or, `below` it, of the next; in float64."""
    made, own = pieces(function, parameter, fraction), SMOOTH[function]
    shifted = x - made.start
    argument = {RANGE: shifted, BELOW: -x}.get(own.fold, np.abs(x)).clip(0, made.span)
    width = 2.0**made.width_bits
    row = np.floor(argument / width).astype(int) + below
    t = argument / width - row
    c0, c1, c2 = (np.array(column)[row] / 2.0 ** (fraction + GUARD_BITS) for column in made.rows)
    straight = np.maximum(shifted if own.fold == RANGE else x, 0) * (own.fold != RANGE or own.rising)
    return straight + c0 + c1 * t + c2 * t * t


@settings(max_examples=60)
@example("softplus", 13.9375, 11, 0)  # its table ends where a row does, which the row after it reaches too
@example("softplus", 0.1012, 14, 0)  # a row fewer would be a table of half the size
@example("silu", 1.0, 8, 0)  # its rows' ends are larger than any of their coefficients
@given(st.sampled_from(list(SMOOTH)), parameters, st.sampled_from([16, 14, 11, 8]), st.integers(0, 2**32))
def test_a_table_is_as_exact_as_it_says(function, parameter, fraction, seed):
    parameter = parameter if SMOOTH[function].free else 1.0
    made, unit = pieces(function, parameter, fraction), 2.0 ** (fraction + GUARD_BITS)
    assert made.error <= UNITS * 2.0**-fraction
    assert LEAST_INDEX <= len(made.rows[0]).bit_length() - 1 <= MOST_INDEX
    assert made.span / 2.0**made.width_bits + 3 <= len(made.rows[0]), "one row below the first, and two after the last"
    assert max(abs(c0 + c1 * t + c2 * t * t) for c0, c1, c2 in zip(*made.rows, strict=True) for t in (-1, 0, 1)) <= made.largest * unit
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-2, 2, 2000) * (made.span + abs(made.start)), rng.normal(size=2000), [0.0, 300.0, -300.0]])
    for below in (0, 1):
        error = np.abs(by_table(function, parameter, fraction, x, below) - by_torch(function, parameter, x))
        assert error.max() <= made.error * 1.02 + 1e-9


@pytest.mark.parametrize("function", SMOOTH)
def test_outside_its_range_a_function_is_its_asymptote(function):
    """Beyond the table nothing but a constant is added to what is straight."""
    x = np.array([40.0, 1000.0, 1e6])
    for side in (x, -x):
        values = by_table(function, 1.0, 16, side, 0)
        straight = values - values.round() if np.abs(values).max() < 2 else values - side
        assert np.ptp(straight) < 1e-9 and np.abs(straight).max() < 2.0**-16


def test_parameters_out_of_reach_are_refused():
    with pytest.raises(InputError, match="celu with 16: no table of 1024 rows is exact to 22 fractional bits"):
        pieces("celu", 16.0, 22)


@pytest.mark.parametrize("function", SMOOTH)
@pytest.mark.parametrize("bits", RINGS)
def test_networks_with_each_activation(function, bits):
    net = Builder(3, 9, 10)
    x = net.node("smooth", net.conv("input", 6), **activation(function))
    x = net.node("smooth", net.conv(x, 5), **activation(function))
    plan, got, clear = check(*net.output(net.conv(net.avgpool(x), 4, 1)), bits, tolerance=0.01 if bits > 32 else 0.03)
    assert np.abs(got - clear).max() < (2e-3 if bits > 32 else 3e-2)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("function", ("silu", "sigmoid", "elu", "mish"))
def test_activations_of_every_form_of_value(function, bits):
    """Of the input, of a maximum, of a sum of reduced values, of another activation; read by an average, a sum, the output."""
    net = Builder(3, 8, 8)
    own = activation(function)
    x, pooled = net.node("smooth", "input", **own), net.node("smooth", net.maxpool(net.conv("input", 3), 3, 1, 1), **own)
    x = net.node("smooth", net.add(x, pooled), **own)
    x = net.add(net.node("smooth", x, **own), net.conv(x, 3), net.avgpool(pooled, 3, 1, 1))
    check(*net.output(net.concat(x, net.node("smooth", x, **own))), bits, batch=2, tolerance=0.01 if bits > 32 else 0.03)


def smooth_network():
    net = Builder(3, 9, 9)
    x = net.conv("input", 4)
    for function, spec in SMOOTH.items():
        x = net.node("smooth", net.conv(x, 4), **activation(function, 0.75 if spec.free else 1.0))
    return net.output(net.conv(x, 4))


@pytest.mark.parametrize("bits", RINGS)
def test_secure_run_and_twin_agree_at_every_step(bits):
    model = served(smooth_network(), bits)
    rows = debug.trace(model, images_for(model.public.graph, 2)).rows
    assert [row for row in rows if not row.ok] == []
    assert len([row for row in rows if row.bound == 1]) == len(SMOOTH)


@pytest.mark.parametrize("bits", RINGS)
def test_values_far_outside_the_table(bits):
    """Inputs up to 25, where nothing but the asymptotes is left."""
    net = Builder(1, 16, 16)
    graph, weights = net.output(net.concat(*(net.node("smooth", "input", **activation(function)) for function in SMOOTH)))
    plan = schedule(graph, Precision.default(bits))
    images = np.linspace(-25, 25, 256).reshape(1, 1, 16, 16)
    got = run_network(network_trio(plan, weights), plan, images)
    for index, function in enumerate(SMOOTH):
        assert np.abs(got[0, index] - by_torch(function, 1.0, images[0, 0])).max() < 6 * 2.0**-plan.precision.fraction, function


@pytest.mark.parametrize("bits", (48, 32))
@pytest.mark.parametrize("function", ("silu", "gelu", "sigmoid"))
def test_declared_bytes_stay_within_eight_times_a_relu(function, bits):
    shape, costs = (8, 64, 64), []
    geometry = {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}
    for kind, attrs in (("relu", {}), ("smooth", activation(function))):
        nodes = [
            Node("input", "input", (), shape),
            Node("conv", "conv", ("input",), shape, geometry),
            Node("f", kind, ("conv",), shape, attrs),
        ]
        nodes += [Node("next", "conv", ("f",), shape, geometry), Node("output", "output", ("next",), shape)]
        plan = schedule(Graph(tuple(nodes)), Precision.default(bits))
        steps = [step.cost for step in plan.steps if step.name.split("/")[0] == "f"]
        costs.append(sum(cost.total("offline") + cost.total("online") for cost in steps))
    assert costs[0] < costs[1] < 8 * costs[0]


def test_kinds_of_steps():
    net = Builder(3, 9, 9)
    x = net.node("smooth", net.conv("input", 4), **activation("silu"))
    plan = schedule(*net.output(net.conv(x, 5))[:1], Precision.default(48))
    assert kinds(plan) == ["input", "conv", "smooth", "smooth", "smooth", "smooth", "truncation", "smooth", "conv", "output"]
    assert [step.name for step in plan.steps][2:8] == [f"{x}/{part}" for part in ("relu", "size", "clamp", "curve", "curve/truncation")] + [
        x
    ]


def test_the_range_of_the_table_counts_for_headroom():
    """Values of a small range are shifted by the table's start, which their scale must leave room for."""
    net = Builder(3, 6, 6)
    x = net.node("smooth", net.conv("input", 4, gain=1e-3), **activation("mish"))
    graph, weights = net.output(net.conv(x, 2))
    weights["conv1"]["bias"][:] = 0
    ranges = measure(graph, weights, images_for(graph, 2))
    made = pieces("mish", 1.0, 16)
    assert ranges.sums[x] == pytest.approx(made.span - made.start + ranges.values["conv1"])
    plan = schedule(graph, Precision(32, 11, {"conv1": 16}))
    shifted = [bound for bound in bounds(plan) if bound.step == f"{x}/shifted"]
    assert [(bound.node, bound.decided, bound.exponent) for bound in shifted] == [(x, True, 30 - 27)]
    assert room(plan, ranges)[f"{x}/shifted"][1] < 0
    assert served((graph, weights), 32).public.precision.of_weights("conv1") < 16


@pytest.mark.parametrize("function", ("silu", "gelu"))
def test_small_values_keep_less_than_the_table_spans(function):
    """Weights of 28 fractional bits leave values 28, of which a truncation keeps 32 in all: the table's end is none of these."""
    net = Builder(3, 6, 6)
    x = net.node("smooth", net.conv("input", 4, gain=0.03), **activation(function))
    graph, weights = net.output(net.conv(x, 2, gain=30.0))
    weights["conv1"]["bias"][:] = 0
    precision = Precision(48, 16, {"conv1": 28})
    plan = schedule(graph, precision)
    assert pieces(function, 1.0, 16).span * 2.0**28 > 2**30
    assert max(step.protocol.clip or 0 for step in plan.steps if isinstance(step, ReluStep)) == 2**30 - 1
    check(graph, weights, 48, precision=precision, tolerance=0.02)


def test_a_window_too_coarse_for_the_rows_is_refused():
    net = Builder(3, 6, 6)
    graph, weights = net.output(net.node("smooth", net.conv("input", 4), **activation("silu")))
    with pytest.raises(InputError, match="the window of comparisons starts too high for silu"):
        schedule(graph, dataclasses.replace(Precision.default(48), window=(30, 40)))


@pytest.mark.parametrize("bits", (48, 32))
def test_what_is_made_of_smooth_and_bent_activations(bits):
    """SELU, log-sigmoid, GLU, softshrink and a border of a constant, one after the other, on shares."""
    layers = [nn.Conv2d(3, 8, 3), nn.SELU(), nn.ConstantPad2d(1, 0.5), nn.Conv2d(8, 8, 3), nn.LogSigmoid(), nn.GLU(1), nn.Softshrink(0.1)]
    torch.manual_seed(0)
    graph, weights = standard_passes(*import_module(nn.Sequential(*layers, nn.Conv2d(4, 5, 3)).eval(), torch.zeros(1, 3, 9, 9)))
    precision = calibrate(graph, weights, images_for(graph, 2), bits)
    check(graph, weights, bits, precision=precision, tolerance=0.005 if bits == 48 else 0.03)
