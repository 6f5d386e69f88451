"""What the project set out to reach, and whether the results do. Ratios are to PyTorch in the clear on two threads in the same run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import kernels, machine
from benchmarks.store import Entry, Sections

OF_CASE = {
    ("resnet50", "plain"): {"total": (20, 15), "online": (9, 7)},
    ("resnet50", "4x4"): {"total": (14, 10)},
    ("resnet18_cifar", "plain"): {"total": (11, 9)},
}
"""Largest ratio for 48 and 32 bits."""
SECONDS_OF_CASE = {"mobilenet_deeplab": (6, 5), "mobilenet_deeplab_relu": (6, 5), "resnet50_deeplab": (15, 13)}
MILLION_SECONDS = {48: 0.05, 32: 0.035}
LEAST_GMACS = {48: 45.0, 64: 20.0, 32: 40.0}
MOST_MESSAGES, MOST_MEGABYTES, TCP_RATIO = 215, 800.0, 1.6


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; least: reaching it means at least as much, otherwise at most; doubt: why it cannot be judged."""

    what: str
    target: float
    measured: float
    unit: str
    least: bool = False
    doubt: str = ""

    @property
    def reached(self) -> bool:
        """Whether the measured value is as good as the target."""
        return self.measured >= self.target if self.least else self.measured <= self.target


def verdicts(sections: Sections) -> list[Verdict]:
    """For every target whose case was measured."""
    entries = [e for e in _cases(sections, "networks") if e["network"] == "none" and e["batch"] == 1 and "refused" not in e]
    over_ipc = {(e["subject"], _spec(e), e["ring"]): e for e in entries if e["transport"] == "ipc"}
    found = [verdict for entry in over_ipc.values() for verdict in _of_network(entry, sections)]
    for entry in entries:
        local = over_ipc.get((entry["subject"], _spec(entry), entry["ring"]))
        if entry["transport"] == "tcp" and local:
            ratio = entry["seconds"]["total"]["median"] / local["seconds"]["total"]["median"]
            what = f"{entry['title']}, l = {entry['ring']}: CURVE over TCP to ipc"
            found.append(Verdict(what, TCP_RATIO, ratio, "x", doubt=_busy(sections, "networks")))
    for entry in _cases(sections, "relus"):
        if entry.get("relus") == 1_000_000 and entry["ring"] in MILLION_SECONDS and entry["transport"] == "ipc":
            what, seconds = f"a million ReLUs with truncation, l = {entry['ring']}", entry["seconds"]["total"]["median"]
            found.append(Verdict(what, MILLION_SECONDS[entry["ring"]], seconds, "s", doubt=_busy(sections, "relus")))
    for entry in _cases(sections, "kernels"):
        if entry.get("network") == "ResNet-50" and entry["ring"] in LEAST_GMACS:
            what, rate = f"convolutions of ResNet-50, one core, l = {entry['ring']}", kernels.together(entry["layers"])
            found.append(Verdict(what, LEAST_GMACS[entry["ring"]], rate, "GMAC/s", True, _busy(sections, "kernels")))
    return found


def _of_network(entry: Entry, sections: Sections) -> Iterator[Verdict]:
    """Ratios, seconds, messages and memory of a whole inference over ipc."""
    column = {48: 0, 32: 1}.get(entry["ring"])
    if column is None:
        return
    subject, spec, busy = entry["subject"], _spec(entry), _busy(sections, "networks")
    what = f"{entry['title']}, {spec} ReLUs, l = {entry['ring']}"
    for phase, bounds in OF_CASE.get((subject, spec), {}).items():
        if phase in entry["ratio"]:
            yield Verdict(f"{what}: {phase}", bounds[column], entry["ratio"][phase], "x", doubt=busy or disturbed(entry))
    if subject in SECONDS_OF_CASE and spec == "plain":
        yield Verdict(f"{what}: total", SECONDS_OF_CASE[subject][column], entry["seconds"]["total"]["median"], "s", doubt=busy)
    if (subject, spec) == ("resnet50", "plain"):
        yield Verdict(f"{what}: online messages", MOST_MESSAGES, entry["messages_online"], "")
        if base := baseline(sections, entry["ring"]):
            above = max(entry["peak_rss_mb"][role] - base[role] for role in base)
            yield Verdict(f"{what}: memory of a party above an idle one's", MOST_MEGABYTES, above, "MB")


def _cases(sections: Sections, name: str) -> list[Entry]:
    return sections[name]["cases"] if name in sections else []


def _busy(sections: Sections, name: str) -> str:
    return "the machine was not idle" if machine.warning(sections[name]["machine"]) else ""


def disturbed(entry: Entry) -> str:
    """What speaks against an entry's ratios: PyTorch slower on two threads than on one means that other programs ran, or one core."""
    plain = entry["plain_seconds"]
    return "PyTorch was slower on two threads than on one" if plain["2"]["median"] > plain["1"]["median"] else ""


def baseline(sections: Sections, ring: int) -> dict[str, float] | None:
    """Peak MB of each party's process for next to no work: interpreter and libraries."""
    peaks: list[dict[str, float]] = [
        entry["peak_rss_mb"] for entry in _cases(sections, "relus") if entry.get("ring") == ring and entry.get("layers", 0) > 1
    ]
    return peaks[0] if peaks else None


def _spec(entry: Entry) -> str:
    return "plain" if entry["patch"] is None else f"{entry['patch'][0]}x{entry['patch'][1]}"
