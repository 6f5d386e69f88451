"""Who is told its share of a layer's planes, the server or the client: chosen so that no party's link waits for another's.

The provider's messages take most of the bytes, and by default all go to the server. A layer's planes may go to the client instead, which the
protocol allows for each layer by itself (protocol/drelu.py). The bytes stay; they are spread over two hosts' downlinks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from threepc.choices import LABEL, NETWORKS, HostRates, LinkPreset, read_links
from threepc.graph.ir import Graph
from threepc.graph.outputs import revealed
from threepc.graph.relu_spec import Sizes
from threepc.plan.precision import Precision
from threepc.plan.schedule import DECIDING, schedule

WORTH = 0.99
"""The client is told nothing unless the busiest link then needs less than this part of its time."""

_CLIENT, _SERVER = "provider->client", "provider->server"


def choose(graph: Graph, precision: Precision, sizes: Sizes | None, reveal: str, network: str, links: str) -> tuple[str, ...]:
    """Names of the layers whose planes go to the client; () where no host's rate is stated, and where it would not help.

    network: a preset of `choices.NETWORKS`, of each link; links: rates of hosts, as `choices.read_links` takes them. Layers are taken in order, each for the host that is less busy with all before it, so that both are busy to the same degree at any time.
    """
    if not links:
        return ()
    preset, hosts = NETWORKS[network], read_links(links)
    reveals = revealed(graph, reveal)
    of_labels = [node.name for node, what in zip(graph.outputs, reveals, strict=True) if what == LABEL]
    deciding = [node.name for node in graph.nodes if node.kind in DECIDING] + of_labels
    usual, told = (schedule(graph, precision, sizes, 1, reveal, to_client=names) for names in ((), deciding))
    layers = set(deciding)
    so_far: Counter[str] = Counter()
    chosen: dict[str, bool] = {}
    for step, other in zip(usual.steps, told.steps, strict=True):
        so_far.update(step.cost.offline)
        so_far.update(step.cost.online)
        planes = other.cost.offline.get(_CLIENT, 0)
        if planes:
            moved = so_far + Counter({_CLIENT: planes})
            moved[_SERVER] -= planes
            name = step.name if step.name in layers else step.name.rpartition("/")[0]
            if chosen.setdefault(name, seconds(moved, preset, hosts) < seconds(so_far, preset, hosts)):
                so_far = moved
    names = tuple(name for name, is_chosen in chosen.items() if is_chosen)
    all_bytes = Counter(usual.cost.offline) + Counter(usual.cost.online)
    return names if seconds(so_far, preset, hosts) < WORTH * seconds(all_bytes, preset, hosts) else ()


def seconds(links: Mapping[str, int], preset: LinkPreset | None, hosts: Mapping[str, HostRates]) -> float:
    """The time of the busiest link or host that carries so many bytes by link, delays apart; 0 where no rate limits any."""
    return max(busy(links, preset, hosts).values(), default=0.0)


def busy(links: Mapping[str, int], preset: LinkPreset | None, hosts: Mapping[str, HostRates]) -> dict[str, float]:
    """Seconds that every link ("server->client"), uplink ("server up") and downlink ("client down") is busy."""
    rate = math.inf if preset is None else preset.rate_bits_per_s
    times = {link: 8 * size / rate for link, size in links.items()}
    for party, rates in hosts.items():
        for end, side, host_rate in ((0, "up", rates.up), (1, "down", rates.down)):
            through = _through(links, party, end)
            times[f"{party} {side}"] = 8 * through / host_rate
    return times


def _through(links: Mapping[str, int], party: str, end: int) -> int:
    return sum(size for link, size in links.items() if _ends(link)[end] == party)


def _ends(link: str) -> Sequence[str]:
    return link.split("->")
