"""`threepc provider`, and what it shares with `threepc server`: a party that serves until it is told to stop. No torch here."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from threepc.console import Display
from threepc.party import three_hosts
from threepc.party.deployment import Deployment, load
from threepc.party.listening import ListeningParty
from threepc.party.observation import Observation
from threepc.party.session import log
from threepc.party.tracing import traced
from threepc.party.warmup import warm_up
from threepc.tasks.observe import log_to_output, watched
from threepc.tasks.reload import LOOKS_EVERY_S, Reload


@dataclass(frozen=True)
class Watching:
    """How a party that serves is watched and stopped. observe: [HOST:]PORT of its pages, or None; log_format: "text" or "json".

    grace: seconds that inferences which run are given when the party is told to stop. trace: file of its timeline, or None.
    """

    observe: str | None = None
    log_format: str = "text"
    grace: float = 30.0
    trace: Path | None = None


def provide(path: Path | str, threads: int, watching: Watching, display: Display) -> None:
    """`threepc provider`: deal until interrupted."""
    deployment = load(path)
    deployment.key_pair("provider")
    log_to_output(watching.log_format)
    observation = Observation("provider")
    with (
        traced(watching.trace, "provider") as trace,
        watched(observation, watching.observe),
    ):  # it says "loading" while the kernels are prepared
        with display.stage("preparing kernels") as progress:
            warm_up(deployment.precision, progress)
        party = three_hosts.open_provider(deployment, threads, trace)
        party.observation = observation
        serve_until_signal(party, deployment, watching.grace)


def serve_until_signal(
    party: ListeningParty, deployment: Deployment, grace: float, look_besides: Callable[[bool], None] = lambda _: None
) -> None:
    """Announce the address and serve until SIGINT or SIGTERM, then finish what runs and end all sessions; a second signal ends at once.

    Meanwhile the clients of deployment.yaml are read again when it changes and, unless a person started this in a terminal, on SIGHUP.
    grace: as `Watching` has it. look_besides: called as often, with whether a signal asked for it.
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
            look_besides(bool(said))
        if party.observation.counts().active:
            log.info("stopping: inferences that run have %g s to end; another signal ends them at once", grace)
        if left := party.drain(grace):
            log.warning("%d inference(s) did not end within %g s", left, grace)
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
