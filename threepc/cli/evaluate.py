"""`threepc evaluate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from threepc.cli.options import (
    FILE,
    Command,
    batch_option,
    json_option,
    local_threads_option,
    model_arguments,
    model_options,
    network_option,
    ring_options,
    take_settings,
    timeout_option,
    transport_option,
)


class Count(click.ParamType[int | None]):
    """A number of images, or `all`, which is None. least: the smallest number."""

    name = "N|all"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number; None for all."""
        if value == "all":
            return None
        if not re.fullmatch(r"[0-9]{1,9}", str(value)) or int(value) < self._least:
            self.fail(f"{value!r} is neither a number of images from {self._least} on nor 'all'", param, ctx)
        return int(value)


@click.command(cls=Command, short_help="Accuracy or mean IoU over a dataset.")
@model_arguments
@click.option(
    "--results", type=FILE, required=True, metavar="DIR", help="Folder of the results; the same command goes on where it stopped."
)
@click.option("--images", type=Count(1), default="all", show_default=True, help="How many of the dataset's images.")
@click.option("--secure", type=Count(), default=0, show_default=True, help="How many of these through three parties on this machine.")
@click.option("--simulated", type=Count(), default="all", show_default=True, help="How many of these through the cleartext twin.")
@click.option("--data-root", type=FILE, metavar="DIR", help="Where the dataset is, instead of the config's data/NAME.")
@click.option("--output", metavar="NAME", help="Of a network that returns several tensors, the one that carries the labels.")
@batch_option
@model_options
@ring_options
@transport_option()
@network_option
@local_threads_option
@timeout_option
@json_option
def evaluate(config: str, checkpoint: Path | None, results: Path, as_json: bool, **options: Any) -> None:
    """Measure accuracy or mean IoU over the test dataset of an MMLab config: plaintext, simulated and secure.

    CONFIG is mmcls:NAME, mmseg:NAME, or an MMLab config file. Without CHECKPOINT the weights are random.
    """
    from threepc.cli.show_evaluation import show
    from threepc.console import Display, printing_apart, say_json
    from threepc.tasks.evaluate import EvaluateOptions
    from threepc.tasks.evaluate import evaluate as run

    settings = take_settings(options)
    with printing_apart(as_json):
        summary = run(EvaluateOptions(config, checkpoint, results, settings=settings, **options), Display(notes_apart=as_json))
    say_json(summary) if as_json else show(summary, results)
