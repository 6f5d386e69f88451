import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.graph import relu_spec
from threepc.graph.ir import Graph, Node
from threepc.graph.relu_spec import patch_counts

LAYERS = {"relu": [[2, 3], [1, 0], [0, 1]], "clip": [[1, 1], [5, 7], [5, 1], [2, 2]]}


def test_round_trip(tmp_path, small_graph):
    spec = relu_spec.ReluSpec("small", LAYERS, {"method": "by hand"})
    relu_spec.save(spec, tmp_path / "specs" / "s.json")
    again = relu_spec.load(tmp_path / "specs" / "s.json")
    assert again.to_json() == spec.to_json() and again.provenance == {"method": "by hand"}
    assert json.loads(spec.to_json())["layers"] == LAYERS
    assert [path.name for path in (tmp_path / "specs").iterdir()] == ["s.json"]
    relu_spec.check(again, small_graph)


def test_drelus_by_hand(small_graph):
    spec = relu_spec.ReluSpec("small", LAYERS)
    # 3 x 3 patches of 2x3 on 5x7; a clip decides twice on each of 35 + 1 + 7 + 12 patches.
    assert relu_spec.drelus(spec, small_graph) == {"relu": 9, "clip": 2 * (35 + 1 + 7 + 12)}
    assert relu_spec.full_drelus(small_graph) == {"relu": 105, "clip": 280}
    rows = relu_spec.show(spec, small_graph)
    assert rows[-1]["drelus"] == 119 and rows[-1]["full"] == 385
    assert rows[0]["patches"] == "2x3 x 1, zero x 1, identity x 1"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_patch_counts(height, width, rows, columns):
    starts = {(top // height, left // width) for top in range(rows) for left in range(columns)}
    assert patch_counts(np.array([height, width]), rows, columns) == len(starts)


def test_uniform_is_clipped_and_fits(small_graph):
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    pooled = Graph(
        (
            Node("input", "input", (), (2, 8, 8)),
            Node("large", "relu", ("input",), (2, 8, 8)),
            Node("pool", "maxpool", ("large",), (2, 4, 4), pool),
            Node("small", "relu", ("pool",), (2, 4, 4)),
            Node("output", "output", ("small",), (2, 4, 4)),
        )
    )
    spec = relu_spec.uniform(pooled, 6, 3)
    relu_spec.check(spec, pooled)
    assert {name: patches.tolist() for name, patches in spec.layers.items()} == {"large": [[6, 3]] * 2, "small": [[4, 3]] * 2}
    with pytest.raises(InputError, match="the patch 6x8 is larger than every map of this network: at most 5x7"):
        relu_spec.uniform(small_graph, 6, 8)
    assert sum(relu_spec.drelus(relu_spec.uniform(small_graph, 1, 0), small_graph).values()) == 0
    with pytest.raises(InputError, match="no patch size"):
        relu_spec.uniform(small_graph, 0, 4)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON: Expecting property name"),
        ("[]", "a relu spec is a JSON object"),
        ('{"version": 2}', "'version' is 2"),
        ('{"version": 1, "model": "m"}', "'layers' is missing"),
        ('{"version": 1, "model": "m", "layers": {}}', "at least one ReLU"),
        ('{"version": 1, "model": 3, "layers": {"relu": [[1, 1]]}}', "'model' must be a string"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[1, 1]]}, "extra": 1}', "unknown key 'extra'"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[1, 1]], "relu": [[1, 1]]}}', "the key 'relu' occurs twice"),
        ('{"version": 1, "model": "m", "layers": {"relu": []}}', "layer 'relu'"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[1, 1], [0, 0]]}}', r"layer 'relu', channel 1: \[0, 0\]"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[2, 0]]}}', r"\[2, 0\] is no patch size"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[0, 2]]}}', r"\[0, 2\] is no patch size"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[-1, 2]]}}', "no patch size"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[1.0, 2]]}}', "not a pair of integers"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[true, 1]]}}', "not a pair of integers"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[1, 1, 1]]}}', "not a pair of integers"),
        ('{"version": 1, "model": "m", "layers": {"relu": [[99999999, 1]]}}', "no patch size"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        relu_spec.load(path)
    assert "bad.json" in str(caught.value)


def test_missing_file():
    with pytest.raises(InputError, match=r"cannot read the relu spec nowhere.json"):
        relu_spec.load("nowhere.json")


@pytest.mark.parametrize(
    "layers, message",
    [
        (LAYERS | {"stem": [[1, 1]]}, "layer 'stem' is not a ReLU of this network"),
        ({"relu": LAYERS["relu"]}, "'clip' of this network is missing"),
        (LAYERS | {"relu": [[1, 1]]}, "layer 'relu' has 1 patch sizes, the network's has 3 channels"),
        (
            LAYERS | {"relu": [[1, 1], [6, 1], [1, 1]]},
            r"layer 'relu', channel 1: the patch \[6, 1\] is larger than the feature map \(5x7\)",
        ),
    ],
)
def test_spec_of_another_network(small_graph, layers, message):
    with pytest.raises(InputError, match=message):
        relu_spec.check(relu_spec.ReluSpec("other", layers), small_graph)
