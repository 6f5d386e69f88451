"""`threepc run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import FILE, Command, default_threads, model_options, ring_options, several_inputs

NETWORKS = ("none", "lan", "lan10", "wan", "wan352")


@click.command(cls=Command)
@click.argument("config")
@click.argument("checkpoint", required=False, type=FILE)
@several_inputs()
@click.option("--labels", type=FILE, help="JSON: image file name to its true class, for the table and the accuracy.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images evaluated at once.")
@model_options
@ring_options
@click.option(
    "--transport",
    type=click.Choice(["ipc", "tcp", "memory"]),
    default="ipc",
    show_default=True,
    help="ipc: sockets of this user; tcp: CURVE on loopback, as between hosts; memory: threads of one process.",
)
@click.option("--network", type=click.Choice(NETWORKS), default="none", show_default=True, help="Simulate a slower network.")
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=default_threads,
    show_default="a third of the processors",
    help="Threads of each party.",
)
@click.option(
    "--phases",
    type=click.Choice(["overlapped", "separate"]),
    default="overlapped",
    show_default=True,
    help="separate: finish the offline phase before the online one begins.",
)
@click.option("--output", type=FILE, metavar="DIR", help="Write logits, or segmentation maps as PNG and array, to this folder.")
@click.option("--report", type=FILE, metavar="JSON", help="Write what was measured.")
@click.option("--compare", is_flag=True, help="Run plaintext PyTorch on the same images, too.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds a party waits for another one.",
)
@click.option(
    "--budget", type=click.FloatRange(min=0, min_open=True), metavar="MB", help="Megabytes that may be dealt ahead.  [default: 512 MiB]"
)
def run(
    config: str,
    checkpoint: Path | None,
    images: tuple[Path, ...],
    relu_spec: Path | None,
    ring: str,
    fraction: int | None,
    window: tuple[int, int] | None,
    reveal: str,
    calibration: tuple[Path, ...],
    phases: str,
    budget: float | None,
    **options: Any,
) -> None:
    """Classify or segment images with three parties on this machine.

    CONFIG is mmcls:NAME, mmseg:NAME, an MMLab config file, or package.module:factory. Without CHECKPOINT the weights are random.
    """
    from ..assembly import Settings
    from ..console import Display
    from ..run import RunOptions
    from ..run import run as run_three_parties
    from ..run_output import show

    settings = Settings(int(ring), fraction, window, relu_spec=relu_spec, reveal=reveal, calibration=calibration)
    budget_bytes = None if budget is None else round(budget * 1e6)
    show(
        run_three_parties(
            RunOptions(config, checkpoint, images, settings=settings, separate=phases == "separate", budget=budget_bytes, **options),
            Display(),
        )
    )
