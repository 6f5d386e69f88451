"""`python -m benchmarks.reliability faults|attacks|load|soak|fuzz`: runs it, prints the table, and writes it where it is asked to."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.reliability import attacks as attack
from benchmarks.reliability import faults as fault
from benchmarks.reliability import fuzz as fuzzing
from benchmarks.reliability.load import load as run_load
from benchmarks.reliability.soak import soak as run_soak


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the table to FILE too.")
@click.pass_context
def main(context: click.Context, output: Path | None) -> None:
    """What happens when things go wrong, on this machine."""
    context.obj = output


def _tell(output: Path | None, table: str) -> None:
    click.echo(table)
    if output:
        output.write_text(table)


@main.command()
@click.option("--victim", type=click.Choice(fault.VICTIMS))
@click.option("--fault", "kind", type=click.Choice(fault.FAULTS))
@click.pass_obj
def faults(output: Path | None, victim: str | None, kind: str | None) -> None:
    """The fault matrix: 75 cells, some 15 minutes."""
    cells = []
    for cell in fault.matrix(lambda v, f, m: victim in (None, v) and kind in (None, f)):
        click.echo(f"{cell.victim} {cell.fault} {cell.moment}: {cell.told or cell.status} ({'good' if cell.good else 'BAD'})", err=True)
        cells.append(cell)
    _tell(output, fault.markdown(cells))


@main.command()
@click.pass_obj
def attacks(output: Path | None) -> None:
    """Memory and service under attack."""
    _tell(output, attack.markdown(list(attack.attacks())))


@main.command()
@click.option("--listed", default=100, show_default=True)
@click.option("--active", default=8, show_default=True)
@click.pass_obj
def load(output: Path | None, listed: int, active: int) -> None:
    """Many clients at once."""
    _tell(output, run_load(listed, active).markdown())


@main.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--faults/--no-faults", default=True, show_default=True)
@click.pass_obj
def soak(output: Path | None, minutes: float, faults: bool) -> None:
    """A long time, with faults at random."""
    _tell(output, run_soak(minutes, faults=faults).markdown())


@main.command()
@click.option("--inputs", default=1_000_000, show_default=True, help="In all, over every target.")
@click.option("--seed", default=0, show_default=True)
@click.pass_obj
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Add inputs that break something to this folder.")
def fuzz(output: Path | None, inputs: int, seed: int, keep: Path | None) -> None:
    """Malformed input for everything that reads what others write."""
    results = fuzzing.fuzz(inputs, seed)
    if keep:
        fuzzing.keep(results, keep)
    _tell(output, fuzzing.markdown(results))


if __name__ == "__main__":
    main()
