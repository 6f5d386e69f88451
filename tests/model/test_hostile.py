"""What a peer says of its model is refused in one line, or it runs: nothing of it reaches a kernel unchecked."""

import contextlib
import dataclasses
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder
from threepc import tensors
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node, weight_shape
from threepc.images.card import ModelCard, Preprocessing, Sliding
from threepc.model import limits, served
from threepc.model.served import PublicModel
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.plan.precision import Precision
from threepc.plan.scheduler import MOST_OPS
from threepc.prf import OP_BITS, new_key
from threepc.protocol.steps import ServerInputStep
from threepc.tensors import ranges

CARD = ModelCard("small", Preprocessing((6, 5)))


def small() -> PublicModel:
    """Every kind of node, one ReLU in patches of every kind and one clip in patches, all on maps of a few pixels."""
    net = Builder(3, 6, 5)
    x = net.relu(net.conv("input", 4, 3))
    y = net.clip(net.conv(x, 4, 1, groups=2))
    x = net.relu(net.maxpool(net.multiply(net.add(x, y), y), 2, 2))
    y = net.node("maxpool", x, kernel=[2, 1], stride=[1, 1], padding=[0] * 4, dilation=[1, 1])
    x = net.node("matmul", net.multiply(x, net.avgpool(x)), y)
    x = net.concat(x, net.node("resize", net.avgpool(x), size=[3, 2]))
    x = net.conv(net.flat(net.avgpool(x, 2)), 3, 1)
    graph, _ = net.output(x)
    relu, clip, _ = (node.name for node in graph.nodes if node.kind in ("relu", "clip"))
    sizes = {relu: ((1, 1), (2, 3), (1, 0), (0, 1)), clip: ((6, 5), (1, 1), (4, 4), (0, 1))}
    return PublicModel(graph, Precision(48, 16, {"conv1": 20}, input_fraction=14), sizes, CARD)


def job() -> PublicModel:
    """Arrays of three owners and public ones, products of all kinds, comparisons, and results for both."""

    def made(p: tensors.Job) -> None:
        x, w = p.input("x", (2, 3), "client"), p.input("w", (3, 2), "server")
        both = x @ w * np.array([0.5, 2.0]) + p.input("b", (2,), "bank")
        p.reveal(tensors.where(both > 0.25, both, -1) @ np.full((2, 2), 0.5), "client", "chosen")
        p.reveal(both.mean() * 3, "server", "mean")

    return tensors.trace(made, 48).public


def run(model: PublicModel, batch: int = 1) -> None:
    """Deal and prepare as provider and client do on a server's word alone, with weights of zeros; serve and infer to the end."""
    plan = model.plan(batch)
    graph = model.graph
    shapes = {node.name: weight_shape(graph, node) for node in graph.nodes if node.kind == "conv"}
    shared = share_weights(plan, {name: {"weight": np.zeros(s), "bias": np.zeros(s[0])} for name, s in shapes.items()}, new_key())
    with ThreeRoles(shared) as roles:
        words = np.zeros((batch, *graph.input.shape), np.uint32 if model.precision.bits == 32 else np.uint64)
        given = {step.name: step.result.array(None) for step in plan.steps if isinstance(step, ServerInputStep)}
        assert roles.infer(plan, words, given=given).shape[0] in (batch, 1)


def is_small(model: PublicModel) -> bool:
    values = [np.prod(step.result.shape) for step in model.plan(1).steps]
    padded = [sum(node.attrs.get("padding", ())) for node in model.graph.nodes]
    return max(values) <= 1 << 14 and max(padded) <= 64 and model.plan(1).cost.total("setup") < 1 << 20


def read(plain: dict) -> PublicModel | None:
    """The model, or None where it is refused in one printable line."""
    try:
        return PublicModel.from_plain(plain)
    except InputError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 600
        return None


def test_the_small_model_runs():
    run(PublicModel.from_plain(small().to_plain()), 2)


def test_the_job_runs():
    run(PublicModel.from_plain(job().to_plain()))


@pytest.mark.parametrize(
    "layers, message",
    [
        ({"nonesuch": [[1, 1]] * 4}, "'nonesuch' is no relu or clip of this network"),
        ({"conv1": [[1, 1]] * 4}, "'conv1' is no relu or clip of this network"),
        ({"relu2": [[1, 1]] * 3}, "'relu2' has 3 patch sizes, the network's has 4 channels"),
        ({"relu2": [[1, 1]] * 5}, "'relu2' has 5 patch sizes, the network's has 4 channels"),
        ({"relu2": []}, "'relu2' must be a list with one"),
        ({"relu2": [[1, 1]] * 3 + [[7, 1]]}, "'relu2', channel 3: the patch .7, 1. is larger than the feature map .6x5."),
        ({"relu2": [[1, 1]] * 3 + [[1, 6]]}, "'relu2', channel 3: the patch .1, 6. is larger than the feature map .6x5."),
        ({"relu2": [[1, 1]] * 3 + [[0, 0]]}, "'relu2', channel 3: .0, 0. is no patch size"),
        ({"relu2": [[1, 1]] * 3 + [[0, 2]]}, "'relu2', channel 3: .0, 2. is no patch size"),
        ({"relu2": [[1, 1]] * 3 + [[2, 0]]}, "'relu2', channel 3: .2, 0. is no patch size"),
        ({"relu2": [[1, 1]] * 3 + [[-1, 1]]}, "'relu2', channel 3: .-1, 1. is no patch size"),
        ({"relu2": [[1, 1]] * 3 + [[1 << 62, 1]]}, "'relu2', channel 3: .* is no patch size"),
        ({"relu2": [[1, 1]] * 3 + [[1.0, 1]]}, "'relu2', channel 3: not a pair of integers"),
        ({"relu2": [[1, 1]] * 3 + [[True, True]]}, "'relu2', channel 3: not a pair of integers"),
        ({"relu2": [[1, 1]] * 3 + [[1, 1, 1]]}, "'relu2', channel 3: not a pair of integers"),
        ({"relu2\x1b[2J": 3}, r"'relu2\\x1b\[2J' must be a list"),
        ([["relu2", [1, 1]]], "the server's relu spec is no object"),
    ],
)
def test_a_relu_spec_that_would_corrupt_memory_is_refused(layers, message):
    with pytest.raises(InputError, match=message):
        PublicModel.from_plain(small().to_plain() | {"sizes": layers})


@pytest.mark.parametrize(
    "names, message",
    [
        ("relu2", "layers that are dealt to the client is no list of names"),
        ({"relu2": 1}, "layers that are dealt to the client is no list of names"),
        (None, "layers that are dealt to the client is no list of names"),
        ([3], "layers that are dealt to the client is no list of names"),
        ([["relu2"]], "layers that are dealt to the client is no list of names"),
        (["conv1"], "'conv1' is no layer of this network that decides"),
        (["output"], "'output' is no layer"),
        (["nonesuch\x1b[2J" + "x" * 1000], r"'nonesuch\\x1b\[2Jx+ is no layer"),
        (["relu2", "relu2"], "a layer is named twice"),
    ],
)
def test_layers_that_cannot_be_dealt_to_the_client_are_refused(names, message):
    with pytest.raises(InputError, match=message) as error:
        PublicModel.from_plain(small().to_plain() | {"to_client": names})
    assert str(error.value).isprintable() and len(str(error.value)) < 300


def test_the_server_is_shown_no_labels():
    """It would be shown the numbers that a label is made of."""
    with pytest.raises(InputError, match="output mean: the server cannot be shown labels"):
        PublicModel.from_plain(job().to_plain() | {"reveal": "logits,label"})


def test_no_layer_of_two_messages_is_dealt_to_the_client():
    with pytest.raises(InputError, match="'relu2' is no layer of this network that decides in four messages"):
        PublicModel.from_plain(small().to_plain() | {"quick": ["relu2"], "to_client": ["relu2"]})


def test_who_is_told_its_shares_is_agreed_upon():
    plain = small().to_plain()
    names = [node.name for node in small().graph.nodes if node.kind in ("relu", "clip", "maxpool")]
    told = [PublicModel.from_plain(plain | {"to_client": names[:count]}) for count in range(len(names) + 1)]
    assert len({model.fingerprint for model in told}) == len(told) and told[0].fingerprint == small().fingerprint
    for model in told:
        run(model)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bits": 48.0}, "precision: its numbers must be whole"),
        ({"bits": 56}, "ring: must be one of 64, 48, 40, 32, 28, 24, not 56"),
        ({"fraction": 17}, "precision of 'fraction': fractional bits must be 1 to 16, not 17"),
        ({"fraction": "\x1b[2J"}, "precision: its numbers must be whole"),
        ({"window": ["\x1b[2J", 3]}, "precision: its numbers must be whole"),
        ({"weight_fraction": {"relu2": 3}}, "precision: 'relu2' is no conv of this network"),
        ({"weight_fraction": {"conv1": 1 << 70}}, "precision: its numbers must be whole"),
    ],
)
def test_a_precision_of_another_network_is_refused(change, message):
    plain = small().to_plain()
    with pytest.raises(InputError, match=message):
        PublicModel.from_plain(plain | {"precision": plain["precision"] | change})


def chain(*nodes: tuple, shape=(1, 4, 4)) -> PublicModel:
    """A network of nodes (name, kind, attributes), one after the other, that keep the shape."""
    names = ["input", *(name for name, _, _ in nodes)]
    inner = [Node(name, kind, (before,), shape, attrs) for before, (name, kind, attrs) in zip(names, nodes, strict=False)]
    graph = Graph((Node("input", "input", (), shape), *inner, Node("output", "output", (names[-1],), shape)))
    return PublicModel(graph, Precision(), None, CARD)


CONV = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
POOL = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    "model, message",
    [
        # a truncation gets the name of its value and "/truncation": a node of that name would take its place, in another shape
        (
            chain(("a", "conv", CONV), ("b", "conv", CONV), ("a/truncation", "relu", {}), ("c", "conv", CONV)),
            "a/truncation: the name of two steps",
        ),
        (chain(("a", "conv", CONV), ("b", "clip", {"max": 1e300})), "b: a clip at 1e.300 is beyond the numbers"),
        (chain(("a", "conv", CONV), ("b", "clip", {"max": 1e308})), "b: a clip at 1e.308 is beyond the numbers"),  # infinite in units
        (chain(("a", "avgpool", POOL | {"divisor": 2.0**31})), "^a: 47 fractional bits do not fit a ring of 48 bits$"),
        (
            chain(("a", "conv", CONV), *((f"b{i}", "maxpool", POOL | {"dilation": [1, 1]}) for i in range(9000))),
            "the model takes more than 65,536 protocols",
        ),
        (
            chain(
                *((f"a{i}", "avgpool", POOL | {"kernel": [1, 1], "padding": [0] * 4, "divisor": 1.0}) for i in range(600)),
                shape=(1 << 12, 1 << 8, 1 << 8),
            ),
            "the model needs .* GB for 1 images at once; at most 1,024 are possible",
        ),
    ],
)
def test_a_graph_that_a_plan_cannot_hold_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        PublicModel.from_plain(model.to_plain())


def depthwise(stride: int, reach: int = 0) -> PublicModel:
    """A depthwise convolution of a map of one pixel, whose stride passes over what is not there, or its dilation by so much to both sides."""
    net, wide = Builder(2, 1, 1), {"kernel": [3, 3], "dilation": [reach] * 2, "padding": [reach] * 4} if reach else {}
    net.node("output", net.node("conv", "input", channels=2, **CONV | {"stride": [stride, stride], "groups": 2} | wide))
    return PublicModel(Graph(tuple(net.nodes)), Precision(), None, CARD)


WIDE = CONV | {"kernel": [1023, 1023], "padding": [511] * 4}
AVERAGE = {"kernel": [4097, 4097], "stride": [1, 1], "padding": [2048] * 4, "divisor": 1.0}


@pytest.mark.parametrize(
    "model, message",
    [
        (
            chain(("a", "conv", WIDE), ("b", "conv", WIDE), shape=(1, 4096, 4096)),
            "^b: up to here 35,1.* multiplications for 1 images at once",
        ),
        (chain(("a", "avgpool", AVERAGE), shape=(1, 4096, 4096)), "^a: up to here 281,.* multiplications for 1 images at once"),
        (depthwise(1 << 16), "^conv1: stride, kernel and dilation reach over 4,294,967,296 cells; at most 67,108,864 are possible"),
        (depthwise(1, 4096), "^conv1: stride, kernel and dilation reach over 67,125,249 cells; at most 67,108,864 are possible"),
    ],
)
def test_work_beyond_what_one_inference_may_take_is_refused_before_it_is_planned(model, message, monkeypatch):
    monkeypatch.setattr(served, "schedule", lambda *_: pytest.fail("it was planned"))
    with pytest.raises(InputError, match=message):
        PublicModel.from_plain(model.to_plain())


def test_work_grows_with_the_batch():
    model = chain(("a", "conv", CONV | {"kernel": [255, 255], "padding": [127] * 4}), shape=(1, 1024, 1024))
    most = limits.MOST_PRODUCTS // (255 * 255 * 1024 * 1024)
    limits.check_work(model.graph, most)
    with pytest.raises(InputError, match=f"multiplications for {most + 1} images at once; at most 17,592,186,044,416 are possible"):
        model.plan(most + 1)


def test_work_of_products_of_matrices_counts_what_they_sum_over(monkeypatch):
    net = Builder(2, 8, 8)
    graph, _ = net.output(net.node("matmul", "input", "input"))
    monkeypatch.setattr(limits, "MOST_PRODUCTS", 2 * 8**3)
    limits.check_work(graph, 1)
    monkeypatch.setattr(limits, "MOST_PRODUCTS", 2 * 8**3 - 1)
    with pytest.raises(InputError, match=r"^matmul1: up to here 1,024 multiplications for 1 images at once"):
        limits.check_work(graph, 1)


def test_a_stride_beyond_a_small_map_is_no_harm():
    """As networks for large images have it on small ones."""
    run(PublicModel.from_plain(depthwise(2).to_plain()))


def test_a_batch_that_a_plan_cannot_hold_is_refused():
    model = chain(("a", "relu", {}), shape=(1 << 8, 1 << 8, 1 << 8))
    model.plan(64)
    with pytest.raises(InputError, match="input: 1,090,519,040 numbers for 65 images at once; at most 1,073,741,824 are possible"):
        model.plan(65)


def test_a_result_that_is_resized_beyond_memory_is_refused():
    graph = Graph(
        (Node("input", "input", (), (1, 4, 4)), Node("output", "output", ("input",), (1, 4, 4), {"resize": [1 << 14, 1 << 14, True]}))
    )
    PublicModel(graph, Precision(), None, CARD).plan(4)
    with pytest.raises(InputError, match="output: resized, the result has more than"):
        PublicModel(graph, Precision(), None, CARD).plan(5)


def test_a_plans_addresses_fit_a_stream():
    assert MOST_OPS <= 1 << OP_BITS


MUTATIONS = (
    st.integers(-1, 9) | st.sampled_from([None, True, 1.0, 2.0, 0.5, 1e300, 1e-300, 64, 40, 32, 2**31, 2**63, 10**40, [], {}, "label"])
    | st.sampled_from([node.name for node in (*small().graph.nodes, *job().graph.nodes)]) | st.text(max_size=3) | st.lists(st.integers(-1, 7), max_size=4)
    | st.lists(st.lists(st.integers(-1, 7), min_size=2, max_size=2), min_size=4, max_size=4)
)  # fmt: skip


@hypothesis.settings(max_examples=250)
@given(st.data())
def test_any_tampering_is_refused_or_runs(data):
    plain = data.draw(st.sampled_from((small, job)))().to_plain()
    document = plain | {key: json.loads(plain[key]) for key in ("graph", "card")}
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not (isinstance(place[key], (dict, list)) and place[key]) or data.draw(st.integers(0, 6)) == 0:
                break
            place = place[key]
        place[key] = data.draw(MUTATIONS)
    plain = document | {key: json.dumps(document[key]) for key in ("graph", "card")}
    model = read(plain)
    if model is not None and is_small(model):
        run(model)
    if model is not None:
        with contextlib.suppress(InputError):
            ranges.check(model)


sides = st.integers(1, 3)


@hypothesis.settings(max_examples=100)
@given(st.data())
def test_any_geometry_is_refused_or_runs(data):
    """Attributes at random, the shapes that follow from them, and any patches: what the check of shapes lets through runs."""
    pair, four = st.lists(sides, min_size=2, max_size=2), st.lists(st.integers(0, 3), min_size=4, max_size=4)
    windows = st.fixed_dictionaries({"kernel": pair, "stride": pair, "padding": four})
    net = Builder(4, data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7)))
    x = "input"
    try:
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["conv", "relu", "clip", "bend", "maxpool", "avgpool", "concat", "add"]))
            if kind == "conv":
                attrs = data.draw(windows) | {"dilation": data.draw(pair), "groups": data.draw(st.sampled_from([1, 2, 4]))}
                x = net.node("conv", net.relu(x), channels=4, **attrs)
            elif kind == "maxpool":
                x = net.node("maxpool", x, **data.draw(windows), dilation=data.draw(pair))
            elif kind == "avgpool":
                x = net.node("avgpool", x, **data.draw(windows), divisor=float(data.draw(st.integers(1, 9))))
            elif kind in ("concat", "add"):
                x = net.node("conv", net.node(kind, x, x), channels=4, **CONV)
            elif kind == "bend":
                slope = st.floats(-20, 20)
                x = net.node(kind, x, slopes=[data.draw(slope), data.draw(slope)], at=data.draw(st.floats(-100, 100)))
            else:
                x = net.node(kind, x, **({"max": data.draw(st.floats(0.1, 100))} if kind == "clip" else {}))
        net.node("output", x)
        graph = Graph(tuple(net.nodes))
    except InputError:
        hypothesis.reject()
    sizes = {}
    for node in graph.nodes:
        if node.kind in ("relu", "clip"):
            patch = st.sampled_from([[1, 1], [1, 0], [0, 1]]) | st.tuples(*(st.integers(1, side) for side in node.shape[1:])).map(list)
            sizes[node.name] = data.draw(st.lists(patch, min_size=4, max_size=4))
    model = PublicModel(
        graph, Precision.default(data.draw(st.sampled_from([48, 32]))), None, CARD, data.draw(st.sampled_from(["logits", "label"]))
    )
    for spec in (None, sizes):
        again = read(model.to_plain() | {"sizes": spec})
        if again is not None:
            run(again)


def test_windows_whose_logits_nobody_could_average(monkeypatch):
    """What the card alone cannot tell: the network's outputs, and what of them is revealed."""
    card = dataclasses.replace(
        CARD, preprocessing=Preprocessing((6, 5), resize="fit"), segmentation=True, sliding=Sliding((40, 40), (3, 3))
    )
    net = Builder(3, 6, 5)
    graph, _ = net.output(net.conv("input", 4, 3))
    model = PublicModel(graph, Precision(), None, card)
    assert PublicModel.from_plain(model.to_plain()).card == card
    with pytest.raises(InputError, match=r"^small: windows slide over the image, .* which labels alone do not allow"):
        PublicModel.from_plain(dataclasses.replace(model, reveal="label").to_plain())
    monkeypatch.setattr(limits, "MOST_LOGITS", 10_000)
    with pytest.raises(InputError, match=r"^small: the windows of one image have 20,280 logits; at most 10,000 are possible$"):
        PublicModel.from_plain(model.to_plain())
    for align_corners in (False, True):
        output = dataclasses.replace(graph.output, attrs={"resize": [12, 10, align_corners]})
        resized = dataclasses.replace(model, graph=Graph((*graph.nodes[:-1], output)))
        with pytest.raises(InputError, match=r"^small: the windows of one image have 81,120 logits; at most 10,000 are possible$"):
            PublicModel.from_plain(resized.to_plain())
    several = Builder(3, 6, 5)
    graph, _ = several.outputs(one=several.conv("input", 4, 3), other=several.conv("input", 4, 3))
    for other in (small(), dataclasses.replace(model, graph=graph)):
        with pytest.raises(InputError, match=r"^small: windows slide over the images of a network that returns one map of logits"):
            PublicModel.from_plain(dataclasses.replace(other, card=card).to_plain())
