"""`threepc report-run`."""

from __future__ import annotations

from pathlib import Path

import click

from threepc.cli.options import FILE, Command


@click.command("report-run", cls=Command, short_help="A page about a run, or about two side by side.")
@click.argument("run", type=FILE, metavar="RUN.json")
@click.argument("other", type=FILE, required=False, metavar="[OTHER.json]")
@click.option("--html", "output", type=FILE, required=True, metavar="FILE", help="The page to write.")
@click.option("--trace", type=FILE, metavar="JSON", help="What --trace wrote in the first run: times by party, and the critical path.")
def report_run(run: Path, other: Path | None, output: Path, trace: Path | None) -> None:
    """Write a page about what `threepc run --report RUN.json` measured: time and bytes by layer and party.

    With OTHER.json the two runs are compared, layer by layer.
    """
    from threepc.console import say
    from threepc.tasks.run_report import write_page

    say(f"wrote {write_page(output, run, other, trace)}")
