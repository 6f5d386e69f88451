"""`threepc server`: a network, served to the clients of a deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from threepc.console import Display
from threepc.model.assemble import Settings, assemble_loaded, introduction
from threepc.model.load import load_model
from threepc.party import three_hosts
from threepc.party.deployment import load
from threepc.party.warmup import warm_up
from threepc.plan.calibration import MARGIN_BITS
from threepc.tasks.observe import log_to_output
from threepc.tasks.provide import Watching, serve_until_signal


@dataclass(frozen=True)
class ServerOptions:
    """What `threepc server` is told; the command's help says what each means."""

    config: str
    checkpoint: Path | None
    deployment: Path
    relu_spec: Path | None = None
    size: tuple[int, int] | None = None
    calibration: tuple[Path, ...] = ()
    margin: int = MARGIN_BITS
    threads: int = 1
    watching: Watching = field(default_factory=Watching)


def serve(options: ServerOptions, display: Display) -> None:
    """Load, prepare, listen and serve until interrupted. Raises InputError before listening, for files, keys, model and address."""
    deployment = load(options.deployment)
    deployment.key_pair("server")
    settings = Settings(
        deployment.ring,
        deployment.frac_bits,
        deployment.drelu_window,
        options.relu_spec,
        deployment.reveal,
        options.calibration,
        options.margin,
    )
    log_to_output(options.watching.log_format)
    party = three_hosts.open_server(deployment, None, options.threads)  # an address in use is told before anything is loaded
    with party.served():
        with display.stage("loading the model"):
            loaded = load_model(options.config, options.checkpoint, size=options.size)
        with display.stage("importing the network"):
            assembled = assemble_loaded(loaded, settings)
        for line in introduction(assembled, loaded, settings):
            display.note(line)
        with display.stage("preparing kernels") as progress:
            warm_up(assembled.public.precision, progress)
        with display.stage("masking the weights"):
            party.load(assembled.served)
    serve_until_signal(party, deployment, options.watching)
