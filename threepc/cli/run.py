"""`threepc run` and `threepc simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from threepc.cli.bench import CHECKOUT
from threepc.cli.options import (
    Command,
    Positive,
    allow_error_option,
    batch_option,
    input_option,
    json_option,
    labels_option,
    links_option,
    local_threads_option,
    model_arguments,
    model_options,
    network_option,
    out_of_range_option,
    output_options,
    phases_option,
    ring_options,
    take_settings,
    threads_option,
    timeout_option,
    together,
    trace_option,
    transport_option,
)
from threepc.errors import InputError

if TYPE_CHECKING:
    from threepc.tasks.results import Outcome
    from threepc.tasks.run import RunOptions

_options_of_both = together(
    model_arguments,
    input_option,
    labels_option,
    batch_option,
    model_options,
    ring_options,
    out_of_range_option,
    output_options,
    json_option,
    click.option("--layers", is_flag=True, help="Compare the layers in any case, for the image that differs most, and show all."),
)


def demonstration(checkout: Path = CHECKOUT) -> list[str]:
    """The words of the demonstration: ten handwritten digits that the network has not seen. Raises InputError outside of a checkout."""
    digits = checkout / "examples" / "digits"
    if not digits.is_dir():
        raise InputError(
            "the demonstration is not installed with threepc: run this in a checkout of its repository, or name a network and --input IMAGE..."
        )
    images = sorted(map(str, digits.glob("images/*.png")))
    network = [str(digits / "resnet18_digits.py"), str(digits / "resnet18_digits.pth")]
    return [*network, "--input", *images, "--labels", str(digits / "labels.json"), "--batch", "10", "--compare"]


class _Run(Command):
    """`threepc run`; without arguments the demonstration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As `Command`'s."""
        return super().parse_args(ctx, args or demonstration())


@click.command(cls=_Run, short_help="All three parties on this machine, on your images.")
@_options_of_both
@click.option("--compare", is_flag=True, help="Run plaintext PyTorch on the same images, too.")
@transport_option("ipc: sockets of this user; tcp: CURVE on loopback, as between hosts; memory: threads of one process.")
@allow_error_option
@network_option
@links_option
@local_threads_option
@phases_option
@timeout_option
@click.option("--budget", type=Positive(1e6), metavar="MB", help="Megabytes that may be dealt ahead.  [default: 512 MiB]")
@trace_option
@click.option("--debug-seed", type=click.IntRange(0), help="NOT PRIVATE: keys follow from this number. Needs --transport memory.")
def run(phases: str, budget: float | None, debug_seed: int | None, compare: bool, layers: bool, as_json: bool, **options: Any) -> None:
    """Classify or segment images with three parties on this machine. Without arguments: a demonstration, in a checkout.

    CONFIG is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, an MMLab config or ONNX file, or package.module:factory. Without
    CHECKPOINT the weights are random; an ONNX file holds its own.
    """
    from threepc.console import Display, printing_apart
    from threepc.tasks.run import run as run_three_parties
    from threepc.tasks.simulate import run_reproducibly

    if debug_seed is not None and options["trace"] is not None:
        raise click.UsageError("--trace: not with --debug-seed, whose run has no parties that work side by side")
    most = None if budget is None else round(budget * 1e6)
    wanted = _run_options(options, compare=compare or layers, layers=layers, separate=phases == "separate", budget=most)
    display = Display(notes_apart=as_json)
    with printing_apart(as_json):
        outcome = run_three_parties(wanted, display) if debug_seed is None else run_reproducibly(wanted, debug_seed, display)
    _show(outcome, wanted, "secure" if debug_seed is None else "not private", as_json)


@click.command(cls=Command, short_help="A secure run's arithmetic in the clear.")
@_options_of_both
@click.option("--seed", type=click.IntRange(0), help="Draw the chance that roundings have. Default: round to nearest.")
@threads_option("Threads.")
def simulate(seed: int | None, as_json: bool, **options: Any) -> None:
    """Run images through the cleartext twin: the arithmetic of a secure run, in the clear, and compare it with plaintext PyTorch.

    CONFIG is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, an MMLab config or ONNX file, or package.module:factory. Without
    CHECKPOINT the weights are random; an ONNX file holds its own.
    """
    from threepc.console import Display, printing_apart
    from threepc.tasks.simulate import run_twin

    wanted = _run_options(options, compare=True)
    with printing_apart(as_json):
        outcome = run_twin(wanted, seed, Display(notes_apart=as_json))
    _show(outcome, wanted, "simulated", as_json)


def _show(outcome: Outcome, options: RunOptions, way: str, as_json: bool) -> None:
    """Print the outcome, or its report as JSON; then fail where values were out of range, unless the user said to go on."""
    from threepc.cli.show_run import show
    from threepc.console import say_json

    say_json(outcome.report) if as_json else show(outcome, way)
    if options.out_of_range == "refuse":
        outcome.refuse_outside()


def _run_options(options: dict[str, Any], **more: Any) -> RunOptions:
    from threepc.tasks.run import RunOptions

    return RunOptions(settings=take_settings(options), **options, **more)
