"""Which layers take two online messages, or six, instead of four: chosen from declared costs and from what is said of the links between the parties.

Four messages are the default. Two save a layer the time of two messages on their way, and cost two to seven times its dealt bytes, which the
links carry meanwhile. Six take two more on their way, and save a quarter of its dealt bytes. So a layer has as many as let the inference end earliest,
going through the layers in order: each waits for the one before, and for all that was dealt until then. Processors are left out.

Where inferences are dealt and prepared before their images come, nothing waits for what is dealt, and each layer has as many messages as make itself
shortest online (`shortest_online`): mostly two, and four where so many more online bytes would take longer than two messages on their way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from threepc.choices import HostRates, LinkPreset
from threepc.graph.ir import Graph
from threepc.kernels.packing import TILE
from threepc.protocol.cost import Cost

QUICK_KINDS = ("relu", "bend", "rectify", "maxpool")
"""Kinds of nodes whose ReLUs can have two messages; a clip decides twice."""

LATE_KINDS = ("relu", "clip")
"""Kinds of nodes that can have six: whose gates have no slopes, or mostly not."""

PIECE_S, OPENED_BITS = 5e-3, 32
CLEAR_GAIN = 0.9
"""A layer's online messages must take less than this part of their time for `shortest_online` to have more bytes dealt for them."""
WAITED_FOR = 2
"""So many pieces of rows the next layer waits for, before it begins."""
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

    @property
    def _delay(self) -> float:
        return self.preset.one_way_delay_s if self.preset else 0.0

    def online_seconds(self, cost: Cost) -> float:
        """Of a layer's online messages, one after the other; of one in pieces, whose messages go both ways at once, the longer of two ways.

        Of one by rows, of which the next layer needs the first pieces alone: until these are there, or as long as all answers keep their link busy.
        """
        delay = self._delay
        if cost.rows:
            first, answers = self._by_rows(cost)
            return max(2 * delay + first + WAITED_FOR / max(WAITED_FOR, cost.rows) * answers, answers)
        times = [8 * size / self._rate(link) for link, size in cost.online.items()]
        in_pieces = self.piece and sum(cost.online.values()) > 2 * OPENED_BITS / 8 * self.piece
        return cost.messages * delay + (max(times) if in_pieces else sum(times))

    def _by_rows(self, cost: Cost) -> tuple[float, float]:
        """Seconds of the server's first piece, and of all the client's answers."""
        to, back = (8 * cost.online.get(link, 0) / self._rate(link) for link in ("server->client", "client->server"))
        return to / cost.rows, back

    def finish(self, costs: Iterable[Cost]) -> float:
        """When an inference ends whose steps cost that, in order: each begins when the one before has ended and what is dealt and prepared for it is there.

        Processors are left out.
        """
        now, free, dealt, delay = 0.0, -math.inf, Counter[str](), self._delay  # free: when the client's answers so far have left
        rates = {link: self._rate(link) / 8 for link in ("provider->server", "provider->client", "client->server", "server->client")}
        hosts = [(party, end, rate / 8) for party, rates_of in self.hosts.items() for end, rate in enumerate(rates_of) if rate < math.inf]
        ends = {link: link.split("->") for link in rates}
        for cost in costs:
            if any(cost.offline.values()):
                for link, size in cost.offline.items():
                    dealt[link] += size
                shared = (sum(size for link, size in dealt.items() if ends[link][end] == party) / rate for party, end, rate in hosts)
                now = max(now, delay + max(0.0, *(size / rates[link] for link, size in dealt.items()), *shared))
            if cost.rows:
                first, answers = self._by_rows(cost)
                begun = max(now + delay + first, free)
                now, free = begun + WAITED_FOR / max(WAITED_FOR, cost.rows) * answers + delay, begun + answers
            elif cost.messages or cost.online:
                now = max(now, free + delay) + self.online_seconds(cost)
            for link, size in cost.online.items():
                dealt[link] += size
        return now

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


def candidates(graph: Graph, kinds: Sequence[str] = QUICK_KINDS) -> tuple[str, ...]:
    """The layers that can take two messages; with `LATE_KINDS`, six."""
    return tuple(node.name for node in graph.nodes if node.kind in kinds)


def cheapest(four: Sequence[Cost], others: Sequence[Sequence[Cost]], names: Sequence[str], links: Links) -> list[tuple[str, ...]]:
    """For each of `others`, the layers to take that many messages; the rest take four.

    four, others: the costs of a plan's steps, in order, all in four messages, and all that can in another number; names: of the steps.

    Layers are tried from the last one on, and again, as long as that makes the inference end earlier. A layer late in a network has the links to
    itself, for what is dealt for it comes while others wait for their messages; one at the beginning is waited for.
    """
    variants, chosen, costs = [four, *others], [0] * len(four), list(four)
    fastest, before = links.finish(costs), math.inf
    while fastest < before:
        before = fastest
        for index in reversed(range(len(four))):
            for which, variant in enumerate(variants):
                if variant[index] == costs[index]:
                    continue
                now, costs[index] = costs[index], variant[index]
                seconds = fastest if costs[index] == now else links.finish(costs)
                if seconds < fastest:
                    fastest, chosen[index] = seconds, which
                else:
                    costs[index] = now
    return [tuple(dict.fromkeys(names[i] for i, which in enumerate(chosen) if which == other)) for other in range(1, len(variants))]


def shortest_online(
    four: Sequence[Cost], others: Sequence[Sequence[Cost]], names: Sequence[str], links: Links, most_dealt: float = math.inf
) -> list[tuple[str, ...]]:
    """As `cheapest`, for inferences whose material was dealt before: each layer takes what makes its online messages shortest, clearly so where that deals more.

    most_dealt: bytes that the provider may send for an inference. Where the choice would have it send more, and more than with four messages, the layers
    that save least time for their bytes go back to four, until it fits.
    """
    variants = list(zip(four, *others, strict=True))
    seconds = [[links.online_seconds(cost) for cost in variant] for variant in variants]
    chosen = [times.index(min(times)) for times in seconds]
    more = [_dealt(variant[which]) - _dealt(variant[0]) for variant, which in zip(variants, chosen, strict=True)]
    for index, times in enumerate(seconds):
        if more[index] > 0 and min(times) >= CLEAR_GAIN * times[0]:
            chosen[index] = more[index] = 0
    over = sum(more) + sum(map(_dealt, four)) - most_dealt
    dearest_first = sorted((i for i, size in enumerate(more) if size > 0), key=lambda i: (seconds[i][0] - min(seconds[i])) / more[i])
    for index in dearest_first:
        if over <= 0:
            break
        chosen[index], over = 0, over - more[index]
    return [tuple(dict.fromkeys(names[i] for i, which in enumerate(chosen) if which == other)) for other in range(1, len(others) + 1)]


def _dealt(cost: Cost) -> int:
    return sum(size for link, size in cost.offline.items() if link.startswith("provider"))
