"""Who is told its share of the planes, by the links' rates."""

import pytest

from tests.graph.building import branching, residual
from threepc.choices import HostRates, LinkPreset
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel
from threepc.plan.messages import Links, candidates
from threepc.plan.precision import Precision
from threepc.plan.schedule import fingerprint, schedule

PRECISION = Precision.default(48)


def times(graph, names, network, hosts):
    cost = schedule(graph, PRECISION, to_client=names).cost
    links = {link: cost.offline.get(link, 0) + cost.online.get(link, 0) for link in {**cost.offline, **cost.online}}
    return Links(network, hosts).busiest(links)


def chosen(graph, links, network="none", reveal="logits", quick=()):
    model = PublicModel(graph, PRECISION, None, ModelCard("small", Preprocessing(graph.input.shape[1:])), reveal, quick)
    return model.balanced(network, links).to_client


def test_without_rates_nothing_changes():
    graph, _ = residual()
    assert chosen(graph, "") == chosen(graph, "", "wan") == ()
    assert fingerprint(graph, PRECISION, None) == fingerprint(graph, PRECISION, None, to_client=())
    assert schedule(graph, PRECISION).cost == schedule(graph, PRECISION, to_client=()).cost


def test_two_downlinks_of_one_rate_are_busy_alike():
    graph, _ = residual()
    names = chosen(graph, "server=100M,client=100M")
    hosts = {"server": HostRates(1e8, 1e8), "client": HostRates(1e8, 1e8)}
    assert names and times(graph, names, None, hosts) < 0.8 * times(graph, (), None, hosts)
    usual, told = (schedule(graph, PRECISION, to_client=of).cost for of in ((), names))
    assert usual.total("offline") == told.total("offline") and usual.online == told.online
    assert fingerprint(graph, PRECISION, None, to_client=names) != fingerprint(graph, PRECISION, None)
    for name in names:
        assert times(graph, [other for other in names if other != name], None, hosts) >= 0.9 * times(graph, names, None, hosts)


@pytest.mark.parametrize("links", ["server=1G,client=1M", "provider=1M,server=1G,client=1G", "client=1M", "server=1k/1G"])
def test_nothing_is_told_to_who_has_no_room_or_where_another_link_is_the_narrow_one(links):
    assert chosen(residual()[0], links) == ()


def test_a_rate_of_each_link_counts_too():
    """Links of one rate to server and client, hosts that could take more."""
    assert chosen(residual()[0], "each=10G", "lan")


def test_labels_are_decided_too():
    graph, _ = branching()
    names = chosen(graph, "server=1M,client=1G", reveal="label")
    assert graph.output.name in names and graph.output.name not in chosen(graph, "server=1M,client=1G")
    assert set(names) == {n.name for n in graph.nodes if n.kind in ("relu", "clip", "maxpool", "output")}


@pytest.mark.parametrize(
    "names, reason", [(["conv"], "no layer of this network that decides"), (["output"], "no layer"), (["relu", "relu"], "named twice")]
)
def test_layers_that_cannot_be_told(names, reason):
    graph, _ = residual()
    first = next(node.name for node in graph.nodes if node.kind == "relu")
    with pytest.raises(InputError, match=reason):
        schedule(graph, PRECISION, to_client=[first if name == "relu" else name for name in names])


def test_what_is_busy_how_long():
    links = {"provider->server": 1000, "provider->client": 500, "server->client": 250}
    hosts = {"provider": HostRates(up=8e3), "client": HostRates(4e3, 2e3)}
    found = Links(LinkPreset(1e4, 1.0), hosts).busy(links)
    assert found == {
        "provider->server": 0.8,
        "provider->client": 0.4,
        "server->client": 0.2,
        "provider up": 1.5,
        "provider down": 0.0,
        "client up": 0.0,
        "client down": 3.0,
    }
    assert Links().busiest({}) == 0.0


def test_layers_of_two_messages_stay_as_they_are():
    graph, _ = residual()
    quick = candidates(graph)
    assert chosen(graph, "server=1M,client=1G", quick=quick) == ()
    assert set(chosen(graph, "server=1M,client=1G", quick=quick[1:])) == {quick[0]}
    with pytest.raises(InputError, match="no layer of this network that decides in four messages"):
        schedule(graph, PRECISION, quick=quick, to_client=quick[:1])
