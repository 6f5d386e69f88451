"""`threepc keygen`, `server`, `provider` and `client`: the parties of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from threepc.cli.options import (
    FILE,
    Command,
    batch_option,
    calibration_option,
    input_option,
    labels_option,
    model_arguments,
    model_options,
    output_options,
    phases_option,
    threads_option,
)

_deployment = click.option("--deployment", type=FILE, required=True, help="deployment.yaml, or the folder it lies in.")
_threads = threads_option("Threads of this party.")


@click.command(cls=Command, short_help="Keys for the parties, and a deployment.yaml.")
@click.argument("directory", metavar="DIR")
@click.option(
    "--party",
    "names",
    multiple=True,
    metavar="NAME",
    help="Make keys for this party alone; again for more. Default: server, provider, client.",
)
@click.option("--server", metavar="ADDRESS", help="Where the server will be reached, tcp://HOST:PORT. Default: on this host.")
@click.option("--provider", metavar="ADDRESS", help="Where the provider will be reached. Default: on this host.")
@click.option("--per-host", is_flag=True, help="Write a folder for each party, with what its host needs and nothing else.")
def keygen(directory: str, **options: Any) -> None:
    """Make a key pair for each party, and a deployment.yaml to edit, in DIR."""
    from threepc.console import say
    from threepc.tasks.keys import make_keys

    say("\n".join(make_keys(directory, **options)))


@click.command(cls=Command, short_help="Serve a network to clients.")
@model_arguments
@_deployment
@model_options
@calibration_option
@_threads
def server(config: str, checkpoint: Path | None, deployment: Path, **options: Any) -> None:
    """Serve a network to the clients of a deployment until interrupted.

    CONFIG is mmcls:NAME, mmseg:NAME, an MMLab config file, or package.module:factory. Without CHECKPOINT the weights are random.
    """
    from threepc.console import Display
    from threepc.tasks.serve import ServerOptions, serve

    serve(ServerOptions(config, checkpoint, deployment, **options), Display())


@click.command(cls=Command, short_help="Deal randomness to clients and server.")
@_deployment
@_threads
def provider(deployment: Path, threads: int) -> None:
    """Deal randomness to the clients and the server of a deployment until interrupted."""
    from threepc.console import Display
    from threepc.tasks.provide import provide

    provide(deployment, threads, Display())


@click.command(cls=Command, short_help="Your images through a server and a provider.")
@_deployment
@input_option
@click.option("--name", default="client", show_default=True, help="Whose key files are used: NAME.public and NAME.secret.")
@labels_option
@batch_option
@threads_option("Threads of the client.")
@phases_option
@output_options
def client(deployment: Path, images: tuple[Path, ...], phases: str, **options: Any) -> None:
    """Classify or segment images with the server and the provider of a deployment."""
    from threepc.cli.show_run import show
    from threepc.console import Display
    from threepc.tasks.ask import ClientOptions, ask

    show(ask(ClientOptions(deployment, images, separate=phases == "separate", **options), Display()))
