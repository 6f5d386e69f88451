"""`threepc inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from threepc.cli.options import Command, batch_option, model_options, ring_options


@click.command(cls=Command, short_help="Layers, and the bytes and messages they take.")
@click.argument("config")
@model_options
@ring_options
@batch_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def inspect(
    config: str,
    relu_spec: Path | None,
    size: tuple[int, int] | None,
    ring: str,
    fraction: int | None,
    window: tuple[int, int] | None,
    calibration: tuple[Path, ...],
    reveal: str,
    batch: int,
    as_json: bool,
) -> None:
    """Show the layers of a network with the bytes and messages that its secure inference takes.

    CONFIG is mmcls:NAME, mmseg:NAME, an MMLab config file, or package.module:factory.
    """
    from threepc.cli.show_inspection import show, show_json
    from threepc.console import Display
    from threepc.model.assemble import Settings
    from threepc.tasks.inspect import inspect as look

    settings = Settings(int(ring), fraction, window, relu_spec=relu_spec, reveal=reveal, calibration=calibration)
    (show_json if as_json else show)(look(config, settings, batch, size, Display()))
