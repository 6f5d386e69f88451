"""What the commands' options have in common."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from threepc.choices import NETWORKS, OUT_OF_RANGE, RELU_MESSAGES, REVEAL_FORM, RINGS, TRANSPORTS, read_links
from threepc.errors import InputError
from threepc.files import local_path

if TYPE_CHECKING:
    from threepc.model.assemble import Settings

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(click.Command):
    """A command with --debug, and whose options of several values may be written `--input A B C`."""

    def __init__(self, *args: Any, several: tuple[str, ...] = ("--input", "--calibration"), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._several = several
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, is_eager=True, expose_value=False, callback=_debug, help="Show a traceback of a failure."
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write `--input A B` as click reads it: `--input A --input B`."""
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


class Range(click.ParamType[tuple[int, int]]):
    """LO:HI, two whole numbers."""

    name = "LO:HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(LO, HI), in whatever order they were given."""
        match = re.fullmatch(r"(\d+):(\d+)", str(value))
        if not match:
            self.fail(f"{value!r} is not LO:HI, two whole numbers such as 16:46", param, ctx)
        return int(match[1]), int(match[2])


class Size(click.ParamType[tuple[int, int]]):
    """HxW, a size in pixels, or one number for a square."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """(H, W)."""
        match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(value))
        if not match:
            self.fail(f"{value!r} is not HxW, such as 224x224", param, ctx)
        return int(match[1]), int(match[2] or match[1])


class Reveal(click.ParamType[str]):
    """What is revealed of a network's outputs."""

    name = "logits|label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text; the network's outputs decide whether it suits them."""
        if not re.fullmatch(REVEAL_FORM, str(value)):
            self.fail(f"{value!r} is neither logits nor label, nor one of these for each output, nor NAME=label", param, ctx)
        return str(value)


class Links(click.ParamType[str]):
    """Rates of the parties' hosts."""

    name = "PARTY=RATE[,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, once it says what it should."""
        try:
            read_links(str(value))
        except InputError as error:
            self.fail(str(error).removeprefix("links: "), param, ctx)
        return str(value)


class Positive(click.FloatRange):
    """A finite number above 0, and at most `largest`."""

    def __init__(self, largest: float = 1e12) -> None:
        super().__init__(min=0, min_open=True, max=largest)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; the range alone lets NaN pass."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class _File(click.Path):
    """A path. An address on the net is refused as it was written, before a path spells it otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        return super().convert(local_path(value), param, ctx)


FILE = _File(path_type=Path)


def together(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """One decorator for several options, which --help then lists in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def default_threads() -> int:
    """A third of the processors for each of three parties."""
    return max(1, len(os.sched_getaffinity(0)) // 3)


def transport_option(explanation: str | None = None) -> Callable[[Function], Function]:
    """--transport: what three parties on this machine talk through."""
    return click.option("--transport", type=click.Choice(TRANSPORTS), default="ipc", show_default=True, help=explanation)


def threads_option(whose: str, default: int | Callable[[], int] = 1, show_default: bool | str = True) -> Callable[[Function], Function]:
    """--threads; `whose` is its help."""
    return click.option("--threads", type=click.IntRange(1, 256), default=default, show_default=show_default, help=whose)


model_arguments = together(click.argument("config"), click.argument("checkpoint", required=False, type=FILE))
"""CONFIG [CHECKPOINT]"""

size_option = click.option("--size", type=Size(), help="Input size instead of the config's.")

model_options = together(
    click.option("--relu-spec", type=FILE, help="Relu spec (JSON): patches that share one sign. Default: every ReLU is plain."), size_option
)
"""What decides the public model."""

input_option = click.option(
    "--input",
    "images",
    multiple=True,
    required=True,
    type=FILE,
    metavar="IMAGE...",
    help="Image files, or .npy arrays of ready inputs (C, H, W) or (N, C, H, W).",
)
labels_option = click.option("--labels", type=FILE, help="JSON: image file name to its true class, for the table and the accuracy.")
batch_option = click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images evaluated at once.")

output_options = together(
    click.option("--output", type=FILE, metavar="DIR", help="Write logits, or segmentation maps as PNG and array, to this folder."),
    click.option("--report", type=FILE, metavar="JSON", help="Write what was measured."),
)
"""Where the answers and the measurements go."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output, and notes on standard error.")

trace_option = click.option(
    "--trace", type=FILE, metavar="JSON", help="Write what went on when, layer by layer; https://ui.perfetto.dev shows it."
)

calibration_option = click.option(
    "--calibration",
    multiple=True,
    type=FILE,
    metavar="IMAGE...",
    help="Images of the server's that the layers' ranges are measured with, and their scales chosen.",
)
margin_option = click.option(
    "--margin",
    type=click.IntRange(0, 16),
    default=2,
    show_default=True,
    metavar="BITS",
    help="Bits by which the values of a layer may be larger than with the calibration images.",
)
allow_error_option = click.option(
    "--allow-error", is_flag=True, help="Go on where results are expected to be off by more than 10 % of the largest one, too."
)
out_of_range_option = click.option(
    "--out-of-range",
    type=click.Choice(OUT_OF_RANGE),
    default="refuse",
    show_default=True,
    help="What to do with images that are larger than the model is made for, and where layers are compared, with values that are.",
)
ring_option = click.option("--ring", type=click.Choice(RINGS), default=48, show_default=True, help="Bits of a ring element.")

ring_options = together(
    ring_option,
    click.option(
        "--frac-bits",
        "fraction",
        type=click.IntRange(1, 16),
        help="Fractional bits of activations, at least; weights get what ring and ranges leave. Default: what suits the ring.",
    ),
    click.option(
        "--drelu-window",
        "window",
        type=Range(),
        help="Approximate signs: compare only bits LO..HI-1 of a product. Default: all that can matter.",
    ),
    click.option(
        "--relu-messages",
        type=click.Choice(RELU_MESSAGES),
        default="4",
        show_default=True,
        help="Online messages of a ReLU: 4; 2, for more dealt bytes, where delay decides; 6, for fewer, where rates do; auto: by layer, as --network and --links say; "
        "auto-online: as they say where inferences are prepared ahead and the online phase alone counts.",
    ),
    calibration_option,
    margin_option,
    click.option(
        "--reveal",
        type=Reveal(),
        default="logits",
        show_default=True,
        help="What the client learns: logits or label; of several outputs one for each, logits,label, or for some, NAME=label.",
    ),
)
"""What decides the arithmetic."""

network_option = click.option(
    "--network", type=click.Choice(NETWORKS), default="none", show_default=True, help="Simulate a slower network."
)
links_option = click.option(
    "--links",
    type=Links(),
    default="",
    help="Simulate the parties' hosts, whose peers share what a host sends and receives: server=1G,client=20M/100M (up/down), or each=1G.",
)
local_threads_option = threads_option("Threads of each party.", default_threads, "a third of the processors")
phases_option = click.option(
    "--phases",
    type=click.Choice(["overlapped", "separate"]),
    default="overlapped",
    show_default=True,
    help="separate: finish the offline phase before the online one begins.",
)
timeout_option = click.option(
    "--timeout", type=Positive(1e6), default=120.0, show_default=True, help="Seconds a party waits for another one."
)


def take_settings(options: dict[str, Any]) -> Settings:
    """The `Settings` that --relu-spec and `ring_options` say; these are taken out of a command's options. What --network says stays there."""
    from threepc.model.assemble import Settings

    names = "ring", "fraction", "window", "relu_spec", "reveal", "calibration", "margin", "relu_messages"
    kept: dict[str, Any] = {name: options[name] for name in ("network", "links", "batch") if name in options}
    kept |= {name: options.pop(name) for name in ("allow_error",) if name in options}
    return Settings(**{name: options.pop(name) for name in names}, **kept)
