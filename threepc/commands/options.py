"""What the commands' options have in common."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

RINGS = ("64", "48", "40", "32")
NETWORKS = ("none", "lan", "lan10", "wan", "wan352")


class Command(click.Command):
    """A command with --debug, and whose options of several values may be written `--input A B C`."""

    def __init__(self, *args: Any, several: tuple[str, ...] = ("--input", "--calibration"), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._several = several
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=_debug, help="Show a traceback of a failure."
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeated, option = [], None
        for arg in args:
            if arg.startswith("-") and arg != "-":
                option = arg if arg in self._several else None
                following = False
            elif option is not None:
                if following:
                    repeated.append(option)
                following = True
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and ctx.obj is not None:
        ctx.obj["debug"] = True
        os.environ.setdefault("THREEPC_LOG", "INFO")


class Range(click.ParamType):
    """LO:HI, two whole numbers."""

    name = "LO:HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+):(\d+)", str(value))
        if not match:
            self.fail(f"{value!r} is not LO:HI, two whole numbers such as 16:46", param, ctx)
        return int(match[1]), int(match[2])


class Size(click.ParamType):
    """HxW, a size in pixels, or one number for a square."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(value))
        if not match:
            self.fail(f"{value!r} is not HxW, such as 224x224", param, ctx)
        return int(match[1]), int(match[2] or match[1])


FILE = click.Path(path_type=Path)


def several_inputs(required: bool = True) -> Callable:
    """--input IMAGE..."""
    return click.option(
        "--input",
        "images",
        multiple=True,
        required=required,
        type=FILE,
        metavar="IMAGE...",
        help="Image files, or .npy arrays of ready inputs (C, H, W) or (N, C, H, W).",
    )


def model_options(function: Callable) -> Callable:
    """What decides the public model."""
    for option in reversed(
        [
            click.option("--relu-spec", type=FILE, help="Relu spec (JSON): patches that share one sign. Default: every ReLU is plain."),
            click.option("--size", type=Size(), help="Input size instead of the config's."),
        ]
    ):
        function = option(function)
    return function


def calibration_option(function: Callable) -> Callable:
    """--calibration IMAGE..."""
    return click.option(
        "--calibration",
        multiple=True,
        type=FILE,
        metavar="IMAGE...",
        help="For --ring 32: images of the server's that the layers' scales are chosen with.",
    )(function)


def ring_options(function: Callable) -> Callable:
    """What decides the arithmetic."""
    for option in reversed(
        [
            click.option("--ring", type=click.Choice(RINGS), default="48", show_default=True, help="Bits of a ring element."),
            click.option(
                "--frac-bits", "fraction", type=click.IntRange(1, 16), help="Fractional bits of activations. Default: what suits the ring."
            ),
            click.option(
                "--drelu-window",
                "window",
                type=Range(),
                help="Approximate signs: compare only bits LO..HI-1 of a product. Default: all that can matter.",
            ),
            calibration_option,
            click.option(
                "--reveal", type=click.Choice(["logits", "label"]), default="logits", show_default=True, help="What the client learns."
            ),
        ]
    ):
        function = option(function)
    return function


def default_threads() -> int:
    """A third of the processors for each of three parties."""
    return max(1, len(os.sched_getaffinity(0)) // 3)
