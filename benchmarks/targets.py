"""What the project set out to reach, and whether the results do. Ratios are to PyTorch in the clear on two threads in the same run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import kernels, machine

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


def verdicts(sections: dict[str, dict]) -> list[Verdict]:
    """For every target whose case was measured."""
    found = []
    busy = lambda name: "the machine was not idle" if machine.warning(sections[name]["machine"]) else ""
    whole = sections.get("networks", {"cases": []})["cases"]
    entries = [e for e in whole if e["network"] == "none" and e["batch"] == 1 and "refused" not in e]
    over_ipc = {(e["subject"], _spec(e), e["ring"]): e for e in entries if e["transport"] == "ipc"}
    for (subject, spec, ring), entry in over_ipc.items():
        column = {48: 0, 32: 1}.get(ring)
        if column is None:
            continue
        what = f"{entry['title']}, {spec} ReLUs, l = {ring}"
        for phase, bounds in OF_CASE.get((subject, spec), {}).items():
            if phase in entry["ratio"]:
                doubt = busy("networks") or disturbed(entry)
                found.append(Verdict(f"{what}: {phase}", bounds[column], entry["ratio"][phase], "x", doubt=doubt))
        if subject in SECONDS_OF_CASE and spec == "plain":
            total = entry["seconds"]["total"]["median"]
            found.append(Verdict(f"{what}: total", SECONDS_OF_CASE[subject][column], total, "s", doubt=busy("networks")))
        if (subject, spec) == ("resnet50", "plain"):
            found.append(Verdict(f"{what}: online messages", MOST_MESSAGES, entry["messages_online"], ""))
            base = baseline(sections, ring)
            if base:
                above = max(entry["peak_rss_mb"][role] - base[role] for role in base)
                found.append(Verdict(f"{what}: memory of a party above an idle one's", MOST_MEGABYTES, above, "MB"))
    for entry in entries:
        local = over_ipc.get((entry["subject"], _spec(entry), entry["ring"]))
        if entry["transport"] == "tcp" and local:
            ratio = entry["seconds"]["total"]["median"] / local["seconds"]["total"]["median"]
            what = f"{entry['title']}, l = {entry['ring']}: CURVE over TCP to ipc"
            found.append(Verdict(what, TCP_RATIO, ratio, "x", doubt=busy("networks")))
    for entry in sections.get("relus", {"cases": []})["cases"]:
        if entry.get("relus") == 1_000_000 and entry["ring"] in MILLION_SECONDS and entry["transport"] == "ipc":
            what = f"a million ReLUs with truncation, l = {entry['ring']}"
            found.append(Verdict(what, MILLION_SECONDS[entry["ring"]], entry["seconds"]["total"]["median"], "s", doubt=busy("relus")))
    for entry in sections.get("kernels", {"cases": []})["cases"]:
        if entry.get("network") == "ResNet-50" and entry["ring"] in LEAST_GMACS:
            what = f"convolutions of ResNet-50, one core, l = {entry['ring']}"
            found.append(Verdict(what, LEAST_GMACS[entry["ring"]], kernels.together(entry["layers"]), "GMAC/s", True, busy("kernels")))
    return found


def disturbed(entry: dict) -> str:
    """What speaks against an entry's ratios: PyTorch slower on two threads than on one means that other programs ran, or one core."""
    plain = entry["plain_seconds"]
    return "PyTorch was slower on two threads than on one" if plain["2"]["median"] > plain["1"]["median"] else ""


def baseline(sections: dict[str, dict], ring: int) -> dict[str, float] | None:
    """Peak MB of each party's process for next to no work: interpreter and libraries."""
    for entry in sections.get("relus", {"cases": []})["cases"]:
        if entry.get("ring") == ring and entry.get("layers", 0) > 1:
            return entry["peak_rss_mb"]
    return None


def _spec(entry: dict) -> str:
    return "plain" if entry["patch"] is None else f"{entry['patch'][0]}x{entry['patch'][1]}"
