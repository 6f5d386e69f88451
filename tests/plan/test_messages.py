"""Two messages, four or six: which layers the plan takes for what links, and that a network's results do not depend on it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder, bent, gated, mobile, residual
from tests.protocol.harness import CP, SP, WEIGHTS, network_trio, run_network, without_zeros
from threepc.choices import NETWORKS, HostRates, LinkPreset
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel
from threepc.plan.messages import LATE_KINDS, Links, candidates, cheapest, shortest_online
from threepc.plan.precision import Precision
from threepc.plan.schedule import fingerprint, schedule
from threepc.protocol.cost import Cost
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.quick_relu import QuickRelu


def pooled():
    """ReLU, max pooling, ReLU."""
    net = Builder(3, 12, 12)
    return net.output(net.conv(net.relu(net.maxpool(net.relu(net.conv("input", 6)))), 4))


@pytest.mark.parametrize("bits", (64, 48, 32))
@pytest.mark.parametrize("build", (residual, mobile, gated, bent, pooled))
def test_results_are_the_same_to_the_bit(build, bits):
    """Under the same keys, with two messages wherever there can be two, or six, alone or beside ReLUs in four."""
    graph, weights = build()
    images = np.random.default_rng(bits).normal(size=(2, *graph.input.shape))
    names, six, logits = candidates(graph), candidates(graph, LATE_KINDS), []
    for quick, late in (((), ()), (names[::2], set(six) - set(names[::2])), (names, ())):
        plan = schedule(graph, Precision.default(bits), batch=2, quick=quick, late=sorted(late))
        trio = network_trio(plan, weights, keys=(CP, SP), weight_key=WEIGHTS)
        logits.append(run_network(trio, plan, images))
        assert trio.measured == without_zeros(plan.cost)
    assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[0], logits[2])


def test_messages_of_a_layer_are_halved():
    graph, _ = pooled()
    four, two = (schedule(graph, Precision(), quick=quick) for quick in ((), candidates(graph)))
    halved = {"relu": (4, 2), "maxpool": (8, 4)}
    for before, after in zip(four.steps, two.steps, strict=True):
        assert (before.name, before.op, before.result) == (after.name, after.op, after.result)
        assert (before.cost.messages, after.cost.messages) == halved.get(before.kind, (before.cost.messages,) * 2)
        assert before.drelus == after.drelus


def test_without_a_word_nothing_changes():
    graph, _ = pooled()
    assert fingerprint(graph, Precision(), None) == fingerprint(graph, Precision(), None, "logits", ())
    assert fingerprint(graph, Precision(), None) != fingerprint(graph, Precision(), None, "logits", ("relu2",))
    assert fingerprint(graph, Precision(), None) != fingerprint(graph, Precision(), None, late=("relu2",))
    relus = [step.protocol for step in schedule(graph, Precision()).steps if step.kind == "relu"]
    assert not any(isinstance(relu, QuickRelu | LateRelu) for relu in relus)


@pytest.mark.parametrize("name", ("conv1", "clip2", "nothing"))
def test_what_has_no_two_messages_is_refused(name):
    net = Builder(3, 6, 6)
    graph, _ = net.output(net.conv(net.clip(net.conv("input", 3)), 2))
    assert candidates(graph) == ()
    with pytest.raises(InputError, match=f"two messages: '{name}' is no relu or bend or rectify or maxpool of this network"):
        schedule(graph, Precision(), quick=(name,))


def test_what_has_no_six_messages_is_refused_or_keeps_four():
    net = Builder(3, 6, 6)
    graph, _ = net.output(net.conv(net.relu(net.node("bend", net.conv("input", 3), slopes=[0.5, 1.0])), 2))
    relu, bend = (next(node.name for node in graph.nodes if node.kind == kind) for kind in ("relu", "bend"))
    with pytest.raises(InputError, match=f"six messages: '{bend}' is no relu or clip of this network"):
        schedule(graph, Precision(), late=(bend,))
    with pytest.raises(InputError, match=f"six messages: '{relu}' takes two"):
        schedule(graph, Precision(), late=(relu,), quick=(relu,))
    assert [step.cost.messages for step in schedule(graph, Precision(), late=(relu,)).steps if step.kind in ("relu", "bend")] == [4, 6]


def test_a_model_in_six_messages_is_described():
    graph, _ = pooled()
    six = PublicModel(graph, Precision(), None, ModelCard("late", Preprocessing((12, 12))), late=candidates(graph, LATE_KINDS))
    again = PublicModel.from_plain(six.to_plain())
    assert (
        again == six and again.is_varied and again.plan(1).cost.messages == schedule(graph, Precision()).cost.messages + 2 * len(six.late)
    )
    assert (
        six.plan(1).kept_bytes - schedule(graph, Precision()).kept_bytes
        == sum(step.protocol.kept_bytes for step in six.plan(1).steps if step.kind == "relu")
        > 0
    )


def test_a_comparison_too_wide_for_two_messages_keeps_four():
    """One fractional bit leaves 63 of 64 to compare. Nobody who is told so, a provider least of all, may stumble over it."""
    graph, _ = pooled()
    precision = Precision(64, 1, window=(1, 62))
    described = PublicModel(graph, precision, None, ModelCard("wide", Preprocessing((12, 12))), quick=candidates(graph)).to_plain()
    assert PublicModel.from_plain(described).plan(1).cost == schedule(graph, precision).cost


def cost(dealt, online, messages):
    return Cost({"provider->server": dealt}, {"server->client": online}, messages=messages)


REST = Cost({"provider->server": 10**6}, {"client->server": 10**5}, messages=2)


def test_a_layer_waits_for_what_is_dealt_and_for_the_layer_before():
    links = Links(LinkPreset(8e6, 0.5), {"server": HostRates(8e5, 1.6e6)})
    assert links.online_seconds(cost(0, 10**5, 3)) == 1.5 + 1.0
    assert links.finish([cost(10**6, 10**5, 3)]) == 5.5 + 2.5, "what the server receives, at 200 kB a second, and then the messages"
    assert links.finish([cost(10**5, 10**6, 0), cost(10**5, 0, 2)]) == 1.0 + 10.0 + 1.0, "the second layer's has come meanwhile"
    assert links.finish([cost(0, 0, 4), cost(10**6, 0, 2)]) == 5.5 + 1.0, "it comes while the first layer waits for its messages"
    assert Links().finish([cost(10**9, 10**9, 9)]) == 0


def test_what_is_in_pieces_goes_both_ways_at_once():
    links = Links(LinkPreset(8e6, 0.5))
    both = {"server->client": 10**6, "client->server": 2 * 10**6}
    assert links.online_seconds(Cost(online=both, messages=4)) == 2.0 + 2.0
    assert links.online_seconds(Cost(online={link: size // 100 for link, size in both.items()}, messages=4)) == 2.0 + 0.03


def by_rows(dealt, to, back, rows):
    return Cost({"provider->server": dealt}, {"server->client": to, "client->server": back}, messages=2, rows=rows)


def test_of_a_layer_by_rows_the_next_one_waits_for_the_first_pieces_alone():
    links = Links(LinkPreset(8e6, 0.5))
    layer = by_rows(0, 10**6, 2 * 10**6, 10)
    assert links.online_seconds(layer) == 2.0, "its answers keep their link busy for longer than the next layer waits"
    assert links.online_seconds(by_rows(0, 10**6, 10**6, 10)) == pytest.approx(1.0 + 0.1 + 0.2)
    assert links.online_seconds(by_rows(0, 10**6, 10**6, 1)) == 1.0 + 1.0 + 1.0
    end = Cost(online={"server->client": 0}, messages=1)
    assert links.finish([layer, end]) == pytest.approx(0.5 + 0.1 + 2.0 + 0.5 + 0.5), (
        "what comes after all layers by rows waits for all of them"
    )
    assert links.finish([layer] * 3 + [end]) == pytest.approx(0.5 + 0.1 + 6.0 + 0.5 + 0.5), "answers go one after the other"
    assert links.finish([by_rows(0, 10**5, 10**6, 10)] * 3) == pytest.approx(3 * (1.0 + 0.01 + 0.2))


def test_the_plan_says_which_layers_go_by_rows():
    graph, _ = pooled()
    plan = schedule(graph, Precision(), quick=candidates(graph), piece=20)
    assert [step.cost.rows for step in plan.steps if step.cost.messages] == [0, 12, 0, 6, 0] and plan.cost.rows == 0


def test_small_layers_take_two_messages_where_delay_is_long():
    names = "rest", "large", "small"
    four = [REST, cost(10**7, 10**6, 4), cost(10**4, 10**3, 4)]
    two = [REST, cost(5 * 10**7, 12 * 10**5, 2), cost(5 * 10**4, 1200, 2)]
    assert cheapest(four, [two], names, Links(LinkPreset(1e9, 20e-3))) == [("small",)]
    assert cheapest(four, [two], names, Links(LinkPreset(1e11, 20e-3))) == [("large", "small")]
    assert cheapest(four, [two], names, Links(LinkPreset(1e8, 1e-6))) == [()]
    assert cheapest(four, [two], names, Links()) == [()]


def test_of_two_alike_the_later_one_takes_two_messages():
    """What is dealt for it comes while the first one waits for its messages."""
    four, two = cost(10**6, 10**4, 4), cost(7 * 10**6, 10**4, 2)
    assert cheapest([four, four], [[two, two]], ("first", "second"), Links(LinkPreset(1e9, 20e-3))) == [("second",)]


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**6), st.integers(2, 8)), min_size=1, max_size=12),
    st.sampled_from([preset for preset in NETWORKS.values() if preset]),
)
def test_the_choice_is_never_slower_than_four_messages(layers, preset):
    four = [cost(dealt, online, 4) for dealt, online, _ in layers]
    two = [cost(dealt * factor, online + online // 5, 2) for dealt, online, factor in layers]
    links, names = Links(preset), [str(i) for i in range(len(layers))]
    (chosen,) = cheapest(four, [two], names, links)
    seconds = lambda quick: links.finish([two[i] if name in quick else four[i] for i, name in enumerate(names)])
    assert seconds(chosen) <= seconds(())
    assert all(links.online_seconds(two[int(name)]) < links.online_seconds(four[int(name)]) for name in chosen)


def test_six_messages_are_taken_where_rates_decide_and_two_where_delay_does():
    names = "rest", "large", "small"
    four = [REST, cost(10**7, 10**6, 4), cost(10**4, 10**3, 4)]
    two = [REST, cost(5 * 10**7, 12 * 10**5, 2), cost(5 * 10**4, 1200, 2)]
    six = [REST, cost(75 * 10**5, 11 * 10**5, 6), cost(7500, 1100, 6)]
    assert cheapest(four, [two, six], names, Links(LinkPreset(1e9, 1e-4))) == [("small",), ("large",)]
    assert cheapest(four, [two, six], names, Links(LinkPreset(1e6, 1e-9))) == [(), ("large",)], "the small one's comes meanwhile"
    assert cheapest(four, [two, six], names, Links(LinkPreset(1e11, 20e-3))) == [("large", "small"), ()]
    assert cheapest(four, [two, six], names, Links()) == [(), ()]


def test_where_all_was_dealt_before_a_layer_takes_two_messages_as_long_as_its_online_bytes_are_worth_it():
    """The dealt bytes of the large layer, for which it keeps four messages where they are waited for, count no more."""
    names = "rest", "large", "small"
    four = [REST, cost(10**7, 10**6, 4), cost(10**4, 10**3, 4)]
    two = [REST, cost(5 * 10**7, 12 * 10**5, 2), cost(5 * 10**4, 1200, 2)]
    six = [REST, cost(75 * 10**5, 9 * 10**5, 6), cost(7500, 1100, 6)]
    links = Links(LinkPreset(1e9, 20e-3))
    assert cheapest(four, [two, six], names, links) == [("small",), ()]
    assert shortest_online(four, [two, six], names, links) == [("large", "small"), ()]
    assert shortest_online(four, [two, six], names, Links(LinkPreset(1e7, 20e-3))) == [("small",), ("large",)]
    assert shortest_online(four, [two, six], names, Links()) == [(), ()], "where nothing takes any time, four"
    limits = {51_000_000 + 60_000: ("large", "small"), 51_000_000 + 49_999: ("small",), 0: ()}
    little = [REST, cost(5 * 10**7, 5 * 10**6, 2), cost(5 * 10**4, 1200, 2)]
    assert shortest_online(four, [little], names, Links(LinkPreset(1e9, 5e-3)), 10**9) == [("small",)], "far more bytes for little"
    for most, quick in limits.items():
        assert shortest_online(four, [two, six], names, links, most) == [quick, ()], most


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**6), st.integers(2, 8)), min_size=1, max_size=12), st.integers(0, 10**8))
def test_what_is_shortest_online_is_no_longer_than_any_other_choice_and_keeps_to_its_limit(layers, most):
    four = [cost(dealt, online, 4) for dealt, online, _ in layers]
    two = [cost(dealt * factor, online + online // 5, 2) for dealt, online, factor in layers]
    links, names = Links(NETWORKS["wan352"]), [str(i) for i in range(len(layers))]
    made = lambda quick: [two[i] if name in quick else four[i] for i, name in enumerate(names)]
    seconds, dealt = lambda quick: sum(map(links.online_seconds, made(quick))), lambda quick: sum(c.total("offline") for c in made(quick))
    (best,), (limited,) = (shortest_online(four, [two], names, links, limit) for limit in (float("inf"), most))
    assert 0.9 * seconds(best) <= min(seconds(limited), seconds(()), seconds(names), seconds(cheapest(four, [two], names, links)[0]))
    assert set(limited) <= set(best) and (dealt(limited) <= most or not limited)
