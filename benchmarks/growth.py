"""How seconds, bytes and memory grow with image size, batch, share of ReLUs, and threads where there are cores for them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import machine, subjects
from benchmarks.measure import Case, Effort, Progress, Wanted, measure, measure_batches
from benchmarks.store import Entry

SIZES = {False: (64, 128, 256), True: (64, 96, 128, 192, 256, 384, 512)}
BATCHES = {False: (1, 4, 16), True: (1, 2, 4, 8, 16)}
PATCHES = {False: (None, (2, 2), (4, 4), (16, 16)), True: (None, (1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (16, 16), (64, 64))}
"""By whether the run is a long one. A patch larger than a map is the whole map."""
THREADS = (1, 2, 4, 8, 16)


def cases(long: bool, cores: int) -> Iterator[tuple[str, list[Case]]]:
    """(what grows, cases that one session can serve)."""
    images, small, large = (subjects.SUBJECTS[name] for name in ("resnet18", "resnet18_cifar", "resnet50"))
    for side in SIZES[long]:
        yield "size", [Case(subjects.at_side(images, side))]
    yield "batch", [Case(small, batch=batch) for batch in BATCHES[long]]
    for patch in PATCHES[long]:
        yield "relus", [Case(images, patch=patch)]
    if cores > 2:
        for threads in THREADS:
            if threads <= cores:
                yield "threads", [Case(large, threads=threads)]


def run(long: bool, effort: Effort, progress: Progress, wanted: Wanted = lambda case: True) -> Iterator[Entry]:
    """Entries as `measure` makes them, with `axis` and `x`."""
    for axis, group in cases(long, machine.cores()):
        asked = [wanted(f"{axis}: {case.name}") for case in group]
        if not any(asked):
            continue
        progress(f"growth with {axis}, {group[0].name}")
        batches = tuple(case.batch for case in group)
        entries = measure_batches(group[0], batches, effort, progress) if axis == "batch" else [measure(group[0], effort, progress)]
        for case, entry in zip(group, entries, strict=True):
            entry.pop("layers", None)
            yield entry | {"case": f"{axis}: {case.name}", "axis": axis, "x": _abscissa(axis, case, entry)}


def _abscissa(axis: str, case: Case, entry: Entry) -> float:
    if axis == "relus":
        return float(100 * entry["drelus"] / entry["relus"])
    return {"size": case.subject.side or 0, "batch": case.batch, "threads": case.threads}[axis]
