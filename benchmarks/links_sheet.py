"""The tables of the section links."""

from __future__ import annotations

from benchmarks.sheet import Sheet, in_seconds, megabytes, spread_of
from benchmarks.store import Entry

_LINKS = ("provider->server", "provider->client", "client->server", "server->client")
_PARTS = 3
"""So many parts of a critical path are told; what they leave out is less than each of them."""


def sheets(entries: list[Entry]) -> list[Sheet]:
    """What an inference takes and what it waits for, and what travels."""
    done = [entry for entry in entries if "refused" not in entry]
    times = [(*_names(entry), *_times(entry)) for entry in done]
    sizes = [(*_names(entry), *_sizes(entry)) for entry in done]
    names = ("network", "l", "spec", "links")
    notes = (
        "busiest: the link, uplink or downlink that its bytes keep busy longest; least: that time, or all one-way delays, whichever is more.",
        "waited for: the largest parts of the critical path, by party; on its way: sent, and not there yet.",
    )
    return [
        Sheet("Hosts: time", (*names, "measured", "model", "ratio", "least", "busiest", "waited for"), times, notes, text=4),
        Sheet("Hosts: MB by link, processor seconds by party", (*names, *_LINKS, "provider / server / client"), sizes, text=4),
    ]


def _names(entry: Entry) -> tuple[str, ...]:
    spec = "every ReLU" if entry["patch"] is None else f"patches {entry['patch'][0]}x{entry['patch'][1]}"
    told = f", {entry['told']} layers dealt to the client" if entry["told"] else ""
    quick = f", {entry['quick']} layers of two messages" if entry["quick"] else ""
    quick += f", {entry['late']} of six" if entry.get("late") else ""  # results of earlier versions say nothing of these
    ahead = ", prepared ahead" if entry.get("prepared") else ""
    return entry["title"], str(entry["ring"]), spec, entry["links"] + ahead + told + quick


def _times(entry: Entry) -> tuple[str, ...]:
    measured, predicted = entry["seconds"], entry["predicted"]
    model = ("", "") if predicted is None else (in_seconds(predicted["total"]), f"{predicted['total'] / measured['median']:.2f}")
    what, longest = max(entry["busy"].items(), key=lambda item: item[1])
    path = ", ".join(f"{what} {in_seconds(seconds)}" for what, seconds in list(entry["path"].items())[:_PARTS])
    return spread_of(measured), *model, in_seconds(entry["least"]), f"{what} {in_seconds(longest)}", path


def _sizes(entry: Entry) -> tuple[str, ...]:
    seconds = " / ".join(f"{entry['cpu_seconds'][role]:.2f}" for role in ("provider", "server", "client"))
    return *(megabytes(entry["bytes"].get(link, 0)) for link in _LINKS), seconds
