"""What a peer chooses of a model's plan is refused in one line, or it runs: two messages, pieces, who is told, compared bits, windows, depth."""

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder
from tests.model.test_hostile import CARD, read, run, small
from threepc.choices import RINGS
from threepc.model import served
from threepc.model.served import PublicModel
from threepc.plan.messages import QUICK_KINDS
from threepc.plan.precision import DEEPEST_TRUNCATION, MAX_TRUNCATION, Precision
from threepc.plan.schedule import DECIDING


def bending() -> PublicModel:
    """What `small` has not: slopes, both a value and its ReLU, a smooth activation, and values of many fractional bits before a maximum."""
    net = Builder(3, 4, 5)
    x = net.node("bend", net.conv("input", 3, 1), slopes=[0.25, 1.0], at=0.5)
    x = net.node("rectify", net.conv(x, 2, 1), channels=4)
    x = net.node("smooth", net.conv(x, 3, 1), function="elu", parameter=2.0)
    x = net.node("maxpool", net.conv(x, 3, 1), kernel=[2, 2], stride=[2, 1], padding=[1, 0, 0, 1], dilation=[1, 1])
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
