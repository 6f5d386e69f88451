"""The cleartext twin against the secure run, step by step and as a whole, and the chance that it draws against the secure run's."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graph import building
from tests.graph.building import Builder
from tests.protocol import harness
from threepc.errors import InputError
from threepc.graph.relu_spec import relu_nodes
from threepc.images.card import ModelCard, Preprocessing
from threepc.kernels.gate import Cut
from threepc.model.served import PublicModel, ServedModel
from threepc.party import debug
from threepc.party.one_host import ThreeThreads
from threepc.plan import twin
from threepc.plan.calibration import calibrate
from threepc.plan.headroom import measure
from threepc.plan.narrowing import narrow
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.plan.twin import Rounding
from threepc.protocol.relu import Relu
from threepc.protocol.steps import RAW, REDUCED
from threepc.protocol.summands import cut_summand

RINGS = [64, 48, 40, 32, 24]
"""Of those below 32 bits the narrowest."""
CARD = ModelCard("small", Preprocessing(size=(8, 8)))


def images_for(graph, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *graph.input.shape)).clip(-3, 3).astype(np.float32)


def block_spec(graph, seed):
    rng, sizes = np.random.default_rng(seed), {}
    for node in relu_nodes(graph):
        channels, height, width = node.shape
        patches = [(int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))) for _ in range(channels)]
        sizes[node.name] = tuple([*patches, (1, 0), (0, 1), (1, 1)][rng.integers(channels + 3)] for _ in range(channels))
    return sizes


def served(network, bits, sizes=None, window=None, reveal="logits", narrowed=False):
    graph, weights = network
    images = images_for(graph, 4, seed=9)
    precision = calibrate(graph, weights, images, bits, sizes=sizes)
    if narrowed:
        precision = narrow(graph, measure(graph, weights, images, sizes), precision, sizes=sizes)
    return ServedModel(PublicModel(graph, dataclasses.replace(precision, window=window), sizes, CARD, reveal), weights)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("network", [building.residual, building.mobile, building.branching, building.gated, building.bent, building.heads])
def test_secure_run_and_twin_agree_at_every_step(network, bits):
    model = served(network(), bits)
    run = debug.trace(model, images_for(model.public.graph, 2))
    assert run.first_fault is None
    assert [row.name for row in run.rows] == [step.name for step in model.public.plan(2).steps]
    for row in run.rows:
        if row.clear_error is not None and row.kind not in ("input", "output"):
            assert row.clear_error <= 3 * row.expected


@settings(max_examples=12)
@given(
    network=st.sampled_from([building.residual, building.mobile, building.branching, building.bent]),
    bits=st.sampled_from(RINGS),
    seed=st.integers(0, 2**16),
    window=st.sampled_from([None, (16, 28), (17, 29), (10, 27)]),
    reveal=st.sampled_from(["logits", "label"]),
    block=st.booleans(),
)
def test_they_agree_for_block_relus_windows_and_labels(network, bits, seed, window, reveal, block):
    network, window = network(), window if window is None or window[1] <= bits - 2 else None
    model = served(network, bits, block_spec(network[0], seed) if block else None, window, reveal, narrowed=window is None)
    rows = debug.trace(model, images_for(model.public.graph, 2)).rows
    assert [row for row in rows if row.error > row.bound] == []


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("network", [building.residual, building.mobile, building.branching, building.gated, building.bent])
def test_drawn_results_are_distributed_as_those_of_parties_in_threads(network, bits):
    model, count = served(network(), bits), 256
    plan, images = model.public.plan(count), np.repeat(images_for(model.public.graph, 1, seed=20), count, axis=0)
    with ThreeThreads(model) as parties:
        secure = parties.infer(images)[0].reshape(count, -1)
    drawn = twin.simulate(plan, twin.pack(plan, model.weights), images, seed=1)[plan.graph.output.name].reshape(count, -1)
    error_of_means = np.sqrt((secure.var(axis=0) + drawn.var(axis=0)) / count)
    assert (np.abs(secure.mean(axis=0) - drawn.mean(axis=0)) <= 5 * error_of_means).all()
    assert 0.8 < np.sqrt(secure.var(axis=0).mean() / drawn.var(axis=0).mean()) < 1.25


@pytest.mark.parametrize("bits", RINGS)
def test_without_comparisons_they_differ_by_the_output_s_rounding_alone(bits):
    net = Builder(3, 6, 5)
    model = served(net.output(net.conv(net.conv("input", 4), 2)), bits)
    images = images_for(model.public.graph, 2)
    run = debug.trace(model, images)
    kinds = [row.kind for row in run.rows]
    assert kinds == ["input", "conv", "truncation", "conv", "output"]
    ran = twin.simulate(model.public.plan(2), twin.pack(model.public.plan(2), model.weights), images, keep=["conv1", "conv2"])
    assert list(ran) == ["conv1", "conv2", "output3"]
    np.testing.assert_array_equal(ran["conv2"], ran["output3"])
    # the truncation's unit passes through the second layer's weights
    weight = np.abs(model.weights["conv2"]["weight"]).sum(axis=(1, 2, 3)).max()
    assert np.abs(run.outputs - ran["output3"]).max() <= (1.01 * weight + 0.5) * 2.0**-model.public.precision.fraction


@settings(max_examples=20)
@given(bits=st.sampled_from(RINGS), shift=st.integers(1, 16), form=st.sampled_from([RAW, REDUCED]), seed=st.integers(0, 99))
def test_drawn_truncation_has_the_distribution_of_separately_cut_summands(bits, shift, form, seed):
    rng = np.random.default_rng(seed)
    largest = 1 << min(24, bits - 2)
    z = np.full(40000, rng.integers(-largest, largest))
    client, server, provider = harness.shares(rng, z, bits)
    if form == REDUCED:
        server, provider = server - provider, np.zeros_like(provider)
    cut = Cut(bits, shift, bits - shift)
    words = cut_summand(client, cut, False) + cut_summand(server, cut, True) - cut_summand(provider, cut, False)
    real = twin.signed(words, cut.kept_bits) - z / 2.0**shift
    drawn = Rounding(seed).cut(twin.to_words(z, bits), cut, form == RAW) - z / 2.0**shift
    nearest = Rounding().cut(twin.to_words(z, bits), cut) - z / 2.0**shift
    assert np.abs(nearest).max() <= 0.5 and max(np.abs(real).max(), np.abs(drawn).max()) <= 1.5
    outcomes, counts = np.unique(real, return_counts=True)
    for outcome, count in zip(outcomes, counts):
        assert abs((drawn == outcome).mean() - count / len(z)) < 0.02
    bias = -0.5 if form == REDUCED else 0.0  # two summands lose half a unit each, and half a unit is added; of three, one is subtracted
    assert abs(drawn.mean() - bias) <= 2.0**-shift + 0.02


@settings(max_examples=8)
@given(seed=st.integers(0, 99), low=st.integers(0, 6), width=st.integers(4, 9))
def test_sign_errors_of_an_approximate_window_are_as_frequent_as_in_the_protocol(seed, low, width):
    rng = np.random.default_rng(seed)
    x = rng.integers(-(1 << 17), 1 << 17, (1, 6, 50, 100))
    x[:, :3] = rng.integers(-(1 << low) - 2, 1 << low, x[:, :3].shape)  # where ignored bits matter
    protocol = Relu(0, x.shape, cut=Cut(32, 0, 32), ring=48, low_bit=low, width=width)
    results, _ = harness.run(protocol, harness.shares(rng, x, 32))
    secure = harness.opened(results, 48)
    ran = twin.signed(twin.relu(protocol, x, Rounding(seed)), 48)
    certain = x % (1 << low) == 0
    np.testing.assert_array_equal(secure[certain], ran[certain])
    assert set(np.unique(secure - np.where(secure == x, x, 0))) == {0}
    for part in (slice(0, 3), slice(3, 6)):
        assert abs((secure[:, part] != 0).mean() - (ran[:, part] != 0).mean()) < 0.03


def test_values_outside_the_bound_go_wrong_as_often_as_in_the_protocol():
    rng = np.random.default_rng(1)
    inside, outside = 1 << 14, int(1.4 * (1 << 15))
    x = np.full((1, 1, 200, 200), outside)
    x[..., :100] = inside
    protocol = Relu(0, x.shape, cut=Cut(32, 15, 17), ring=32, low_bit=0, width=15, sizes=((0, 1),))
    results, _ = harness.run(protocol, harness.shares(rng, x << 15, 32))
    secure = harness.opened(results, 32)
    rounding = Rounding(seed=2)
    ran = twin.signed(twin.relu(protocol, twin.wrapped(x, 17), rounding), 32)
    assert rounding.outside == x.size // 2
    assert np.abs(secure[..., :100] - inside).max() <= 1 and (ran[..., :100] == inside).all()
    for value in np.unique(ran[..., 100:]):
        share = (np.abs(secure[..., 100:] - value) <= 1).mean()
        assert abs(share - (ran[..., 100:] == value).mean()) < 0.03


@given(number=st.integers(-(1 << 63), (1 << 63) - 1), bits=st.integers(1, 64))
def test_words_stand_for_signed_numbers(number, bits):
    wrapped = int(twin.wrapped(np.array([number]), bits)[0])
    assert (wrapped - number) % (1 << bits) == 0 and -(1 << (bits - 1)) <= wrapped < 1 << (bits - 1)


def test_the_same_seed_draws_the_same_and_batches_are_checked():
    model = served(building.residual(), 32)
    plan, images = model.public.plan(2), images_for(model.public.graph, 2)
    packed = twin.pack(plan, model.weights)
    one, two, other = (twin.simulate(plan, packed, images, seed=seed)[plan.graph.output.name] for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    with pytest.raises(InputError, match="for 2 images at once, not for 1"):
        twin.simulate(plan, packed, images[:1])
    with pytest.raises(InputError, match=r"the image: size .* does not fit"):
        twin.simulate(plan, packed, images + 1000)
    with pytest.raises(InputError, match="takes images of shape"):
        twin.simulate(plan, packed, images[..., 1:])
    plan = schedule(model.public.graph, Precision(32, 12))
    with pytest.raises(InputError, match="the weights of conv1"):
        twin.pack(plan, model.weights | {"conv1": {key: part * 1e9 for key, part in model.weights["conv1"].items()}})
