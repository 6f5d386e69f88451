"""README.md of the benchmarks, written from the results: nothing in it is typed by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks import earlier, machine
from benchmarks.sheets import sheets
from benchmarks.store import Entry, Sections
from threepc.files import write_atomically

HEAD = """\
# Benchmarks

The last results, as `python -m benchmarks` wrote them. To measure again, on a machine that does nothing else:

    python -m benchmarks            # a few minutes
    python -m benchmarks --long     # also the segmentation networks and slow links

`python -m benchmarks --help` names the sections and options; `threepc bench` from a checkout is the same. All three parties run on this one
machine. The networks have random weights, which cost what trained ones cost; all masks come from AES-128-CTR under fresh keys.
"""


def text(sections: Sections, pictures: list[Path], beside: Path) -> str:
    """The whole file. beside: the folder that it will lie in."""
    parts = [HEAD, "## The machine\n", _machines(sections)]
    if pictures:
        links = [f"![{picture.stem}]({os.path.relpath(picture, beside)})" for picture in pictures]
        parts += ["## Plots\n", "\n\n".join(links) + "\n"]
    parts += ["## Results\n", *(sheet.markdown() for sheet in sheets(sections))]
    return "\n".join(parts)


def write(sections: Sections, pictures: list[Path], path: Path) -> None:
    """Write the file under a temporary name, then rename."""
    write_atomically(path, text(sections, pictures, path.parent).encode())


def _machines(sections: Sections) -> str:
    """One paragraph for each run that the sections come from."""
    runs: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for name, section in sections.items():
        if name == earlier.SECTION:
            continue
        runs.setdefault(section["machine"]["started"], (section["machine"], []))[1].append(name)
    return "\n".join(f"- {', '.join(names)}: {describe(described)}" for described, names in runs.values()) + "\n"


def describe(described: Entry) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    kernels = "; ".join(f"l = {ring}: {kind}" for ring, kind in described["kernels"].items())
    warning = machine.warning(described)
    return (
        f"{described['processor']}, {described['cores']} cores, {described['memory_gb']:g} GB, {described['system']}, "
        f"Python {described['python']}, {versions}; "
        f"commit {described['commit']}, {described['started']}, load average {described['load_average'][0]:g} at the start. "
        f"Kernels: {kernels}." + (f" **{warning[0].upper()}{warning[1:]}.**" if warning else "")
    )
