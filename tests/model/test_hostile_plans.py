"""What a peer chooses of a model's plan is refused in one line, or it runs: two messages, pieces, who is told, compared bits, windows, depth."""

import itertools
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder
from tests.model.test_hostile import CARD, read, run, small
from threepc.choices import RINGS
from threepc.errors import InputError
from threepc.kernels.product import MOST_LIFTED
from threepc.model import served
from threepc.model.served import PublicModel
from threepc.plan.messages import QUICK_KINDS, candidates
from threepc.plan.precision import DEEPEST_TRUNCATION, MAX_TRUNCATION, Precision
from threepc.plan.schedule import DECIDING
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.product import Product
from threepc.protocol.quick_relu import QuickRelu
from threepc.protocol.relu_layer import ReluLayer


def bending() -> PublicModel:
    """What `small` has not: slopes, both a value and its ReLU, a smooth activation, values of many fractional bits before a maximum, and an average of four."""
    net = Builder(3, 4, 5)
    x = net.node("bend", net.conv("input", 3, 1), slopes=[0.1, 1.0], at=0.5)
    x = net.node("rectify", net.conv(x, 2, 1), channels=4)
    x = net.node("smooth", net.conv(x, 3, 1), function="elu", parameter=2.0)
    x = net.node("maxpool", net.conv(x, 3, 1), kernel=[2, 2], stride=[2, 1], padding=[1, 0, 0, 1], dilation=[1, 1])
    x = net.avgpool(net.relu(net.conv(x, 3, 1)), 2)
    graph, _ = net.output(net.flat(net.avgpool(x)))
    return PublicModel(graph, Precision(48, 16), None, CARD)


@hypothesis.settings(max_examples=30)
@given(st.data())
def test_any_choice_of_a_plan_is_refused_or_runs(data):
    """Names and numbers are mostly such as suit the network, so that many of these run."""
    plain = data.draw(st.sampled_from((small, bending)))().to_plain()
    nodes = PublicModel.from_plain(plain).graph.nodes
    any_name, convs = st.sampled_from([node.name for node in nodes]), st.sampled_from([n.name for n in nodes if n.kind == "conv"])
    of_kinds = lambda kinds: st.sampled_from([node.name for node in nodes if node.kind in kinds])
    sometimes = lambda usual, hostile: hostile if data.draw(st.integers(0, 19)) == 0 else usual
    decides, pair = (*QUICK_KINDS, "clip"), st.tuples(st.integers(0, 3), st.integers(1, 9))
    bits = data.draw(st.sampled_from(RINGS))
    compared = st.dictionaries(
        sometimes(of_kinds(decides), any_name), sometimes(pair, st.tuples(*[st.integers(0, 64)] * 2)).map(list), max_size=4
    )
    precision = {
        "bits": bits,
        "fraction": data.draw(sometimes(st.integers(4, 10), st.integers(0, 17))),
        "weight_fraction": data.draw(st.dictionaries(convs, sometimes(st.integers(4, 12), st.integers(0, 31)), max_size=2)),
        "window": data.draw(sometimes(st.none(), st.tuples(st.integers(0, 20), st.integers(0, 64)).map(list))),
        "truncation": data.draw(sometimes(st.integers(MAX_TRUNCATION, DEEPEST_TRUNCATION), st.integers(0, 64))),
        "compared": data.draw(compared),
        "early": data.draw(st.lists(sometimes(of_kinds(("relu", "clip")), any_name), max_size=1)),
    }
    quick = data.draw(st.lists(sometimes(of_kinds(QUICK_KINDS), any_name), max_size=4))
    told = data.draw(
        st.lists(sometimes(of_kinds((*DECIDING, "smooth")).filter(lambda name: name not in quick), any_name), max_size=4, unique=True)
    )
    choices = {"quick": quick, "to_client": told, "piece": data.draw(st.sampled_from([0, 1, 7, 40, 1 << 15]))}
    choices["reveal"] = data.draw(st.sampled_from(["logits", "label"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(served, "LEAST_PIECE", 1)  # so that layers of a few numbers have pieces too
        model = read(plain | choices | {"precision": precision, "sizes": data.draw(st.sampled_from([None, plain["sizes"]]))})
    hypothesis.event("refused" if model is None else "runs")
    if model is not None:
        run(model, data.draw(st.integers(1, 2)))


def test_a_maximum_compares_no_bit_that_its_words_do_not_have():
    """A difference of words of 32 bits has 31 below its sign."""
    plain = small().to_plain()
    compared = lambda width: plain | {"precision": plain["precision"] | {"compared": {"maxpool7": [0, width]}}}
    assert read(compared(31)) is not None
    with pytest.raises(InputError, match="precision of 'maxpool7': a comparison of 32 bits of 32"):
        PublicModel.from_plain(compared(32))


@pytest.mark.parametrize("first, width", [(0, 31), (2, 29), (30, 1)])
def test_a_relu_compares_no_more_than_its_values_have(first, width):
    """Of 32 bits that a truncation leaves, one is the sign, and one stays spare."""
    plain = small().to_plain()
    compared = lambda width: plain | {"precision": plain["precision"] | {"compared": {"relu2": [first, width]}}}
    assert width == 1 or read(compared(width - 1)) is not None
    with pytest.raises(InputError, match="precision of 'relu2': a comparison up to bit 31 of 32 bits"):
        PublicModel.from_plain(compared(width))


def test_a_product_that_leaves_no_bits_is_refused():
    net = Builder(2, 3, 3)
    x = net.relu(net.conv("input", 2, 1))
    graph, _ = net.output(net.multiply(x, x))
    with pytest.raises(InputError, match="multiply3: a product of 32 fractional bits does not fit a ring of 32 bits"):
        PublicModel.from_plain(PublicModel(graph, Precision(32, 16, {"conv1": 14}), None, CARD).to_plain())


def lifts(model: PublicModel) -> Iterator[tuple[int, int]]:
    """By how many bits each gate, truncation and product lifts what it opens, and how many bits each of the pads has that hide this."""
    for step in model.plan(1).steps:
        protocol = getattr(step, "protocol", None)
        if isinstance(protocol, Product):
            yield protocol.cut.bits - protocol.cut.kept_bits, MOST_LIFTED
        relus = [one.relu for along in protocol.passes for one in along.rounds] if isinstance(protocol, MaxPool) else [protocol]
        for relu in relus:
            if isinstance(relu, ReluLayer) and relu.decide:
                gate = relu.gate.gate if isinstance(relu, QuickRelu) else relu.gate
                yield gate._carry_bits, 4 * np.dtype(gate._mask_word).itemsize
            if isinstance(relu, ReluLayer) and relu.through:
                yield relu.identity.lift.bits - relu.identity.lift.kept_bits, 4 * np.dtype(relu.identity._mask_word).itemsize


@pytest.mark.parametrize("bits", RINGS)
def test_pads_are_as_long_as_what_they_hide_whatever_a_precision_says(bits):
    """Two pads of a lift are drawn as the halves of one word, and what they hide beyond their length would be open."""
    found = []
    for model in (small(), bending()):
        convs = [node.name for node in model.graph.nodes if node.kind == "conv"]
        for truncation, of_weights in itertools.product((MAX_TRUNCATION, DEEPEST_TRUNCATION), (4, 12, 20, 30)):
            precision = Precision(bits, 16 if bits > 32 else 6, dict.fromkeys(convs, of_weights), truncation=truncation).to_plain()
            for quick in ([], list(candidates(model.graph))):
                if (again := read(model.to_plain() | {"precision": precision, "quick": quick})) is not None:
                    found += lifts(again)
    assert all(lifted <= most for lifted, most in found)
    assert {most for _, most in found if most < 64} == {16, 31, 32}
