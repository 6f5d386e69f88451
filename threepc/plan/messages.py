"""Which layers take two online messages instead of four: chosen from declared costs and from what is said of the links between the parties.

Four messages are the default: fewer bytes are dealt. Two save a layer the time of two messages on their way, and cost two to seven times its dealt
bytes, which the links carry meanwhile. So an image takes the longer of two times: of the online messages one after the other, and of the link, or host,
that is busiest in both phases. Processors are left out. Layers are taken in the order of what they save for a dealt byte, as far as that time falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from threepc.choices import HostRates, LinkPreset
from threepc.graph.ir import Graph
from threepc.kernels.packing import TILE
from threepc.protocol.cost import Cost

QUICK_KINDS = ("relu", "bend", "rectify", "maxpool")
"""Kinds of nodes whose ReLUs can have two messages; a clip decides twice."""


PIECE_S, OPENED_BITS = 5e-3, 32
LEAST_PIECE, MOST_PIECE = 2 * TILE, 1 << 30
"""A piece is to take so long on its way that what is done for each message does not count, and no less than is worth a call of the kernels."""


@dataclass(frozen=True)
class Links:
    """Rates in bits a second and the delay of a message in seconds. preset: of every link, None for no limit; hosts: what peers share."""

    preset: LinkPreset | None = None
    hosts: Mapping[str, HostRates] = field(default_factory=dict)

    def _rate(self, link: str) -> float:
        sender, _, receiver = link.partition("->")
        own = self.preset.rate_bits_per_s if self.preset else float("inf")
        return min(own, self.hosts.get(sender, HostRates()).up, self.hosts.get(receiver, HostRates()).down)

    @property
    def piece(self) -> int:
        """Numbers of a layer whose opened values a link between client and server carries in PIECE_S; 0 where it is not said how fast that is."""
        rate = min(map(self._rate, ("client->server", "server->client")))
        return 0 if rate == math.inf else min(max(int(rate * PIECE_S / OPENED_BITS), LEAST_PIECE), MOST_PIECE)

    def online_seconds(self, cost: Cost) -> float:
        """Of the online messages, one after the other."""
        delay = self.preset.one_way_delay_s if self.preset else 0.0
        return cost.messages * delay + sum(8 * size / self._rate(link) for link, size in cost.online.items())

    def seconds(self, cost: Cost) -> float:
        """Of an inference whose material is dealt meanwhile."""
        sizes = {link: cost.offline.get(link, 0) + cost.online.get(link, 0) for link in {**cost.offline, **cost.online}}
        return max(self.online_seconds(cost), self.busiest(sizes))

    def busiest(self, sizes: Mapping[str, int]) -> float:
        """Seconds of the link or host that is busiest with so many bytes by link."""
        return max(self.busy(sizes).values(), default=0.0)

    def busy(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Seconds that every link ("server->client"), uplink ("server up") and downlink ("client down") is busy with so many bytes by link."""
        own = self.preset.rate_bits_per_s if self.preset else float("inf")
        times = {link: 8 * size / own for link, size in sizes.items()}
        for party, rates in self.hosts.items():
            sent, received = (sum(size for link, size in sizes.items() if link.split("->")[end] == party) for end in (0, 1))
            times |= {f"{party} up": 8 * sent / rates.up, f"{party} down": 8 * received / rates.down}
        return times


def candidates(graph: Graph) -> tuple[str, ...]:
    """The layers that can take two messages."""
    return tuple(node.name for node in graph.nodes if node.kind in QUICK_KINDS)


def cheapest(four: Mapping[str, Cost], two: Mapping[str, Cost], rest: Cost, links: Links) -> tuple[str, ...]:
    """The layers to take two messages, in the order of `four`. four, two: their costs by name; rest: of everything else."""
    saved = {name: links.online_seconds(cost) - links.online_seconds(two[name]) for name, cost in four.items()}
    dealt = {name: two[name].total("offline") - cost.total("offline") for name, cost in four.items()}
    order = sorted((name for name in four if saved[name] > 0), key=lambda name: saved[name] / max(1, dealt[name]), reverse=True)
    counts = range(len(order) + 1)
    best = min(counts, key=lambda count: links.seconds(_together(four, two, rest, order[:count])))
    return tuple(name for name in four if name in order[:best])


def _together(four: Mapping[str, Cost], two: Mapping[str, Cost], rest: Cost, quick: Sequence[str]) -> Cost:
    return sum((two[name] if name in quick else cost for name, cost in four.items()), rest)
