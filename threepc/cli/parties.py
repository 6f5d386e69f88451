"""`threepc keygen`, `server`, `provider` and `client`: the parties of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from threepc.choices import LOG_FORMATS, RINGS
from threepc.cli.options import (
    FILE,
    Command,
    Function,
    allow_error_option,
    batch_option,
    calibration_option,
    input_option,
    json_option,
    labels_option,
    margin_option,
    model_options,
    out_of_range_option,
    output_options,
    phases_option,
    threads_option,
    trace_option,
)

_deployment = click.option("--deployment", type=FILE, required=True, help="deployment.yaml, or the folder it lies in.")
_threads = threads_option("Threads of this party.")


def _watching_options(function: Function) -> Function:
    """The options of a party that serves."""
    for option in (
        click.option(
            "--grace", default=30.0, show_default=True, help="Seconds that inferences have to end when the party is told to stop."
        ),
        click.option(
            "--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True, help="json: a line of JSON an event."
        ),
        click.option(
            "--observe", metavar="[HOST:]PORT", help="Serve /healthz, /readyz, /status and /metrics there; on loopback without HOST."
        ),
        trace_option,
    ):
        function = option(function)
    return function


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
@click.option(
    "--unix",
    is_flag=True,
    help="No keys: all parties under one user of this host, over sockets in DIR. They keep nothing secret from each other.",
)
def keygen(directory: str, **options: Any) -> None:
    """Make a key pair for each party, and a deployment.yaml to edit, in DIR."""
    from threepc.console import say
    from threepc.tasks.keys import make_keys

    say("\n".join(make_keys(directory, **options)))


@click.group(short_help="Add, list, revoke and rotate clients.")
def clients() -> None:
    """Clients of a deployment come and go: server and provider read its deployment.yaml again when it changes."""


@clients.command(cls=Command)
@_deployment
@click.argument("name")
def add(deployment: Path, name: str) -> None:
    """Let a client in: by the key in NAME.public beside deployment.yaml or, where there is none, by a new one."""
    from threepc.console import say
    from threepc.tasks.keys import add_client

    say("\n".join(add_client(deployment, name)))


@clients.command("list", cls=Command)
@_deployment
@json_option
def list_(deployment: Path, as_json: bool) -> None:
    """Print the name and the public key of each client."""
    from threepc.console import say, say_json
    from threepc.tasks.keys import client_facts, list_clients

    say_json(client_facts(deployment)) if as_json else say("\n".join(list_clients(deployment)))


@clients.command(cls=Command)
@_deployment
@click.argument("name")
def revoke(deployment: Path, name: str) -> None:
    """Let a client in no longer, and end its sessions."""
    from threepc.console import say
    from threepc.tasks.keys import revoke_client

    say("\n".join(revoke_client(deployment, name)))


@clients.command(cls=Command)
@_deployment
@click.argument("name")
def rotate(deployment: Path, name: str) -> None:
    """Give a client new keys; the old ones open nothing any longer."""
    from threepc.console import say
    from threepc.tasks.keys import rotate_client

    say("\n".join(rotate_client(deployment, name)))


@click.command("compile", cls=Command, short_help="Compile the kernels before they are needed.")
@click.option("--ring", "rings", multiple=True, type=click.Choice(RINGS), help="For this ring alone; again for more. Default: all.")
def compile(rings: tuple[str, ...]) -> None:  # noqa: A001 - the command's name
    """Compile the kernels of all three parties, and keep them in ~/.cache/threepc or where THREEPC_CACHE says."""
    from threepc.console import Display, say
    from threepc.tasks.compile import compile_kernels

    say(compile_kernels([int(ring) for ring in rings or RINGS], Display()))


@click.command(cls=Command, short_help="Serve networks to clients.")
@click.argument("config", required=False)
@click.argument("checkpoint", required=False, type=FILE)
@_deployment
@click.option("--models", type=FILE, metavar="YAML", help="Serve the models that this file lists, and look for changes in it.")
@model_options
@calibration_option
@margin_option
@allow_error_option
@_threads
@_watching_options
def server(
    config: str | None,
    models: Path | None,
    deployment: Path,
    threads: int,
    observe: str | None,
    log_format: str,
    grace: float,
    trace: Path | None,
    **options: Any,
) -> None:
    """Serve a network, or those of --models, to the clients of a deployment until interrupted.

    CONFIG is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, an MMLab config or ONNX file, or package.module:factory. Without
    CHECKPOINT the weights are random; an ONNX file holds its own.
    """
    from threepc.console import Display
    from threepc.errors import InputError
    from threepc.tasks.models import ModelOptions
    from threepc.tasks.provide import Watching
    from threepc.tasks.serve import ServerOptions, serve

    model: ModelOptions | Path
    if config is not None and models is None:
        model = ModelOptions(config, **options)
    elif config is None and models is not None:
        model = models
        given = [name for name, value in options.items() if value != ModelOptions.__dataclass_fields__[name].default]
        if given:
            raise InputError(f"--models: write {', '.join(given)} into {models}, for each model its own")
    else:
        raise InputError("say which network to serve: either CONFIG [CHECKPOINT], or --models YAML for several")
    serve(ServerOptions(model, deployment, threads, Watching(observe, log_format, grace, trace)), Display())


@click.command(cls=Command, short_help="Deal randomness to clients and server.")
@_deployment
@_threads
@_watching_options
def provider(deployment: Path, threads: int, **options: Any) -> None:
    """Deal randomness to the clients and the server of a deployment until interrupted."""
    from threepc.console import Display
    from threepc.tasks.provide import Watching, provide

    provide(deployment, threads, Watching(**options), Display())


@click.command("status", cls=Command, short_help="How a server or provider is, that is observed.")
@click.argument("address", metavar="[HOST:]PORT")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(address: str, as_json: bool) -> None:
    """Print what a server or a provider that was started with --observe [HOST:]PORT says of itself."""
    from threepc.cli.show_status import show
    from threepc.console import say_json
    from threepc.tasks.observe import read_status

    (say_json if as_json else show)(read_status(address))


@click.command(cls=Command, short_help="Your images through a server and a provider.")
@_deployment
@input_option
@click.option("--model", default="", metavar="NAME[@FINGERPRINT]", help="Which of the server's models. Default: its first.")
@click.option("--name", default="client", show_default=True, help="Whose key files are used: NAME.public and NAME.secret.")
@labels_option
@batch_option
@click.option(
    "--in-flight",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    help="So many inferences at once, each in a session of its own, so that one computes while another waits for messages.",
)
@click.option(
    "--precompute",
    type=click.IntRange(0, 1024),
    default=0,
    show_default=True,
    help="Prepare so many inferences before the first image is sent, so that each of these takes its online phase alone; as they are used, others in their "
    "place. At most as many at a time as image files make batches: how many windows slide over a file is known when the parties have agreed on N.",
)
@threads_option("Threads of the client.")
@phases_option
@out_of_range_option
@output_options
@trace_option
@click.option(
    "--resume",
    type=FILE,
    metavar="DIR",
    help="Keep every image's output in this folder as it comes, and ask for those alone that are not there yet.",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="Try again so often, in a new session, when a party is lost, silent or being stopped.",
)
@click.option(
    "--cache/--no-cache",
    default=True,
    show_default=True,
    help="Keep the server's masked weights on disk, so that the next session starts without them. They stay masked.",
)
@json_option
def client(deployment: Path, images: tuple[Path, ...], phases: str, as_json: bool, **options: Any) -> None:
    """Classify or segment images with the server and the provider of a deployment."""
    from threepc.cli.show_run import show
    from threepc.console import Display, say_json
    from threepc.party.allocator import keep_freed_memory
    from threepc.tasks.ask import ClientOptions, ask

    keep_freed_memory()
    outcome = ask(ClientOptions(deployment, images, separate=phases == "separate", **options), Display(notes_apart=as_json))
    say_json(outcome.report) if as_json else show(outcome, by_server=True)
