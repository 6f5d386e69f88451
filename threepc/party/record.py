"""What one inference cost, as measured, and the report that users read."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.transport.meter import Count

USAGE = ("peak_rss_mb", "cpu_seconds")
"""What a party says of its own process."""

Counts = dict[tuple[tuple[str, str], str, int], Count]


@dataclass
class Record:
    """One inference: seconds by phase, [bytes, messages] by link and phase, seconds, bytes and online messages of every step, memory and processor time by party.

    offline: until all is dealt and prepared; online: from the first online message to the decoded result; total: wall clock from input ready to
    result decoded, less than the sum where the phases overlap. layers: the server's seconds for the step, waiting included. Memory and processor
    time are absent for a party whose process has served others besides. incomplete: why a party could not say its part, "" where all have.
    precomputed: how many inferences' offline phases were over before they were asked for.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    links: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    incomplete: str = ""
    precomputed: int = 0

    def add_usage(self, role: str, fields: Mapping[str, float]) -> None:
        """Note what a party says of its process; a key of USAGE that it leaves out stays absent."""
        for key in USAGE:
            if key in fields:
                getattr(self, key)[role] = fields[key]

    def to_plain(self) -> dict[str, Any]:
        """JSON-plain."""
        return dict(vars(self))


def difference(after: Counts, before: Counts) -> Counts:
    """What was counted between two readings of a meter."""
    grown = {
        key: Count(count.bytes - before[key].bytes, count.messages - before[key].messages) if key in before else count
        for key, count in after.items()
    }
    return {key: count for key, count in grown.items() if count.messages}


def by_link(counts: Counts) -> dict[str, dict[str, list[int]]]:
    """[bytes, messages] by "sender->receiver" and phase."""
    links: dict[str, dict[str, list[int]]] = {}
    for ((sender, receiver), phase, _), count in counts.items():
        entry = links.setdefault(f"{sender}->{receiver}", {}).setdefault(phase, [0, 0])
        entry[0] += count.bytes
        entry[1] += count.messages
    return links


def by_step(plan: Plan, counts: Counts) -> list[list[int]]:
    """[bytes, online messages] of every step, whose addresses run from its op to the next step's."""
    starts, result = [step.op for step in plan.steps], [[0, 0] for _ in plan.steps]
    for (_, phase, op), count in counts.items():
        if phase != "setup" and op >= starts[0]:
            entry = result[bisect.bisect_right(starts, op) - 1]
            entry[0] += count.bytes
            entry[1] += count.messages * (phase == "online")
    return result


def merged(records: Iterable[Record]) -> Record:
    """The sum of several inferences of one plan; memory is the largest."""
    records = list(records)
    total = Record({phase: sum(r.seconds[phase] for r in records) for phase in records[0].seconds})
    for record in records:
        for link, phases in record.links.items():
            for phase, (size, messages) in phases.items():
                entry = total.links.setdefault(link, {}).setdefault(phase, [0, 0])
                entry[0] += size
                entry[1] += messages
    for party in records[0].peak_rss_mb:
        if all(party in record.peak_rss_mb for record in records):
            total.peak_rss_mb[party] = max(record.peak_rss_mb[party] for record in records)
    for party in records[0].cpu_seconds:
        if all(party in record.cpu_seconds for record in records):
            total.cpu_seconds[party] = sum(record.cpu_seconds[party] for record in records)
    total.precomputed = sum(record.precomputed for record in records)
    total.incomplete = next((record.incomplete for record in records if record.incomplete), "")
    if total.incomplete:
        return total
    for layer in zip(*(r.layers for r in records), strict=True):
        total.layers.append(layer[0] | {key: sum(part[key] for part in layer) for key in ("seconds", "bytes", "messages")})
    return total


def report(
    model: PublicModel, record: Record, images: int, spec: str | None, setup: Mapping[str, list[int]], setup_seconds: float
) -> dict[str, Any]:
    """The report of one or several inferences under its stable names. setup: [bytes, messages] by link, spent once."""
    links = {link: dict(phases) for link, phases in record.links.items()}
    for link, count in setup.items():
        links.setdefault(link, {})["setup"] = list(count)
    sizes = {phase: sum(phases[phase][0] for phases in links.values() if phase in phases) for phase in ("setup", "offline", "online")}
    incomplete = {"incomplete": record.incomplete} if record.incomplete else {}
    return model.facts(images, spec) | {
        "seconds": {"setup": setup_seconds, **record.seconds},
        "bytes": {**sizes, "total": sizes["offline"] + sizes["online"]},
        "links": {
            link: {phase: {"bytes": c[0], "messages": c[1]} for phase, c in phases.items()} for link, phases in sorted(links.items())
        },
        "messages_online": sum(phases["online"][1] for phases in record.links.values() if "online" in phases),
        "peak_rss_mb": record.peak_rss_mb,
        "cpu_seconds": record.cpu_seconds,
        "layers": record.layers,
        **({"precomputed": record.precomputed} if record.precomputed else {}),
        **incomplete,
    }
