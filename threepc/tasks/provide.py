"""`threepc provider`, and what it shares with `threepc server`: a party that serves until it is told to stop. No torch here."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from threepc.console import Display
from threepc.party import three_hosts
from threepc.party.session import log
from threepc.party.warmup import warm_up


class ServingParty(Protocol):
    """The server or the provider."""

    @property
    def address(self) -> str:
        """Where it listens."""

    def serve(self) -> None:
        """Serve until stopped."""

    def stop(self) -> None:
        """End everything."""


def provide(path: Path | str, threads: int, display: Display) -> None:
    """`threepc provider`: deal until interrupted."""
    deployment = three_hosts.read_deployment(path)
    deployment.key_pair("provider")
    with display.stage("preparing kernels") as progress:
        warm_up(deployment.precision, progress)
    log_to_output()
    serve_until_signal(three_hosts.open_provider(deployment, threads), lambda address: log.info("the provider listens at %s", address))


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
