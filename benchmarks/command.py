"""The command `python -m benchmarks`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from benchmarks import earlier, machine, plots, readme, store
from benchmarks.sections import EFFORT, SECTIONS
from benchmarks.sheets import sheets
from benchmarks.store import Entry
from threepc.console import Display
from threepc.errors import InputError

WIDE = 220
"""Columns of tables that no terminal shows."""

README = Path(__file__).parent / "README.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--quick/--long", default=True, help="A few minutes, or also the segmentation networks, slow links and more points.  [default: quick]"
)
@click.option("--only", "names", multiple=True, type=click.Choice(list(SECTIONS)), help="Measure this section alone; may be repeated.")
@click.option(
    "--case",
    "parts",
    multiple=True,
    metavar="TEXT",
    help="Measure only cases with TEXT in their name; the others stay if they are of this processor and commit. May be repeated.",
)
@click.option("--resume", is_flag=True, help="Keep what a run on this processor and commit has measured already.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=store.FOLDER,
    help="Folder of the results.  [default: benchmarks/results]",
)
@click.option(
    "--against",
    "before",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of results of an earlier commit to show beside these; may be repeated, the oldest first.",
)
@click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait so long, at most, for other programs to end."
)
@click.option("--report", is_flag=True, help="Measure nothing: print the tables of the last results, write plots and README.md.")
def bench(
    quick: bool,
    names: tuple[str, ...],
    parts: tuple[str, ...],
    resume: bool,
    output: Path,
    before: tuple[Path, ...],
    wait: float,
    report: bool,
) -> None:
    """Measure kernels, ReLUs, whole networks and their growth; write JSON, plots and README.md, print tables.

    README.md lies beside the results, or in benchmarks/ for benchmarks/results.
    """
    console, display = Console(highlight=False), Display()
    if not console.is_terminal:
        console.width = WIDE
    sought = names or tuple(SECTIONS)
    check_parts(not quick, sought, parts)
    if not report:
        if wait:
            with display.stage("waiting for the machine to be idle") as progress:
                machine.wait_until_idle(wait, progress)
        described = machine.describe()
        console.print(readme.describe(described), markup=False)
        measure(not quick, sought, output, described, display, parts, resume)
    if before:
        earlier.keep(output, before, machine.describe())
    sections = store.load(output)
    if not sections:
        raise InputError(f"{output} holds no results yet: run without --report")
    with display.stage("plots"):
        pictures = plots.write(sections, output)
    readme.write(sections, pictures, README if output.resolve() == store.FOLDER else output / "README.md")
    for sheet in sheets(sections):
        console.print(sheet.rich())
        console.print()


def measure(
    long: bool, names: tuple[str, ...], output: Path, described: Entry, display: Display, parts: tuple[str, ...] = (), resume: bool = False
) -> None:
    """Run the sections; every case is written to its file as soon as it is measured."""
    for name in names:
        section = store.Section(output, name, described, resume or bool(parts))
        with display.stage(name) as progress:
            wanted = partial(_is_wanted, section if resume else None, parts)
            for entry in SECTIONS[name](long, EFFORT[long], progress, wanted, store.load(output)):
                section.add(entry)


def _is_wanted(before: store.Section | None, parts: tuple[str, ...], case: str) -> bool:
    """Whether a case is to be measured: named by one of `parts`, where there are any, and not held already."""
    return not (before and before.has(case)) and (not parts or any(part in case for part in parts))


def check_parts(long: bool, names: Iterable[str], parts: tuple[str, ...]) -> None:
    """Raises InputError for a text that is in the name of no case; every section is asked for its cases, and none is measured."""
    cases: list[str] = []

    def collect(case: str) -> bool:
        cases.append(case)
        return False

    for name in names if parts else ():
        for _ in SECTIONS[name](long, EFFORT[long], lambda text: None, collect, {}):
            pass
    for part in parts:
        if not any(part in case for case in cases):
            raise InputError(f"--case {part}: no case of {', '.join(names)} has that in its name; without --only all sections are searched")
