"""`threepc run` and `threepc simulate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .options import FILE, NETWORKS, Command, default_threads, model_options, ring_options, several_inputs


def _options_of_both(function: Callable) -> Callable:
    options = [
        click.argument("config"),
        click.argument("checkpoint", required=False, type=FILE),
        several_inputs(),
        click.option("--labels", type=FILE, help="JSON: image file name to its true class, for the table and the accuracy."),
        click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images evaluated at once."),
        model_options,
        ring_options,
        click.option("--output", type=FILE, metavar="DIR", help="Write logits, or segmentation maps as PNG and array, to this folder."),
        click.option("--report", type=FILE, metavar="JSON", help="Write what was measured."),
        click.option("--layers", is_flag=True, help="Compare every layer, too, for the image that differs most."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(cls=Command, short_help="All three parties on this machine, on your images.")
@_options_of_both
@click.option("--compare", is_flag=True, help="Run plaintext PyTorch on the same images, too.")
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
@click.option("--debug-seed", type=click.IntRange(0), help="NOT PRIVATE: keys follow from this number. Needs --transport memory.")
def run(phases: str, budget: float | None, debug_seed: int | None, compare: bool, layers: bool, **options: Any) -> None:
    """Classify or segment images with three parties on this machine.

    CONFIG is mmcls:NAME, mmseg:NAME, an MMLab config file, or package.module:factory. Without CHECKPOINT the weights are random.
    """
    from ..console import Display
    from ..run import run as run_three_parties
    from ..run_output import show
    from ..simulation import run_reproducibly

    limits = {"separate": phases == "separate", "budget": None if budget is None else round(budget * 1e6)}
    wanted = _run_options(compare=compare or layers, layers=layers, **limits, **options)
    if debug_seed is None:
        show(run_three_parties(wanted, Display()))
    else:
        show(run_reproducibly(wanted, debug_seed, Display()), "not private")


@click.command(cls=Command, short_help="A secure run's arithmetic in the clear.")
@_options_of_both
@click.option("--seed", type=click.IntRange(0), help="Draw the chance that roundings have. Default: round to nearest.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads.")
def simulate(seed: int | None, **options: Any) -> None:
    """Run images through the cleartext twin: the arithmetic of a secure run, in the clear, and compare it with plaintext PyTorch.

    CONFIG is mmcls:NAME, mmseg:NAME, an MMLab config file, or package.module:factory. Without CHECKPOINT the weights are random.
    """
    from ..console import Display
    from ..run_output import show
    from ..simulation import run_twin

    show(run_twin(_run_options(compare=True, **options), seed, Display()), "simulated")


def _run_options(
    ring: str,
    fraction: int | None,
    window: tuple[int, int] | None,
    relu_spec: Path | None,
    reveal: str,
    calibration: tuple[Path, ...],
    **options: Any,
) -> Any:
    from ..assembly import Settings
    from ..run import RunOptions

    return RunOptions(settings=Settings(int(ring), fraction, window, relu_spec, reveal, calibration), **options)
