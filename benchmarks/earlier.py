"""Results of earlier commits beside those of now: what the changes in between have gained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks import store
from benchmarks.passes import sums
from benchmarks.store import Entry, Sections
from threepc.errors import InputError

SECTION = "earlier"


def keep(output: Path, folders: Iterable[Path], machine: Entry) -> None:
    """Write the figures of earlier results to a section of their own, one case a commit. Raises InputError for a folder without results."""
    section = store.Section(output, SECTION, machine, resume=False)
    for folder in folders:
        sections = store.load(folder)
        if "networks" not in sections:
            raise InputError(f"{folder} holds no results of networks")
        described = sections["networks"]["machine"]
        section.add(
            {
                "case": described["commit"],
                "started": described["started"],
                "processor": described["processor"],
                "figures": figures(sections),
            }
        )


def figures(sections: Sections) -> dict[str, dict[str, float]]:
    """What is compared, by name: seconds with their ratios to plaintext, processor time, and nanoseconds a ReLU."""
    cases = {name: section["cases"] for name, section in sections.items()}
    found: dict[str, dict[str, float]] = {}
    for entry in cases.get("networks", ()):
        if "refused" not in entry:
            own = {f"{phase} s": entry["seconds"][phase]["median"] for phase in ("total", "online") if phase in entry["seconds"]}
            own |= {f"{phase} ratio": entry["ratio"][phase] for phase in ("total", "online") if phase in entry["ratio"]}
            found[entry["case"]] = own | {"CPU s": sum(entry["cpu_seconds"].values())}
    for entry in cases.get("relus", ()):
        if "passes" in entry:
            found[entry["case"]] = {"ns": sums(entry["passes"])["all"]}
        elif "seconds" in entry:
            found[entry["case"]] = {"total s": entry["seconds"]["total"]["median"], "CPU s": sum(entry["cpu_seconds"].values())}
    return found


def in_words(figure: dict[str, float]) -> str:
    """One cell: total, of it online, ratios, processor time."""
    if not figure:
        return ""
    if "ns" in figure:
        return f"{figure['ns']:.1f} ns a ReLU"
    online = f", online {_time(figure, 'online')}" if "online s" in figure else ""
    return f"{_time(figure, 'total')}{online}, CPU {figure['CPU s'] * 1e3:.0f} ms"


def _time(figure: dict[str, float], phase: str) -> str:
    ratio = f" ({figure[f'{phase} ratio']:.1f}x)" if f"{phase} ratio" in figure else ""
    return f"{figure[f'{phase} s'] * 1e3:.0f} ms{ratio}"
