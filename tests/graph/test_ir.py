import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import twins
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node, check_weights, relu_names, weight_shape
from threepc.graph.kinds import infer_shape

CONV = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
MEAN = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "divisor": 4.0}

EVERY_KIND = Graph(
    (
        Node("image", "input", (), (3, 8, 8)),
        Node("conv", "conv", ("image",), (4, 4, 4), CONV),
        Node("relu", "relu", ("conv",), (4, 4, 4)),
        Node("clip", "clip", ("conv",), (4, 4, 4), {"max": 6.0}),
        Node("bend", "bend", ("conv",), (4, 4, 4), {"slopes": [0.1, 1.0]}),
        Node("smooth", "smooth", ("conv",), (4, 4, 4), {"function": "elu", "parameter": 0.5}),
        Node("add", "add", ("relu", "clip", "bend", "smooth"), (4, 4, 4)),
        Node("multiply", "multiply", ("add", "relu"), (4, 4, 4)),
        Node("matmul", "matmul", ("multiply", "add"), (4, 4, 4)),
        Node("maxpool", "maxpool", ("matmul",), (4, 2, 2), POOL),
        Node("avgpool", "avgpool", ("maxpool",), (4, 1, 1), MEAN),
        Node("resize", "resize", ("avgpool",), (4, 2, 2), {"size": [2, 2]}),
        Node("concat", "concat", ("maxpool", "resize"), (8, 2, 2)),
        Node("reshape", "reshape", ("concat",), (32, 1, 1)),
        Node("output", "output", ("reshape",), (32, 1, 1), {"resize": [3, 5, True]}),
    )
)


def tampered(change):
    data = json.loads(EVERY_KIND.to_json())
    change(data, {node["name"]: node for node in data["nodes"]})
    return json.dumps(data)


def test_json_round_trip_and_fingerprint():
    text = EVERY_KIND.to_json()
    again = Graph.from_json(json.dumps(json.loads(text), indent=4))
    assert again == EVERY_KIND and again.to_json() == text and again.fingerprint() == EVERY_KIND.fingerprint()
    other = Graph.from_json(tampered(lambda data, nodes: nodes["clip"]["attrs"].update(max=6.5)))
    assert other.fingerprint() != EVERY_KIND.fingerprint()
    assert len(EVERY_KIND.fingerprint()) == 64


SEVERAL = Graph(
    (
        Node("input", "input", (), (3, 4, 4)),
        Node("relu", "relu", ("input",), (3, 4, 4)),
        Node("output/a", "output", ("relu",), (3, 4, 4), {"path": [["dict", "a"]]}),
        Node("output/b", "output", ("input",), (3, 4, 4), {"path": [["dict", "b"]], "resize": [8, 8, False]}),
    )
)


def test_several_outputs_stand_at_the_end():
    assert [node.name for node in SEVERAL.outputs] == ["output/a", "output/b"] and SEVERAL.output.name == "output/b"
    assert not SEVERAL.returns_tensor and EVERY_KIND.returns_tensor and EVERY_KIND.outputs == (EVERY_KIND.output,)
    assert Graph.from_json(SEVERAL.to_json()) == SEVERAL and "path" not in EVERY_KIND.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, n: d["nodes"].insert(1, d["nodes"].pop()), "'output/b': kind: a second node of kind output"),
        (lambda d, n: d["nodes"].append(d["nodes"].pop(1)), "the last of kind output"),
        (lambda d, n: n["output/b"].update(inputs=["output/a"]), "'output/b': inputs: 'output/a' is no earlier node"),
        (lambda d, n: n["output/b"].update(inputs=["relu", "input"]), "'output/b': inputs: a node of kind output has 1"),
        (lambda d, n: n["output/b"]["attrs"].pop("path"), "graph: outputs: each of several must have a path"),
        (lambda d, n: n["output/b"]["attrs"].update(path=[["dict", "a"]]), "graph: outputs: one stands where others do"),
        (lambda d, n: n["output/b"]["attrs"].update(path=[["list", 1]]), "graph: outputs: two kinds of container"),
        (lambda d, n: n["output/b"]["attrs"].update(path=[["dict", "../b"]]), "'output/b': path: must have indices"),
        (lambda d, n: n["output/b"]["attrs"].update(path=[]), "'output/b': path: must be a list of 1 to 8 pairs"),
        (lambda d, n: n["output/b"].update(name="output/a"), "'output/a': name: occurs twice"),
        (lambda d, n: n["relu"]["attrs"].update(path=[["list", 0]]), "'relu': attrs: must be an object with the keys none"),
    ],
)
def test_tampered_outputs_are_refused(change, message):
    data = json.loads(SEVERAL.to_json())
    change(data, {node["name"]: node for node in data["nodes"]})
    with pytest.raises(InputError, match=message):
        Graph.from_json(json.dumps(data))


def test_reading_a_graph():
    assert EVERY_KIND.input.name == "image" and EVERY_KIND.output.name == "output" and EVERY_KIND["clip"].kind == "clip"
    assert [node.name for node in EVERY_KIND.consumers()["conv"]] == ["relu", "clip", "bend", "smooth"]
    assert relu_names(EVERY_KIND) == [("relu", 4, (4, 4)), ("clip", 4, (4, 4))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, n: d.update(version=2), "version must be 1"),
        (lambda d, n: d.update(version=True), "version must be 1"),
        (lambda d, n: d.update(more=1), "exactly the keys version and nodes"),
        (lambda d, n: d.pop("nodes"), "exactly the keys version and nodes"),
        (lambda d, n: d.update(nodes={}), "nodes must be a list"),
        (lambda d, n: d.update(nodes=d["nodes"] * 1000), "more than 10000 nodes"),
        (lambda d, n: d.update(nodes=d["nodes"][:1]), "must have from 2 to 10000 nodes"),
        (lambda d, n: d["nodes"].pop(), "the last of kind output"),
        (lambda d, n: d["nodes"].pop(0), "the first node must be of kind input"),
        (lambda d, n: d["nodes"].insert(3, "relu"), "node number 3: must be an object"),
        (lambda d, n: n["relu"].update(weight=[1]), "node number 2: must be an object with exactly the keys"),
        (lambda d, n: n["relu"].update(name="clip"), "'clip': name: occurs twice"),
        (lambda d, n: n["relu"].update(name=""), "node number 2: name must be"),
        (lambda d, n: n["relu"].update(name="\x1b[2J"), "node number 2: name must be"),
        (lambda d, n: n["relu"].update(name="x" * 257), "node number 2: name must be"),
        (lambda d, n: n["relu"].update(name=["relu"]), "node number 2: name must be"),
        (lambda d, n: n["relu"].update(kind="exec"), "'relu': kind: 'exec' is none of input, conv"),
        (lambda d, n: n["relu"].update(kind=["relu"]), "'relu': kind: a list is none of"),
        (lambda d, n: n["relu"].update(kind="\x1b[2J"), r"'relu': kind: '\\x1b\[2J' is none of"),
        (lambda d, n: n["relu"].update(kind="input"), "'relu': kind: a second node of kind input"),
        (lambda d, n: n["relu"].update(inputs="conv"), "inputs: must be a list"),
        (lambda d, n: n["relu"].update(inputs=[]), "'relu': inputs: a node of kind relu has 1"),
        (lambda d, n: n["relu"].update(inputs=["conv", "conv"]), "'relu': inputs: a node of kind relu has 1"),
        (lambda d, n: n["relu"].update(inputs=["clip"]), "'relu': inputs: 'clip' is no earlier node"),
        (lambda d, n: n["relu"].update(inputs=["relu"]), "'relu': inputs: 'relu' is no earlier node"),
        (lambda d, n: n["relu"].update(inputs=[["conv"]]), "'relu': inputs: a list is no earlier node"),
        (lambda d, n: n["image"].update(inputs=["image"]), "'image': inputs: a node of kind input has 0"),
        (lambda d, n: n["add"].update(inputs=["relu"]), "'add': inputs: a node of kind add has at least 2"),
        (lambda d, n: n["add"].update(inputs=["relu", "image"]), "'add': inputs: their shapes differ"),
        (lambda d, n: n["add"].update(attrs={"signs": [1, 1, 1]}), "'add': signs: must be a list of 1 and -1, with at least one -1"),
        (lambda d, n: n["add"].update(attrs={"signs": [1, -1, 0]}), "'add': signs: must be a list of 1 and -1"),
        (lambda d, n: n["add"].update(attrs={"signs": [1, -1, True]}), "'add': signs: must be a list of 1 and -1"),
        (lambda d, n: n["add"].update(attrs={"signs": [1, -1]}), "'add': signs: must be one for each of the 4 inputs"),
        (lambda d, n: n["multiply"].update(inputs=["relu"]), "'multiply': inputs: a node of kind multiply has 2"),
        (lambda d, n: n["multiply"].update(inputs=["relu"] * 3), "'multiply': inputs: a node of kind multiply has 2"),
        (lambda d, n: n["multiply"].update(inputs=["relu", "image"]), "'multiply': inputs: their shapes do not fit"),
        (lambda d, n: n["matmul"].update(inputs=["relu", "image"]), "'matmul': inputs: their shapes do not fit"),
        (lambda d, n: n["matmul"]["attrs"].update(offset=1.0), "'matmul': attrs: must be an object with the keys none"),
        (lambda d, n: n["concat"].update(inputs=["maxpool", "avgpool"]), "'concat': inputs: their heights or widths differ"),
        (lambda d, n: n["resize"].update(inputs=["maxpool"]), "'resize': inputs: only a 1x1 map"),
        (lambda d, n: n["relu"].update(shape=[4, 4]), "'relu': shape: must be three positive integers"),
        (lambda d, n: n["relu"].update(shape=[4, 4, 4.0]), "'relu': shape: must be three positive integers"),
        (lambda d, n: n["relu"].update(shape=[4, 4, True]), "'relu': shape: must be three positive integers"),
        (lambda d, n: n["relu"].update(shape=[4, 4, 0]), "'relu': shape: must be three positive integers"),
        (lambda d, n: n["relu"].update(shape=[4, 4, 5]), r"'relu': shape: is \(4, 4, 5\), but .* give \(4, 4, 4\)"),
        (lambda d, n: n["conv"].update(shape=[5, 4, 5]), r"'conv': shape: is \(5, 4, 5\), but .* give \(5, 4, 4\)"),
        (lambda d, n: n["image"].update(shape=[3, 8, 1 << 17]), "'image': shape: is above the limits"),
        (lambda d, n: n["image"].update(shape=[3, 1 << 15, 1 << 15]), "'image': shape: is above the limits"),
        (lambda d, n: n["image"].update(shape=[10**4000] * 3), "'image': shape: is above the limits"),
        (lambda d, n: n["relu"].update(attrs=[]), "'relu': attrs: must be an object"),
        (lambda d, n: n["relu"]["attrs"].update(max=1.0), "'relu': attrs: must be an object with the keys none"),
        (lambda d, n: n["conv"]["attrs"].pop("groups"), "'conv': groups: is missing"),
        (lambda d, n: n["conv"]["attrs"].update(weights=3), "'conv': weights: must be a name"),
        (lambda d, n: n["conv"]["attrs"].update(weights="conv"), "'conv': weights: names no earlier convolution with such weights"),
        (lambda d, n: n["conv"]["attrs"].update(weights="image"), "'conv': weights: names no earlier convolution with such weights"),
        (lambda d, n: n["conv"]["attrs"].update(groups=0), "'conv': groups: must be an integer from 1"),
        (lambda d, n: n["conv"]["attrs"].update(groups=True), "'conv': groups: must be an integer from 1"),
        (lambda d, n: n["conv"]["attrs"].update(groups=2), "'conv': groups: must divide"),
        (lambda d, n: n["conv"]["attrs"].update(stride=[0, 1]), "'conv': stride: must be a list of 2 integers from 1"),
        (lambda d, n: n["conv"]["attrs"].update(stride=2), "'conv': stride: must be a list of 2 integers from 1"),
        (lambda d, n: n["conv"]["attrs"].update(padding=[1, 1]), "'conv': padding: must be a list of 4 integers from 0"),
        (lambda d, n: n["conv"]["attrs"].update(padding=[-1, 1, 1, 1]), "'conv': padding: must be a list of 4 integers from 0"),
        (lambda d, n: n["conv"]["attrs"].update(kernel=[1025, 1]), "'conv': kernel: must be a list of 2 integers from 1 to 1024"),
        (lambda d, n: n["conv"]["attrs"].update(dilation=[9, 1]), "'conv': kernel: reaches over 19 cells, the padded map has 10"),
        (lambda d, n: n["conv"].update(shape=[100, 4, 4], attrs=CONV | {"kernel": [1000, 1000]}), "'conv': kernel: the weight would"),
        (lambda d, n: n["clip"]["attrs"].update(max=6), "'clip': max: must be a finite float"),
        (lambda d, n: n["clip"]["attrs"].update(max=0.0), "'clip': max: must be above min, which is 0"),
        (lambda d, n: n["clip"]["attrs"].update(max="6.0"), "'clip': max: must be a finite float"),
        (lambda d, n: n["clip"]["attrs"].update(min=6.0), "'clip': max: must be above min, which is 6"),
        (lambda d, n: n["clip"]["attrs"].update(min=-1e308, max=1e308), "'clip': max: must be above min"),
        (lambda d, n: n["clip"]["attrs"].update(to=[0.0]), "'clip': to: must be a list of 2 finite floats"),
        (lambda d, n: n["clip"]["attrs"].update(to=[0.0, 1]), "'clip': to: must be a finite float"),
        (lambda d, n: n["bend"]["attrs"].update(slopes=[0.0, 1.0, 2.0]), "'bend': slopes: must be a list of 2 finite floats"),
        (lambda d, n: n["bend"]["attrs"].pop("slopes"), "'bend': slopes: is missing"),
        (lambda d, n: n["bend"]["attrs"].update(at="0"), "'bend': at: must be a finite float"),
        (lambda d, n: n["smooth"]["attrs"].update(function="exp"), "'smooth': function: must be one of sigmoid, tanh, silu"),
        (lambda d, n: n["smooth"]["attrs"].update(function=["elu"]), "'smooth': function: must be one of sigmoid"),
        (lambda d, n: n["smooth"]["attrs"].update(function=None), "'smooth': function: must be one of sigmoid"),
        (lambda d, n: n["smooth"]["attrs"].pop("function"), "'smooth': function: is missing"),
        (lambda d, n: n["smooth"]["attrs"].pop("parameter"), "'smooth': parameter: is missing"),
        (lambda d, n: n["smooth"]["attrs"].update(parameter=0.05), "'smooth': parameter: must be a float from 0.0625 to 16"),
        (lambda d, n: n["smooth"]["attrs"].update(parameter=17.0), "'smooth': parameter: must be a float from 0.0625 to 16"),
        (lambda d, n: n["smooth"]["attrs"].update(parameter=-1.0), "'smooth': parameter: must be a float from 0.0625 to 16"),
        (lambda d, n: n["smooth"]["attrs"].update(parameter=1), "'smooth': parameter: must be a float from 0.0625 to 16"),
        (lambda d, n: n["smooth"]["attrs"].update(parameter="1.0"), "'smooth': parameter: must be a float from 0.0625 to 16"),
        (lambda d, n: n["smooth"]["attrs"].update(beta=1.0), "'smooth': attrs: must be an object with the keys function, parameter"),
        (lambda d, n: n["smooth"].update(inputs=["conv", "relu"]), "'smooth': inputs: a node of kind smooth has 1"),
        (lambda d, n: n["smooth"].update(shape=[4, 4, 5]), r"'smooth': shape: is \(4, 4, 5\), but .* give \(4, 4, 4\)"),
        (lambda d, n: n["avgpool"]["attrs"].update(divisor=-4.0), "'avgpool': divisor: must be a float from 1 to 4.29497e"),
        (lambda d, n: n["avgpool"]["attrs"].update(divisor=1e300), "'avgpool': divisor: must be a float from 1 to 4.29497e"),
        (lambda d, n: n["avgpool"]["attrs"].update(divisor=1e-300), "'avgpool': divisor: must be a float from 1 to 4.29497e"),
        (lambda d, n: n["conv"]["attrs"].update(padding=[0, 65536, 65536, 0]), "'conv': padding: the padded map would have more than"),
        (lambda d, n: n["avgpool"]["attrs"].update(padding=[65536] * 4), "'avgpool': padding: the padded map would have more than"),
        (lambda d, n: n["maxpool"]["attrs"].update(padding=[2, 2, 2, 2]), "'maxpool': padding: a max-pooling window would hold"),
        (lambda d, n: n["maxpool"]["attrs"].update(padding=[0, 0, 0, 9]), "'maxpool': padding: a max-pooling window would hold"),
        (lambda d, n: n["resize"]["attrs"].update(size=[2, 3]), r"'resize': shape: is \(4, 2, 2\), but .* give \(4, 2, 3\)"),
        (lambda d, n: n["output"]["attrs"].update(resize=[3, 5]), "'output': resize: must be a list"),
        (lambda d, n: n["output"]["attrs"].update(resize=[3, 5, 1]), "'output': resize: must be a list"),
        (lambda d, n: n["output"]["attrs"].update(resize=[1 << 14, 1 << 14, True]), "'output': resize: the result would have more than"),
        (lambda d, n: n["output"]["attrs"].update(resize=[3, 1 << 20, True]), "'output': resize: must be a list of 2 integers"),
    ],
)
def test_a_tampered_graph_is_refused_by_node_and_key(change, message):
    with pytest.raises(InputError, match=message):
        Graph.from_json(tampered(change))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"version": 1, "version": 1, "nodes": []}', b"{}", None, "9" * 10_000, " " * ((16 << 20) + 1),
     *(EVERY_KIND.to_json().replace("6.0", number) for number in ("Infinity", "NaN", "1e999"))],
)  # fmt: skip
def test_text_that_is_no_graph(text):
    with pytest.raises(InputError, match=r"^graph: (not JSON: |must be JSON text of at most 16777216 characters$)"):
        Graph.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*(node.name for node in EVERY_KIND.nodes), "exec"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["kernel", "max", "name", "x"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@hypothesis.settings(max_examples=300)
@given(st.data())
def test_any_tampering_is_refused_or_gives_a_consistent_graph(data):
    document = json.loads(EVERY_KIND.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not (isinstance(place[key], (dict, list)) and place[key]) or data.draw(st.integers(0, 4)) == 0:
                break
            place = place[key]
        place[key] = data.draw(json_values)
    try:
        graph = Graph.from_json(json.dumps(document))
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert json.loads(graph.to_json()) == document
    for node in graph.nodes[1:]:
        assert node.shape == infer_shape(node.kind, [graph[name].shape for name in node.inputs], node.attrs, channels=node.shape[0])


def test_max_pooling_windows_may_hang_over_but_not_be_empty():
    attrs = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 2, 2], "dilation": [1, 1]}
    assert infer_shape("maxpool", [(1, 4, 4)], attrs) == (1, 3, 3)
    with pytest.raises(InputError, match="padding only"):  # dilation steps over the only row
        infer_shape("maxpool", [(1, 1, 4)], attrs | {"padding": [1, 1, 2, 1], "dilation": [2, 1], "kernel": [2, 3]})


def weights():
    return {"conv": {"weight": np.ones((4, 3, 3, 3)), "bias": np.zeros(4)}}


def test_good_weights_pass():
    check_weights(EVERY_KIND, weights())
    assert weight_shape(EVERY_KIND, EVERY_KIND["conv"]) == (4, 3, 3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv"), "'conv' is missing"),
        (lambda w: w.update(relu=w["conv"]), "'relu' is not a conv node"),
        (lambda w: w["conv"].pop("bias"), "bias of 'conv' must be a float64 array"),
        (lambda w: w["conv"].update(bias=np.zeros(3)), "bias of 'conv' must be a float64 array"),
        (lambda w: w["conv"].update(weight=np.ones((4, 3, 3))), "weight of 'conv' must be a float64 array"),
        (lambda w: w["conv"].update(weight=np.ones((4, 3, 3, 3), np.float32)), "weight of 'conv' must be a float64 array"),
        (lambda w: w["conv"].update(bias=np.full(4, np.inf)), "bias of 'conv' holds infinite or undefined numbers"),
    ],
)
def test_bad_weights_are_refused(change, message):
    bad = copy.deepcopy(weights())
    change(bad)
    with pytest.raises(InputError, match=message):
        check_weights(EVERY_KIND, bad)


def test_graphs_need_no_torch():
    code = "import sys, threepc.graph, threepc.graph.passes, threepc.graph.relu_spec; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_shared_weights_are_those_of_an_earlier_convolution_of_their_own_shape():
    graph, weights = twins()
    first, second, last = (node.name for node in graph.nodes if node.kind == "conv")
    assert Graph.from_json(graph.to_json()) == graph
    check_weights(graph, weights)
    for wrong in (second, last):  # itself, and a later one
        with pytest.raises(InputError, match=f"{second}': weights: names no earlier convolution with such weights of its own"):
            Graph(tuple(_naming(node, second, wrong) for node in graph.nodes))
    with pytest.raises(InputError, match=f"{last}': weights: names no earlier convolution with such weights of its own"):
        Graph(tuple(_naming(node, last, first) for node in graph.nodes))
    other = weights[second] | {"weight": weights[second]["weight"] + 1}
    with pytest.raises(InputError, match=f"those of '{second}' are not those of '{first}'"):
        check_weights(graph, weights | {second: other})


def _naming(node, name, holder):
    return replace(node, attrs=node.attrs | {"weights": holder}) if node.name == name else node
