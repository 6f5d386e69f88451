"""Schedules run: the three roles on a plan agree with the network in the clear, at the cost that the plan declares."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.graph.building import Builder, branching, gated, heads, mobile, residual, twins
from tests.protocol.harness import network_trio, run_network, without_zeros
from threepc.errors import InputError
from threepc.graph.clear import evaluate
from threepc.graph.ir import Graph
from threepc.plan.precision import DEEPEST_TRUNCATION, Precision
from threepc.plan.schedule import fingerprint, schedule
from threepc.protocol.steps import OutputStep

MODELS = {"residual": residual, "mobile": mobile, "branching": branching, "gated": gated}


def check(graph, weights, bits=48, batch=1, sizes=None, tolerance=0.005, precision=None, seed=0, threads=1):
    """Run a plan: the largest error is below `tolerance` of the largest logit, the cost as declared. The plan, its logits, the truth."""
    precision = precision or Precision.default(bits)
    plan = schedule(graph, precision, sizes, batch)
    images = np.random.default_rng(seed).normal(size=(batch, *graph.input.shape))
    trio = network_trio(plan, weights, threads=threads)
    got = run_network(trio, plan, images)
    clear = evaluate(graph, weights, torch.from_numpy(images))[graph.output.name].numpy()
    assert got.shape == clear.shape
    if tolerance is not None:
        assert np.abs(got - clear).max() < tolerance * np.abs(clear).max()
    assert trio.measured == without_zeros(plan.cost)
    return plan, got, clear


@pytest.mark.parametrize("batch", (1, 4))
@pytest.mark.parametrize("bits", (64, 48))
@pytest.mark.parametrize("name", MODELS)
def test_networks(name, bits, batch):
    check(*MODELS[name](), bits, batch)


@pytest.mark.parametrize("bits", (40, 32))
@pytest.mark.parametrize("name", MODELS)
def test_networks_in_small_rings(name, bits):
    """12 bits for activations; in the 32-bit ring a range of 2^6 is left."""
    check(*MODELS[name](), bits, tolerance=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_activations_of_more_bits_than_a_lift(name):
    graph, weights = MODELS[name]()
    weight_bits = {node.name: 14 for node in graph.nodes if node.kind == "conv"}
    check(graph, weights, precision=Precision(48, 19, weight_bits, truncation=DEEPEST_TRUNCATION))


@pytest.mark.parametrize("name", MODELS)
def test_two_threads(name):
    check(*MODELS[name](), threads=2)


@pytest.mark.parametrize("bits", (48, 32))
def test_weights_that_two_layers_use_are_sent_once(bits):
    plan, got, _ = check(*twins(), bits, tolerance=0.02)
    apart, alike, _ = check(*twins(shared=False), bits, tolerance=0.02)
    first, second, last = plan.linear
    assert plan.holding == [first, last] and apart.holding == apart.linear
    assert second.cost.setup == {} and plan.cost.offline == apart.cost.offline and plan.cost.online == apart.cost.online
    assert sum(plan.cost.setup.values()) == sum(apart.cost.setup.values()) - sum(first.cost.setup.values())
    np.testing.assert_allclose(got, alike, atol=0.02 * np.abs(alike).max())


def test_shared_weights_have_the_fractional_bits_of_those_that_they_are():
    graph, weights = twins()
    first, second, _ = (node.name for node in graph.nodes if node.kind == "conv")
    precision = Precision(48, 16, weight_fraction={first: 12})
    plan, *_ = check(graph, weights, precision=precision)
    assert [step.result.fraction - step.inputs[0].fraction for step in plan.linear] == [12, 12, 16]
    with pytest.raises(InputError, match=f"precision: '{second}' has the weights of '{first}'"):
        schedule(graph, dataclasses.replace(precision, weight_fraction={second: 12}))


def kinds(plan):
    return [step.kind for step in plan.steps]


@pytest.mark.parametrize("bits", (64, 48))
def test_convolutions_without_relu_between_are_truncated_once(bits):
    net = Builder(3, 9, 9)
    x = net.conv("input", 4)
    plan, *_ = check(*net.output(net.add(net.conv(x, 5), net.conv(x, 5, 1))), bits)
    assert kinds(plan) == ["input", "conv", "truncation", "conv", "conv", "add", "output"]


@pytest.mark.parametrize("bits", (64, 48))
def test_pooling_between_convolutions(bits):
    net = Builder(3, 11, 12)
    plan, *_ = check(*net.output(net.conv(net.maxpool(net.conv("input", 4), 3, 2, 1), 5)), bits)
    assert kinds(plan) == ["input", "conv", "maxpool", "truncation", "conv", "output"]


@pytest.mark.parametrize("bits", (64, 48))
def test_preactivation_with_a_shared_sum(bits):
    """The sum is read raw by a ReLU and by the next sum."""
    net = Builder(3, 9, 9)
    x = net.conv("input", 6)
    for _ in range(2):
        x = net.add(x, net.conv(net.relu(net.conv(net.relu(x), 6)), 6, gain=0.5))
    check(*net.output(net.conv(net.avgpool(net.relu(x)), 5, 1)), bits, batch=2)


@pytest.mark.parametrize("bits", (64, 48))
@pytest.mark.parametrize("kernel, padding", [(3, 0), (3, 1), (2, 0), (4, 0)])
@pytest.mark.parametrize("first", ("relu", "conv"))
def test_average_in_the_middle(bits, kernel, padding, first):
    """Divisors 9, 4 and 16, of a reduced and of a raw value, then a ReLU."""
    net = Builder(3, 11, 10)
    x = net.conv("input", 4)
    x = net.avgpool(net.relu(x) if first == "relu" else x, kernel, 2, padding)
    check(*net.output(net.conv(net.relu(x), 5)), bits)


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
@pytest.mark.parametrize("size", ((9, 9), (65, 65)))
def test_average_of_large_maps(bits, size):
    """4,225 values: the sum takes 13 bits more than the average."""
    net = Builder(2, *size)
    net.conv("input", 3, 1)
    check(*net.output(net.conv(net.relu(net.avgpool(net.relu("conv1"))), 5, 1)), bits, tolerance=0.02 if bits < 48 else 0.005)


@pytest.mark.parametrize("bits", (64, 48))
def test_relu_and_clip_of_reduced_values(bits):
    net = Builder(3, 8, 9)
    x = net.relu("input")
    x = net.add(net.relu(net.conv(x, 3)), x, net.clip("input", 0.75))
    check(*net.output(net.concat(net.relu(x), net.clip(x, 2.0))), bits)


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
def test_differences_of_raw_and_reduced_values(bits):
    net = Builder(3, 8, 9)
    x, y = net.conv("input", 4), net.relu(net.conv("input", 4))
    first, second = net.node("add", y, x, signs=[1, -1]), net.node("add", net.relu(x), y, x, signs=[-1, 1, -1])
    check(*net.output(net.conv(net.relu(net.node("add", first, second, signs=[-1, -1])), 3)), bits, tolerance=0.02 if bits < 48 else 0.005)


@pytest.mark.parametrize("bits", (64, 48))
@pytest.mark.parametrize("order", (0, 1))
def test_concatenation_of_raw_reduced_and_pooled(bits, order):
    net = Builder(3, 8, 8)
    x = net.relu(net.conv("input", 4))
    parts = [net.conv(x, 2), x, net.maxpool(net.conv(x, 2), 3, 1, 1)]
    x = net.concat(*parts[:: -1 if order else 1])
    check(*net.output(net.conv(net.relu(x), 3)), bits)


MOVES = [["take", 1, 6, -2, 4], ["reshape", [2, 2, 4, 8]], ["permute", [1, 0, 2, 3]], ["index", 3, [0, -1, 7, 7]], ["reshape", [4, 8, 2]]]
RESAMPLES = {
    "exact": {"rows": ["linear", 16, False, 0.5], "columns": []},
    "both": {"rows": ["linear", 16, False, 0.5], "columns": ["linear", 5, True, 1.0]},
    "rounded": {"rows": ["adaptive", 3], "columns": ["window", 4, 3, 2, 1, 1]},
}


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
@pytest.mark.parametrize("last", ["gather", *RESAMPLES])
def test_moved_and_resampled_values_of_every_form(last, bits):
    net = Builder(3, 8, 8)
    raw = net.conv("input", 4)
    reduced, pooled = net.relu(raw), net.maxpool(net.conv(net.relu(raw), 4), 3, 1, 1)
    if last == "gather":
        made = [net.node("gather", x, moves=MOVES) for x in (raw, reduced, pooled)]
    else:
        made = [net.node("resample", x, **RESAMPLES[last]) for x in (raw, reduced, pooled)]
    loss = 0.002 if last != "rounded" or bits > 40 else 0.02 if bits == 40 else 0.1
    x = net.add(net.conv(made[1], 4), made[0], net.relu(made[2]))
    check(*net.output(net.conv(net.relu(x), 3)), bits, tolerance=max(loss, 0.02 if bits < 48 else 0.005))


FORMS = "input", "relu", "average", "average of 9", "raw average", "maxpool", "raw maxpool", "clip", "sum", "reshape", "gather", "resample"


@pytest.mark.parametrize("bits", (64, 48))
@pytest.mark.parametrize("last", FORMS)
def test_outputs_of_every_form(bits, last):
    net = Builder(3, 6, 8)
    x = net.conv("input", 4)
    ends = {
        "input": lambda: "input",
        "relu": lambda: net.relu(x),
        "average": lambda: net.avgpool(net.relu(x), 2, 2),
        "average of 9": lambda: net.avgpool(net.relu(x), 3, 1),
        "raw average": lambda: net.avgpool(x, 2, 2),
        "maxpool": lambda: net.maxpool(net.relu(x)),
        "raw maxpool": lambda: net.maxpool(x),
        "clip": lambda: net.clip(x, 1.0),
        "sum": lambda: net.add(net.relu(x), x),
        "reshape": lambda: net.flat(net.maxpool(x)),
        "gather": lambda: net.node("gather", net.maxpool(x), moves=[["permute", [2, 0, 1]]]),
        "resample": lambda: net.node("resample", net.maxpool(x), rows=["linear", 5, True, 1.0], columns=[]),
    }
    check(*net.output(ends[last]()), bits, batch=2)


@pytest.mark.parametrize("bits", (64, 48))
def test_max_pooling_of_any_step(bits):
    net = Builder(2, 10, 9)
    x = net.relu(net.conv("input", 3))
    check(*net.output(net.concat(net.maxpool(x, 5, 1, 2), net.maxpool(net.maxpool(x, 3, 1, 1), 3, 1, 1), x)), bits)


def test_pooling_of_a_sum_of_pooled_values():
    net = Builder(2, 9, 9)
    x = net.conv("input", 4)
    y = net.add(net.maxpool(x, 3, 2, 1), net.conv(net.relu(x), 4, 3, 2))
    check(*net.output(net.relu(net.maxpool(y, 2, 1))))


def test_block_relu_in_a_network():
    """Patches whose decision agrees with every pixel's change nothing; a zero channel and an identity do what they say."""
    net = Builder(3, 8, 8)
    x = net.conv("input", 4, 1, gain=0.01)
    net.weights[x]["bias"][:] = (1.0, -1.0, 1.0, -1.0)
    graph, weights = net.output(net.relu(x))
    _, got, clear = check(graph, weights, sizes={"relu2": ((2, 3), (3, 3), (1, 0), (0, 1))}, tolerance=None)
    raw = evaluate(graph, weights, torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 8, 8))), keep=("conv1",))["conv1"].numpy()
    assert np.abs(got[:, :2] - clear[:, :2]).max() < 1e-3
    assert not got[:, 2].any()
    assert np.abs(got[:, 3] - raw[:, 3]).max() < 1e-3 and (got[:, 3] < 0).all()


def test_block_relus_cost_and_count_less():
    graph, _ = residual()
    plain = schedule(graph, Precision())
    sizes = {n.name: ((2, 2),) * n.shape[0] for n in graph.nodes if n.kind == "relu"}
    blocks = schedule(graph, Precision(), sizes)
    assert plain.relus == plain.drelus == blocks.relus == sum(np.prod(n.shape) for n in graph.nodes if n.kind == "relu")
    assert blocks.drelus == sum(n.shape[0] * -(-n.shape[1] // 2) * -(-n.shape[2] // 2) for n in graph.nodes if n.kind == "relu")
    assert blocks.cost.total("online") < plain.cost.total("online") and blocks.cost.total("offline") < plain.cost.total("offline")
    assert blocks.cost.messages == plain.cost.messages


def test_clips_decide_twice():
    graph, _ = mobile()
    plan = schedule(graph, Precision(), batch=3)
    assert plan.drelus == 2 * plan.relus == 6 * sum(np.prod(n.shape) for n in graph.nodes if n.kind == "clip")


def test_cost_is_the_sum_of_the_steps_and_grows_with_the_batch():
    graph, _ = residual()
    plans = [schedule(graph, Precision(), batch=n) for n in (1, 64)]
    assert plans[0].cost.setup == plans[1].cost.setup and plans[0].cost.messages == plans[1].cost.messages
    assert plans[1].cost.total("online") <= 64 * plans[0].cost.total("online")
    assert plans[0].cost.total("online") == sum(step.cost.total("online") for step in plans[0].steps)


@pytest.mark.parametrize("bits", (64, 48))
def test_window_of_the_user(bits):
    """Bits 20 to 40 of the product: values between -2^(20 - 32) and 0 may pass with their own small size, others are decided exactly."""
    net = Builder(2, 16, 16)
    x = net.conv("input", 4)
    graph, weights = net.output(net.relu(x))
    plan, got, clear = check(graph, weights, precision=Precision(bits, 16, window=(20, 40)), tolerance=None)
    assert (plan.steps[2].protocol.low_bit, plan.steps[2].protocol.width) == (4, 20)
    assert np.abs(got - clear).max() < 2.0 ** (20 - 32) + 2.0**-14


def test_narrow_window_changes_signs_of_large_values_only():
    net = Builder(2, 16, 16)
    graph, weights = net.output(net.relu(net.conv("input", 4)))
    _, got, clear = check(graph, weights, precision=Precision(48, 16, window=(16, 32)), tolerance=None)
    raw = evaluate(graph, weights, torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, 16, 16))), keep=("conv1",))["conv1"].numpy()
    inside = np.abs(raw) < 0.99
    assert inside.any() and (~inside).any()
    assert np.abs(got - clear)[inside].max() < 2.0**-13
    assert np.minimum(np.abs(got), np.abs(got - raw)).max() < 2.0**-13


def test_window_outside_what_is_left():
    graph, _ = residual()
    with pytest.raises(InputError, match="nothing of it is left"):
        schedule(graph, Precision(48, 16, window=(2, 10)))


def test_averages_of_averages_are_truncated_in_between():
    net = Builder(2, 60, 60)
    x = net.relu("input")
    for _ in range(3):
        x = net.avgpool(x, 8, 2)
    check(*net.output(net.relu(x)))


def test_truncations_that_a_gate_cannot_lift_are_refused_by_name():
    net = Builder(2, 8, 8)
    x = net.node("avgpool", "input", kernel=[1, 1], stride=[1, 1], padding=[0] * 4, divisor=2.0**17)
    graph, _ = net.output(net.relu(x))
    with pytest.raises(InputError, match="avgpool1: a truncation by 17 bits"):
        schedule(graph, Precision(48, 16))


def test_fingerprint_covers_graph_precision_and_patches():
    graph, other = residual()[0], mobile()[0]
    name = next(n.name for n in graph.nodes if n.kind == "relu")
    sizes = {name: ((1, 1),) * 8}
    prints = [
        fingerprint(graph, Precision(), None),
        fingerprint(other, Precision(), None),
        fingerprint(graph, Precision(64), None),
        fingerprint(graph, Precision(48, 15), None),
        fingerprint(graph, Precision(48, 16, {"conv1": 15}), None),
        fingerprint(graph, Precision(window=(16, 40)), None),
        fingerprint(graph, Precision(), sizes),
        fingerprint(graph, Precision(), {name: ((1, 1),) * 7 + ((1, 2),)}),
        fingerprint(graph, Precision(), None, "label"),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(residual()[0], Precision(), dict(sizes)) == prints[6]


def test_values_are_released_after_their_last_reader():
    plan = schedule(residual()[0], Precision())
    released = [name for names in plan.release for name in names]
    assert sorted(released) == sorted(step.name for step in plan.steps[:-1])
    for i, names in enumerate(plan.release):
        assert not {s for step in plan.steps[i + 1 :] for s in step.sources} & set(names)


def test_ops_of_a_plan_do_not_overlap():
    """Every step's addresses are its own, up to the next step's first."""
    for build in MODELS.values():
        graph, weights = build()
        plan = schedule(graph, Precision())
        trio = network_trio(plan, weights)
        run_network(trio, plan, np.zeros((1, *graph.input.shape)))
        drawn = [a for name in ("CP", "SP") for _, a in trio.streams[name].drawn]
        blocks = np.concatenate(drawn).view("V16")
        assert len(np.unique(blocks)) == len(blocks), "no block of a keystream is drawn twice"


@pytest.mark.parametrize("bits", (64, 48, 40, 32))
def test_label_alone(bits):
    graph, weights = residual()
    plan = schedule(graph, Precision.default(bits), None, 3, "label")
    images = np.random.default_rng(0).normal(size=(3, *graph.input.shape))
    trio = network_trio(plan, weights)
    got = run_network(trio, plan, images)
    clear = evaluate(graph, weights, torch.from_numpy(images))[graph.output.name].numpy()
    first, second = np.sort(clear, axis=1)[:, -1], np.sort(clear, axis=1)[:, -2]
    sure = first - second > 0.02 * np.abs(clear).max()
    assert sure.any() and got.shape == (3, 1, 1, 1)
    assert np.array_equal(got[sure[:, None]], clear.argmax(axis=1, keepdims=True)[sure[:, None]])
    assert trio.measured == without_zeros(plan.cost)


def test_pooling_without_a_cell_that_every_window_has_is_right_and_one_without_any_is_refused():
    """Padding on both sides of windows that do not overlap."""
    net = Builder(1, 4, 4)
    graph, weights = net.output(net.maxpool("input", 2, 2, 1))
    plan, images = schedule(graph, Precision()), np.random.default_rng(0).normal(size=(1, 1, 4, 4))
    clear = evaluate(graph, weights, torch.from_numpy(images))[graph.output.name].numpy()
    assert np.abs(run_network(network_trio(plan, weights), plan, images) - clear).max() < 1e-3
    with pytest.raises(InputError, match="a max-pooling window would hold padding only"):
        net.maxpool("input", 2, 2, 2)


def test_several_outputs_have_addresses_of_their_own_and_what_nobody_reads_them_for_is_bounded():
    graph, _ = heads()
    plan = schedule(graph, Precision.default(48), batch=2, reveal="label,logits,logits")
    outputs = [step for step in plan.steps if isinstance(step, OutputStep)]
    assert [step.kind for step in outputs] == ["argmax", "output", "output"]
    assert plan.steps[plan.before_results + 1] is outputs[0]
    for make in MODELS.values():  # one output: all steps but the last
        steps = schedule(make()[0], Precision.default(48))
        assert steps.before_results == len(steps.steps) - 2
    twice = Graph((*graph.nodes[:-1], dataclasses.replace(graph.nodes[-1], inputs=graph.outputs[1].inputs, shape=graph.outputs[1].shape)))
    assert len({step.op for step in schedule(twice, Precision.default(48)).steps if isinstance(step, OutputStep)}) == 3
    resized = (dataclasses.replace(node, attrs=node.attrs | {"resize": [6000, 7000, False]}) for node in graph.outputs[1:])
    huge = Graph((*graph.nodes[:-2], *resized))
    with pytest.raises(InputError, match=r"^output/features: resized, the result has more than 1,073,741,824 numbers for 5 images at once"):
        schedule(huge, Precision.default(48), batch=5)
    with pytest.raises(InputError, match=r"^output/boxes: resized, the result has more than 1,073,741,824 numbers for 3 images at once"):
        schedule(huge, Precision.default(48), batch=3)
