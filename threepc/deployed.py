"""The three parties of a deployment.yaml, each in a process of its own on any host; no torch here."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from .console import Display
from .deployment import FILE_NAME, Deployment, load
from .errors import RunError
from .graph.precision import FRACTION, Precision
from .party.client import ClientSession
from .party.model import PublicModel, ServedModel
from .party.network import ZmqNetwork
from .party.provider import ProviderParty
from .party.server import ServerParty
from .party.session import Options, log
from .party.warmup import warm_up
from .party.worker import options_of


class ServingParty(Protocol):
    """The server or the provider."""

    address: str

    def serve(self) -> None:
        """Serve until stopped."""

    def stop(self) -> None:
        """End everything."""


def find(path: Path | str) -> Deployment:
    """The deployment in a file, or in a folder's deployment.yaml. Raises InputError as `deployment.load` does."""
    path = Path(path)
    return load(path / FILE_NAME if path.is_dir() else path)


def precision_of(deployment: Deployment) -> Precision:
    """The precision that a deployment asks for, before calibration. Raises InputError for a window that leaves nothing to compare."""
    fraction = deployment.frac_bits or FRACTION[deployment.ring]
    precision = Precision(deployment.ring, fraction, window=deployment.drelu_window)
    precision.comparison(precision.bits - precision.fraction)
    return precision


def open_client(deployment: Deployment, name: str = "client", threads: int = 1) -> ClientSession:
    """Connect as the client whose key files are called `name`, and set a session up.

    Raises InputError for its keys, RunError when a party is missing or disagrees.
    """
    network = _network(deployment, name)
    return ClientSession(network, _options(deployment, deployment.budgets.client, threads))


def open_server(deployment: Deployment, model: ServedModel, threads: int = 1) -> ServerParty:
    """A server that listens. Raises InputError for its keys, for weights that do not fit the ring, and for an address in use."""
    network = _network(deployment, "server", deployment.clients)
    return ServerParty(model, network, _options(deployment, min(vars(deployment.budgets).values()), threads))


def open_provider(deployment: Deployment, threads: int = 1) -> ProviderParty:
    """A provider that listens. Raises InputError for its keys and for an address in use."""
    network = _network(deployment, "provider", (deployment.server.public_key, *deployment.clients))
    return ProviderParty(network, _options(deployment, deployment.budgets.provider, threads))


def provide(path: Path | str, threads: int, display: Display) -> None:
    """`threepc provider`: deal until interrupted."""
    deployment = find(path)
    deployment.key_pair("provider")
    with display.stage("preparing kernels") as progress:
        warm_up(precision_of(deployment), progress)
    log_to_output()
    serve_until_signal(open_provider(deployment, threads), lambda address: log.info("the provider listens at %s", address))


def serve_until_signal(party: ServingParty, announce: Callable[[str], None]) -> None:
    """Announce the address and serve until SIGINT or SIGTERM, then end all sessions; a second signal ends the process at once."""
    waiting, ended = os.pipe()  # a signal may come at any point of the program, where waking a pipe is safe and a lock is not
    failures = []

    def serve() -> None:
        try:
            party.serve()
        except BaseException as error:
            failures.append(error)
        finally:
            os.write(ended, b"x")

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        os.write(ended, b"x")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    thread = threading.Thread(target=serve, name="serve", daemon=True)
    try:
        thread.start()
        announce(party.address)
        os.read(waiting, 1)
        party.stop()
        thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waiting)
        os.close(ended)
    if failures:
        raise failures[0]


def log_to_output() -> None:
    """One line for each session and inference on standard output, with the time."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _network(deployment: Deployment, name: str, authorised: tuple[bytes, ...] = ()) -> ZmqNetwork:
    """The network as the party `name` sees it: it listens at its own address, if it has one, and reaches the others at theirs."""
    parties = {"server": deployment.server, "provider": deployment.provider}
    addresses = {role: party.listen if role == name else party.address for role, party in parties.items()}
    public = {role: party.public_key for role, party in parties.items()}
    return ZmqNetwork(addresses, deployment.key_pair(name), public, authorised, deployment.timeouts.connect)


def _options(deployment: Deployment, budget: int, threads: int) -> Options:
    settings = {"network": deployment.network, "timeout": deployment.timeouts.answer, "budget": budget, "threads": threads}
    return dataclasses.replace(options_of(settings), accept=lambda model: _agree(deployment, model))


def _agree(deployment: Deployment, model: PublicModel) -> None:
    """Raises RunError where a model is not what this party's deployment.yaml says."""
    window = model.precision.window
    expected = {
        "ring": (deployment.ring, model.precision.bits),
        "frac_bits": (deployment.frac_bits, model.precision.fraction if deployment.frac_bits else None),
        "drelu_window": (deployment.drelu_window, window and tuple(window)),
        "reveal": (deployment.reveal, model.reveal),
    }
    for key, (ours, theirs) in expected.items():
        if ours != theirs:
            raise RunError(f"the parties disagree on {key}: the server says {theirs}, {deployment.path} here says {ours}")
