"""`threepc server`: one network or several, served to the clients of a deployment."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from threepc.console import Display
from threepc.party import three_hosts
from threepc.party.allocator import keep_freed_memory
from threepc.party.deployment import load
from threepc.party.tracing import traced
from threepc.tasks.models import GivenModel, ModelOptions, Models
from threepc.tasks.observe import log_to_output, watched
from threepc.tasks.provide import Steering, Watching, serve_until_signal


@dataclass(frozen=True)
class ServerOptions:
    """What `threepc server` is told; the command's help says what each means. model: the one to serve, or the models.yaml of several."""

    model: ModelOptions | GivenModel | Path
    deployment: Path
    threads: int = 1
    watching: Watching = field(default_factory=Watching)


def serve(options: ServerOptions, display: Display, steering: Steering | None = None) -> None:
    """Load, prepare, listen and serve until interrupted, or until `steering` says so.

    Raises InputError before listening, for files, keys, models and address.
    """
    if steering is None:  # the process is this party's own
        keep_freed_memory()
    deployment = load(options.deployment)
    deployment.key_pair("server")
    log_to_output(options.watching.log_format)
    watching = options.watching
    with contextlib.ExitStack() as stack:
        trace = stack.enter_context(traced(watching.trace, "server"))
        party = three_hosts.open_server(deployment, None, options.threads, trace)  # an address in use is told before anything is loaded
        look = lambda _: None
        stack.enter_context(party.served())  # from now on: while it loads, it says so
        stack.enter_context(watched(party.observation, watching.observe))
        if isinstance(options.model, Path):
            models = Models(options.model, lambda model: model.load(deployment, display))
            party.offer_all(models.offered)
            look = lambda asked: models.look(party.offer, asked)
        else:
            served = options.model.load(deployment, display)
            with display.stage("masking the weights"):
                party.load(served)
        serve_until_signal(party, deployment, watching.grace, look, steering=steering)
