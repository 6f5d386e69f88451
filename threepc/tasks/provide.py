"""`threepc provider`, and what it shares with `threepc server`: a party that serves until a signal or its program stops it. No torch here."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from threepc.choices import LABEL
from threepc.console import Display
from threepc.party import three_hosts
from threepc.party.allocator import give_back, keep_freed_memory
from threepc.party.deployment import ONE_USER, Deployment, load
from threepc.party.listening import ListeningParty
from threepc.party.observation import Observation
from threepc.party.session import log
from threepc.party.tracing import traced
from threepc.party.warmup import warm_up
from threepc.tasks.observe import log_to_output, watched
from threepc.tasks.reload import LOOKS_EVERY_S, Reload

QUIET_S = 30.0
"""After so long without an inference, what is kept for the next one is given back to the system."""


@dataclass(frozen=True)
class Watching:
    """How a party that serves is watched and stopped.

    observe: [HOST:]PORT of its pages, or None; log_format: "text" or "json", or None where the program that runs it has logging of its own.
    grace: seconds that inferences which run are given when the party is told to stop. trace: file of its timeline, or None.
    """

    observe: str | None = None
    log_format: str | None = "text"
    grace: float = 30.0
    trace: Path | None = None


class Steering:
    """A party that serves is told here to stop, or to look at its files anew.

    That goes through a pipe, because a signal may come at any point of the program, where waking a pipe is safe and a lock is not.
    listening: its address, once it listens.
    """

    def __init__(self) -> None:
        self._waiting, self._told = os.pipe()
        self.listening: Future[str] = Future()

    def end(self, *_: object) -> None:
        """Have it stop."""
        os.write(self._told, b"x")

    def look(self, *_: object) -> None:
        """Have it look."""
        os.write(self._told, b"look")

    def heard(self, seconds: float) -> bytes:
        """What was told, b"" where there was nothing in so many seconds; b"x" in it for the end."""
        return os.read(self._waiting, 1024) if select.select([self._waiting], [], [], seconds)[0] else b""

    @contextlib.contextmanager
    def by_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM have it stop, SIGHUP has it look unless a person started this in a terminal. A second signal ends the process."""

        def stop(*_: object) -> None:
            for each in before:
                signal.signal(each, signal.SIG_DFL)
            self.end()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        if not os.isatty(0):  # a terminal that is closed says so by the same signal, and then everything ends as ever
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self.look)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._waiting)
        os.close(self._told)


class Background:
    """A party that serves in a thread of its own, from when it is ready. A context manager; `close` ends it.

    address: where it listens, tcp://HOST:PORT or ipc:///PATH.
    """

    def __init__(self, serve: Callable[[Steering], None]) -> None:
        """Wait until the party listens and has what it serves. Raises what `serve` raises until then."""
        self._steering, self._serve = Steering(), serve
        self._closing, self._failure = threading.Lock(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, name="serve in the background", daemon=True)
        self._thread.start()
        try:
            self.address = self._steering.listening.result()
        except BaseException:
            self.close()
            raise

    def _run(self) -> None:
        try:
            self._serve(self._steering)
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for the party
            if self._steering.listening.done():
                self._failure.append(error)
            else:
                self._steering.listening.set_exception(error)

    def close(self) -> None:
        """Let the inferences that run end, within the seconds of grace, and stop listening. Raises what the party has failed with."""
        if not self._closing.acquire(blocking=False):  # which nobody gives back: it is closed once
            return
        self._steering.end()
        self._thread.join()
        self._steering.close()
        if self._failure:
            raise self._failure[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def provide(path: Path | str, threads: int, watching: Watching, display: Display, steering: Steering | None = None) -> None:
    """`threepc provider`: deal until interrupted, or until `steering` says so."""
    if steering is None:  # the process is this party's own
        keep_freed_memory()
    deployment = load(path)
    deployment.key_pair("provider")
    log_to_output(watching.log_format)
    observation = Observation("provider")
    with (
        traced(watching.trace, "provider") as trace,
        watched(observation, watching.observe),
    ):  # it says "loading" while the kernels are prepared
        with display.stage("preparing kernels") as progress:
            warm_up(deployment.precision, progress, varied=deployment.may_vary, labels=LABEL in deployment.reveal)
        party = three_hosts.open_provider(deployment, threads, trace)
        party.observation = observation
        serve_until_signal(party, deployment, watching.grace, steering=steering)


def serve_until_signal(
    party: ListeningParty,
    deployment: Deployment,
    grace: float,
    look_besides: Callable[[bool], None] = lambda _: None,
    steering: Steering | None = None,
) -> None:
    """Announce the address and serve until SIGINT or SIGTERM, then finish what runs and end all sessions; a second signal ends at once.

    Meanwhile the clients of deployment.yaml are read again when it changes and, unless a person started this in a terminal, on SIGHUP.
    grace: as `Watching` has it. look_besides: called as often, with whether a signal asked for it. steering: what tells the party to stop
    and to look instead of signals.
    """
    if steering is not None:
        _serve(party, deployment, grace, look_besides, steering)
        return
    steering = Steering()
    try:
        with steering.by_signals():
            _serve(party, deployment, grace, look_besides, steering)
    finally:
        steering.close()


def _serve(party: ListeningParty, deployment: Deployment, grace: float, look_besides: Callable[[bool], None], steering: Steering) -> None:
    reload = Reload(deployment, party)
    failures = []

    def serve() -> None:
        try:
            party.serve()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failures.append(error)
        finally:
            steering.end()

    thread = threading.Thread(target=serve, name="serve", daemon=True)
    thread.start()
    try:
        log.info("the %s listens at %s%s", party.role, party.address, f": {ONE_USER}" if deployment.is_unix else "")
        steering.listening.set_result(party.address)
        given_back = 0.0
        while b"x" not in (said := steering.heard(LOOKS_EVERY_S)):
            reload.look(asked=bool(said))
            look_besides(bool(said))
            if given_back < (since := party.quiet_since()) < time.monotonic() - QUIET_S:
                give_back()
                given_back = since
        if party.observation.counts().active:
            log.info("stopping: inferences that run have %g s to end; another signal ends them at once", grace)
        if left := party.drain(grace):
            log.warning("%d inference(s) did not end within %g s", left, grace)
    finally:
        party.stop()
        thread.join()
    if failures:
        raise failures[0]
