"""`threepc tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from threepc.cli.options import (
    FILE,
    Command,
    calibration_option,
    json_option,
    margin_option,
    model_arguments,
    model_options,
    network_option,
    threads_option,
)


class Share(click.ParamType[float]):
    """A part of all, as `1%` or 0.01."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """From 0 to below 1."""
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 1:
            self.fail(f"{value!r} is no share such as 1% or 0.01, from 0 to below 100%", param, ctx)
        return share


@click.command(
    cls=Command, several=("--images", "--calibration"), short_help="The cheapest arithmetic that keeps the labels of your images."
)
@model_arguments
@click.option(
    "--images", multiple=True, required=True, type=FILE, metavar="IMAGE...", help="Images to count lost labels on: files or .npy."
)
@click.option("--loss", type=Share(), default="1%", show_default=True, help="Share of the labels that may differ from plaintext PyTorch's.")
@click.option("--batch", type=click.IntRange(1, 1024), default=8, show_default=True, help="Images simulated at once.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the chance that roundings have.")
@model_options
@calibration_option
@margin_option
@network_option
@threads_option("Threads.")
@click.option("--report", type=FILE, metavar="JSON", help="Write what was found.")
@json_option
def tune(config: str, checkpoint: Path | None, as_json: bool, **options: Any) -> None:
    """Find the ring, fraction and window of signs that cost least and lose at most a share of labels on your images.

    Nothing is private here: the settings are tried with the arithmetic of a secure run in the clear. With --network the time on that network
    decides what is cheap, without it the bytes. CONFIG and CHECKPOINT are those of 'threepc run'.
    """
    from threepc.cli.show_tuning import show
    from threepc.console import Display, printing_apart, say_json
    from threepc.errors import RunError
    from threepc.tasks.tune import TuneOptions
    from threepc.tasks.tune import tune as search

    with printing_apart(as_json):
        tuning = search(TuneOptions(config, checkpoint, **options), Display(notes_apart=as_json))
    say_json(tuning.to_plain()) if as_json else show(tuning)
    if tuning.best is None:
        raise RunError(f"no setting loses at most {tuning.options.loss:.3g} of the labels on these images: allow a larger --loss")
