"""The sections of the benchmark: what each measures, one entry after the other."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import costmodel, growth, kernels, links, netem, passes, single
from benchmarks.machine import cores, kernels_of
from benchmarks.measure import Case, Effort, Progress, Wanted, measure
from benchmarks.store import Entry, Sections
from benchmarks.subjects import SUBJECTS
from threepc.choices import NETWORKS

RINGS = (48, 64, 32)
BLOCK = (4, 4)
"""Uniform patch that leaves about 6 % of the decisions."""

EFFORT = {False: Effort(3, 5, 6.0), True: Effort(3, 5, 60.0)}


def network_cases(long: bool) -> Iterator[Case]:
    """Networks x ring x spec x network setting x transport; long runs have more of each."""
    small, large = SUBJECTS["resnet18_cifar"], SUBJECTS["resnet50"]
    yield from (Case(small, ring) for ring in RINGS)
    yield from (Case(large, ring) for ring in (RINGS if long else (48, 32)))
    yield from (Case(large, ring, BLOCK) for ring in (48, 32))
    yield Case(large, transport="tcp")
    yield Case(SUBJECTS["mobilenet_v2"])
    yield from (Case(small, network=network) for network in NETWORKS if network != "none")
    yield from (Case(large, network=network) for network in (("lan", "lan10", "wan", "wan352") if long else ("lan",)))
    if not long:
        return
    yield from (Case(small, ring, network="wan") for ring in (64, 32))
    yield from (Case(large, 48, BLOCK, network=network) for network in ("lan", "wan"))
    yield from (Case(small, transport="tcp"), Case(small, 40), Case(large, 40), Case(small, batch=16), Case(large, batch=4))
    yield from (Case(SUBJECTS["resnet50_avgpool"], ring, patch) for ring in (48, 32) for patch in (None, BLOCK))
    yield Case(SUBJECTS["mobilenet_v2"], 32)
    for subject in SUBJECTS.values():
        if subject.long:
            yield from (Case(subject, ring) for ring in (48, 32))
            yield Case(subject, 48, BLOCK)


def networks(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Whole inferences."""
    for case in network_cases(long):
        if wanted(case.name):
            tell = lambda text, name=case.name: progress(f"{name}: {text}")
            yield measure(case, effort, tell)


def kernel_rates(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Convolutions, layer by layer, on one core; keyed streams."""
    for name, layers in kernels.NETWORKS.items():
        for ring in RINGS:
            if wanted(f"{name}/l{ring}"):
                progress(f"convolutions of {name}, {ring}-bit ring")
                rows = kernels.measure(layers(), ring, seconds=0.3 if long else 0.05)
                yield {"case": f"{name}/l{ring}", "network": name, "ring": ring, "kernels": kernels_of(ring), "layers": rows}
    if wanted("streams"):
        progress("keyed streams")
        yield {"case": "streams", "gigabytes_per_second": passes.stream_speed()}


def relus(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Passes of a ReLU by role, and layers of ReLUs over three processes."""
    for ring in RINGS:
        if wanted(f"passes/l{ring}"):
            progress(f"passes of a ReLU, {ring}-bit ring")
            yield {"case": f"passes/l{ring}", "ring": ring} | passes.relu_passes(ring)
    for transport, rings in (("ipc", RINGS), ("tcp", (48,))):
        for ring in rings:
            if wanted(f"million/l{ring}/{transport}"):
                progress(f"a million ReLUs, {ring}-bit ring, {transport}")
                yield single.measure(*single.MILLION, ring, 5, 1, transport, progress) | {"case": f"million/l{ring}/{transport}"}
    for ring in RINGS:
        if wanted(f"few/l{ring}"):
            progress(f"the cost of a message, {ring}-bit ring")
            yield single.measure(*single.FEW, ring, 5, 10, "ipc", progress) | {"case": f"few/l{ring}"}


def growing(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Growth with size, batch, share of ReLUs, threads."""
    yield from growth.run(long, effort, progress, wanted)


def model(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Predictions of the cost model for every whole inference that was measured with one thread a party over ipc."""
    entries = {entry["case"]: entry for entry in before.get("networks", {"cases": []})["cases"]}
    for entry in entries.values():
        usable = "refused" not in entry and entry["transport"] == "ipc" and entry["threads"] == 1
        known = costmodel.measured_constants(before, entry["ring"], cores()) if usable else None
        if known is None:
            continue
        predicted = costmodel.predict(entry["work"], known, NETWORKS[entry["network"]])
        seconds = {phase: entry["seconds"][phase]["median"] for phase in predicted if phase in entry["seconds"]}
        named = {key: entry[key] for key in ("case", "title", "ring", "patch", "batch", "network")}
        yield named | {"predicted": predicted, "measured": seconds}


def over_links(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """Whole inferences over links of hosts: what is busy, and what is waited for."""
    known = {ring: costmodel.measured_constants(before, ring, cores()) for ring in links.RINGS}
    yield from links.run(progress, wanted, {ring: found for ring, found in known.items() if found})


def shaping(long: bool, effort: Effort, progress: Progress, wanted: Wanted, before: Sections) -> Iterator[Entry]:
    """The simulated networks against the kernel's own shaping."""
    yield from netem.run(netem.PRESETS if long else ("lan", "wan"), progress, wanted)


SECTIONS = {
    "kernels": kernel_rates,
    "relus": relus,
    "networks": networks,
    "growth": growing,
    "model": model,
    "netem": shaping,
    "links": over_links,
}
"""Name -> generator of entries, in the order in which they run; the model needs the first three."""
