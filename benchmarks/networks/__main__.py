"""`python -m benchmarks.networks`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from benchmarks.networks import page, trial
from benchmarks.networks.catalogue import CANDIDATES
from benchmarks.store import Entry, Section
from threepc.errors import InputError, ThreepcError
from threepc.files import write_atomically

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "networks.md"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", "parts", multiple=True, metavar="TEXT", help="Try only networks with TEXT in their name; may be repeated.")
@click.option("--again", is_flag=True, help="Try networks again of which there are results.")
@click.option("--refused", is_flag=True, help="Try those again that did not run.")
@click.option("--import", "imports_only", is_flag=True, help="Import them alone; nothing is kept, and what is refused is printed.")
@click.option("--limit", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="SECONDS", help="For one network.")
@click.option("--report", is_flag=True, help="Try nothing: write docs/networks.md from the results.")
def command(parts: tuple[str, ...], again: bool, refused: bool, imports_only: bool, limit: float, report: bool) -> None:
    """Try every family of networks, each in a process of its own, and write docs/networks.md.

    Results are kept network by network in benchmarks/networks/results, so an interrupted run goes on where it ended.
    """
    wanted = [each for each in CANDIDATES if not parts or any(part in each.config for part in parts)]
    if not wanted:
        raise InputError(f"no network has {' or '.join(parts)} in its name")
    os.nice(19 - os.nice(0))
    if imports_only:
        for candidate in wanted:
            entry = trial.run(candidate, (), limit)
            click.echo(f"{candidate.config}: {_outcome(entry)}")
        return
    section = Section(RESULTS, "networks", {}, resume=True)
    for candidate in () if report else wanted:
        known = _entries(section).get(candidate.config)
        if known is None or again or (refused and not _ran(known)):
            entry = trial.run(candidate, page.RINGS, limit)
            section.add(entry)
            click.echo(f"{candidate.config}: {_outcome(entry)}")
    write_atomically(PAGE, page.text(_entries(section)).encode())


def _entries(section: Section) -> dict[str, Entry]:
    return {entry["case"]: entry for entry in section.data["cases"]}


def _ran(entry: Entry) -> bool:
    return all("error" in entry.get(str(ring), {}) for ring in page.RINGS)


def _outcome(entry: Entry) -> str:
    if "failed" in entry or "refused" in entry:
        return str(entry.get("failed") or "; ".join(entry["refused"]).partition("; supported")[0] + "; ".join(("", *entry["refused"][1:])))
    results = {ring: entry[str(ring)] for ring in page.RINGS if str(ring) in entry}
    told = [
        f"{ring} bits: "
        + ("; ".join(result["refused"]) if "refused" in result else f"error {result['error']:.2%}, class {result['argmax']:.2%}")
        for ring, result in results.items()
    ]
    return ", ".join(told) or "imports"


if __name__ == "__main__":
    try:
        command(prog_name="python -m benchmarks.networks")
    except ThreepcError as error:
        click.echo(f"benchmarks.networks: {error}", err=True)
        sys.exit(error.exit_status)
