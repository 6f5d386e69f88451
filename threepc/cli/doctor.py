"""`threepc doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from threepc.cli.options import FILE, Command


@click.command(cls=Command, short_help="Whether this host has what threepc needs.")
@click.option("--deployment", type=FILE, help="Look at this deployment.yaml too, at the keys beside it, and ask its parties.")
@click.option("--name", default="client", show_default=True, help="Whose key files the parties are asked with, if they lie there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(deployment: Path | None, name: str, as_json: bool) -> None:
    """Look at this host, and at a deployment and its parties: a line for each thing, with what to do. It changes nothing.

    The exit status is 1 where something is wrong.
    """
    from threepc.console import Display, new_table, print_table, say_json
    from threepc.errors import RunError
    from threepc.tasks.doctor import examine

    findings = examine(deployment, name, Display())
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        table = new_table("what", "is", "found, and what to do")
        for finding in findings:
            table.add_row(finding.what, finding.state, f"{finding.found}: {finding.todo}" if finding.todo else finding.found)
        print_table(table)
    wrong = [finding.what for finding in findings if finding.state == "wrong"]
    if wrong:
        raise RunError(f"wrong: {', '.join(wrong)}")
