"""What a server serves: the facts that every report takes from it, and outputs as the network itself gives them."""

import dataclasses
import json

import numpy as np
import pytest

from tests.graph import building
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel, ServedModel
from threepc.plan.precision import Precision

CARD = ModelCard("small", Preprocessing(size=(19, 21)))


@pytest.fixture
def served():
    graph, weights = building.residual()
    return ServedModel(PublicModel(graph, Precision.default(48), None, CARD), weights)


def test_facts_of_a_report(served):
    public, plan = served.public, served.public.plan(1)
    facts = public.facts(3, "specs/a.json")
    assert (facts["model"], facts["fingerprint"], facts["relu_spec"], facts["images"]) == ("small", public.fingerprint, "specs/a.json", 3)
    assert (facts["ring_bits"], facts["frac_bits"], facts["drelu_window"]) == (48, 16, [16, 46])
    assert (facts["relus"], facts["drelus"]) == (3 * plan.relus, 3 * plan.drelus) and plan.drelus >= plan.relus > 0


def test_a_window_is_reported_in_bits_of_a_product(served):
    precision = dataclasses.replace(served.public.precision, window=(20, 40))
    assert dataclasses.replace(served.public, precision=precision).facts(1, None)["drelu_window"] == [20, 40]


def test_bits_that_a_layer_compares_are_reported_travel_and_are_the_model_s(served):
    relu = next(node.name for node in served.public.graph.nodes if node.kind == "relu")
    public = dataclasses.replace(served.public, precision=dataclasses.replace(served.public.precision, compared={relu: (3, 20)}))
    assert public.facts(1, None)["compared_bits"] == {relu: [3, 20]} and public.fingerprint != served.public.fingerprint
    assert PublicModel.from_plain(json.loads(json.dumps(public.to_plain()))).fingerprint == public.fingerprint
    (step,) = (step for step in public.plan(1).steps if step.name == relu)
    assert (step.protocol.low_bit, step.protocol.width) == (3, 20)
    for wrong in (
        {"conv": [0, 5]},
        {relu: [0, 40]},
        {relu: [3]},
        {relu: 5},
        {relu: [0, 0]},
        {relu: [-1, 4]},
        {relu: [0, 5.0]},
        {relu: [False, 5]},
        [relu],
    ):
        plain = public.to_plain()
        with pytest.raises(InputError, match="precision"):
            PublicModel.from_plain(plain | {"precision": plain["precision"] | {"compared": wrong}})


def test_plans_are_kept(served):
    assert served.public.plan(2) is served.public.plan(2) and served.public.plan(2).batch == 2


def test_outputs_as_the_network_gives_them(served):
    logits = np.arange(24.0).reshape(2, 3, 2, 2)
    labelled = dataclasses.replace(served.public, reveal="label")
    np.testing.assert_array_equal(served.public.network_outputs(logits), logits)
    assert served.public.network_outputs(logits[:, :, :1, :1]).shape == (2, 3)
    classes = labelled.network_outputs(logits[:, :1])
    assert classes.shape == (2, 2, 2) and classes.dtype == np.int64
    assert labelled.network_outputs(logits[:, :1, :1, :1]).tolist() == [0, 12]


def test_the_public_part_travels_as_json(served):
    public = served.public
    assert PublicModel.from_plain(public.to_plain()).fingerprint == public.fingerprint
    for change in ({"more": 1}, {"graph": 3}, {"sizes": [1]}, {"sizes": {"relu": [[1]]}}, {"sizes": {"relu": [[1, -1]]}}):
        with pytest.raises(InputError, match="the server's"):
            PublicModel.from_plain(public.to_plain() | change)


@pytest.mark.parametrize("key, words, more", [("quick", "two messages", -2), ("late", "six messages", 2)])
def test_layers_of_two_or_six_messages_travel_where_there_are_any(served, key, words, more):
    assert key not in served.public.to_plain()
    relu = next(node.name for node in served.public.graph.nodes if node.kind == "relu")
    chosen = dataclasses.replace(served.public, **{key: (relu,)})
    again = PublicModel.from_plain(chosen.to_plain())
    assert getattr(again, key) == (relu,) and again.fingerprint == chosen.fingerprint != served.public.fingerprint
    assert again.plan(1).cost.messages == served.public.plan(1).cost.messages + more
    for wrong in (3, [3], {"relu": 1}, ["input"]):
        with pytest.raises(InputError, match=words):
            PublicModel.from_plain(served.public.to_plain() | {key: wrong})


def test_a_model_in_a_file_is_the_same_model(served, tmp_path):
    with (tmp_path / "model").open("w+b") as file:
        served.write(file)
        again = ServedModel.read(file)
        assert again.public.fingerprint == served.public.fingerprint and set(again.weights) == set(served.weights)
        for name, part in served.weights.items():
            for key, array in part.items():
                np.testing.assert_array_equal(again.weights[name][key], array)


def test_shared_weights_are_in_a_file_once(tmp_path):
    sizes = []
    for shared in (True, False):
        graph, weights = building.twins(shared)
        with (tmp_path / "model").open("w+b") as file:
            ServedModel(PublicModel(graph, Precision.default(48), None, CARD), weights).write(file)
            sizes.append(file.tell())
            again = ServedModel.read(file)
            for name, part in weights.items():
                np.testing.assert_array_equal(again.weights[name]["weight"], part["weight"])
                np.testing.assert_array_equal(again.weights[name]["bias"], part["bias"])
    assert sizes[0] < sizes[1] - weights["conv1"]["weight"].nbytes // 2


def test_weights_of_another_network_are_refused(served):
    with pytest.raises(InputError, match="'elsewhere' is not a conv node"):
        ServedModel(served.public, served.weights | {"elsewhere": {}})
