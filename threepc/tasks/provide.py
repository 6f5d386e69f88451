"""`threepc provider`, and what it shares with `threepc server`: a party that serves until it is told to stop. No torch here."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path

from threepc.console import Display
from threepc.party import three_hosts
from threepc.party.deployment import Deployment
from threepc.party.listening import ListeningParty
from threepc.party.session import log
from threepc.party.warmup import warm_up
from threepc.tasks.reload import LOOKS_EVERY_S, Reload


def provide(path: Path | str, threads: int, display: Display) -> None:
    """`threepc provider`: deal until interrupted."""
    deployment = three_hosts.read_deployment(path)
    deployment.key_pair("provider")
    with display.stage("preparing kernels") as progress:
        warm_up(deployment.precision, progress)
    log_to_output()
    serve_until_signal(three_hosts.open_provider(deployment, threads), deployment)


def serve_until_signal(party: ListeningParty, deployment: Deployment) -> None:
    """Announce the address and serve until SIGINT or SIGTERM, then end all sessions; a second signal ends the process at once.

    Meanwhile the clients of deployment.yaml are read again when it changes and, unless a person started this in a terminal, on SIGHUP.
    """
    waiting, ended = os.pipe()  # a signal may come at any point of the program, where waking a pipe is safe and a lock is not
    reload = Reload(deployment, party)
    failures = []

    def serve() -> None:
        try:
            party.serve()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            failures.append(error)
        finally:
            os.write(ended, b"x")

    def stop(*_: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        os.write(ended, b"x")

    def look(*_: object) -> None:
        os.write(ended, b"look")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    if not os.isatty(0):  # a terminal that is closed says so by the same signal, and then everything ends as ever
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, look)
    thread = threading.Thread(target=serve, name="serve", daemon=True)
    try:
        thread.start()
        log.info("the %s listens at %s", party.role, party.address)
        while b"x" not in (said := _read(waiting, LOOKS_EVERY_S)):
            reload.look(asked=bool(said))
        party.stop()
        thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(waiting)
        os.close(ended)
    if failures:
        raise failures[0]


def _read(descriptor: int, timeout: float) -> bytes:
    return os.read(descriptor, 1024) if select.select([descriptor], [], [], timeout)[0] else b""


def log_to_output() -> None:
    """One line for each session and inference on standard output, with the time."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
