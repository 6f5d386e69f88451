"""`threepc inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from threepc.cli.options import (
    Command,
    batch_option,
    links_option,
    model_arguments,
    model_options,
    network_option,
    ring_options,
    take_settings,
)


@click.command(cls=Command, short_help="Layers, and the bytes and messages they take.")
@model_arguments
@model_options
@ring_options
@network_option
@links_option
@batch_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(config: str, checkpoint: Path | None, batch: int, size: tuple[int, int] | None, as_json: bool, **options: Any) -> None:
    """Show the layers of a network with the bytes and messages that its secure inference takes.

    CONFIG is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, an MMLab config or ONNX file, or package.module:factory. Without
    CHECKPOINT the weights are random; an ONNX file holds its own.
    """
    from threepc.cli.show_inspection import show, show_json
    from threepc.console import Display, printing_apart
    from threepc.tasks.inspect import inspect as look

    with printing_apart(as_json):
        inspection = look(config, checkpoint, take_settings(options), batch, size, Display())
    (show_json if as_json else show)(inspection)
