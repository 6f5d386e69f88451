"""`threepc bench`: the benchmarks of the checkout that this package runs from; an installed package has none, they are no part of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from threepc.errors import InputError

CHECKOUT = Path(__file__).parents[2]


def benchmarks(checkout: Path = CHECKOUT) -> click.Command:
    """The command `python -m benchmarks` of a checkout. Raises InputError where there is none."""
    if not (checkout / "benchmarks" / "command.py").is_file():
        raise InputError("the benchmarks are not installed with threepc: run 'python -m benchmarks' in a checkout of its repository")
    if str(checkout) not in sys.path:
        sys.path.append(str(checkout))
    command: click.Command = importlib.import_module("benchmarks.command").bench
    return command


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure threepc on this machine; only from a checkout of its repository."""
    benchmarks().main(list(arguments), prog_name="threepc bench", standalone_mode=False)
