"""All three parties on this machine, as three processes or as three threads: a demonstration and a test bed, not privacy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from threepc.choices import NETWORKS, TRANSPORTS, read_links
from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel, ServedModel
from threepc.party.allocator import memory_settings
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.provider import ProviderParty
from threepc.party.record import Record
from threepc.party.server import ServerParty
from threepc.party.session import Options, shows_the_server_nothing
from threepc.party.tracing import Timeline
from threepc.party.warmup import warm_up_for
from threepc.transport.channel import Channel
from threepc.transport.framing import Control
from threepc.transport.zmq_listener import Listener

ROLES = ("provider", "server", "client")
START_TIMEOUT = 120.0
STOP_TIMEOUT = 20.0


class ThreeProcesses:
    """Three processes that talk over ZeroMQ. A context manager; `infer` may be called any number of times.

    The server's process gets the weights in memory that has no name in any file system, and all three end with this process, however it ends.
    setup_seconds: what the client measured from connecting to being ready; setup_links: [bytes, messages] by link.
    """

    def __init__(  # noqa: PLR0913 - of `open_parties`
        self,
        model: ServedModel,
        transport: str = "ipc",
        network: str = "none",
        threads: int = 1,
        timeout: float = 120.0,
        budget: int | None = None,
        traced: bool = False,
        links: str = "",
        *,
        ahead: int = 0,
    ) -> None:
        """transport: "ipc" or "tcp" (CURVE on loopback); network: a preset of `choices.NETWORKS`. Raises RunError when a party does not start.

        traced: note timelines, which are in `timelines` once the parties are closed. links: hosts' rates, as `choices.read_links` takes them.
        ahead: inferences of one image that `prepare` prepares.
        """
        check_transport(transport, network, links)
        self._timeout, self._ended = timeout, ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._channels: dict[str, Channel] = {}
        self._open = contextlib.ExitStack()
        self.timelines: list[Timeline] = []
        budget = budget or Options().budget
        limits = {"network": network, "timeout": timeout, "budget": budget, "threads": threads, "links": links, "ahead": ahead}
        directory = tempfile.mkdtemp(prefix="threepc-")  # mode 0700
        self._directory = Path(directory)
        try:
            self._open.callback(shutil.rmtree, directory, ignore_errors=True)
            self._listener = self._open.enter_context(Listener(f"ipc://{directory}/control"))
            self._start(directory, model)
            self._connect({"transport": transport, "options": limits, "traced": traced})
        except BaseException:
            self.close()
            raise

    def _start(self, directory: str, model: ServedModel) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | memory_settings()
        package = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])])
        with os.fdopen(os.memfd_create("threepc-model"), "w+b") as file:
            model.write(file)
            file.flush()
            for role in ROLES:
                command = [sys.executable, "-m", "threepc.party.worker", role, directory]
                inherited = (file.fileno(),) if role == "server" else ()
                self._processes[role] = subprocess.Popen(
                    [*command, *map(str, inherited)], env=environment, pass_fds=inherited, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
                )
                threading.Thread(target=self._watch, args=(role,), daemon=True).start()

    def _watch(self, role: str) -> None:
        """Wake whoever waits for a party whose process ends before it has said hello."""
        if self._processes[role].wait() and role not in self._channels:
            self._listener.close()

    def _connect(self, settings: dict[str, Any]) -> None:
        """Hear every party, and tell it whom it will meet where."""
        public: dict[str, str] = {}
        for _ in ROLES:
            connection = self._listener.accept(START_TIMEOUT)
            if connection is None:
                raise RunError(f"a party's process did not start within {START_TIMEOUT:g} s")
            channel = Channel(connection, ("starter", "party"), timeout=self._timeout)
            hello = channel.receive_control("hello").fields
            channel.link = ("starter", hello["role"])
            connection.name = f"the {hello['role']}'s process"
            self._channels[hello["role"]] = channel
            public[hello["role"]] = hello["public"]
        addresses: dict[str, str] = {}
        for role in ("provider", "server"):
            self._channels[role].send_control("start", settings | {"public": public, "addresses": addresses})
            addresses[role] = self._hear(role, "listening").fields["address"]
        self._channels["client"].send_control("start", settings | {"public": public, "addresses": addresses})
        ready = self._hear("client", "ready").fields
        self.setup_seconds: float = ready["seconds"]
        self.setup_links: dict[str, list[int]] = ready["links"]

    def _hear(self, role: str, kind: str) -> Control:
        message = self._channels[role].receive_control(kind, "failed", "refused")
        if message.kind == "refused":
            raise InputError(message.fields["reason"])
        if message.kind == "failed":
            error = InputError if message.fields.get("exit_status") == InputError.exit_status else RunError
            raise error(message.fields["reason"])
        return message

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer`, in the client's process; images are float32."""
        if self._ended:
            raise RunError(f"this session is over: {self._ended}")
        try:
            return self._infer(images, separate)
        except InputError:
            raise
        except BaseException as error:  # of an interrupted call the answer is still to come: it is no later call's
            self._ended = str(error) or type(error).__name__
            raise

    def prepare(self) -> None:
        """As `ClientSession.prepare_ahead`, in the client's process, until it is done there and at the provider."""
        self._channels["client"].send_control("prepare", {})
        self._hear("client", "prepared")

    def _infer(self, images: np.ndarray, separate: bool) -> tuple[np.ndarray, Record]:
        pixels, channel = np.ascontiguousarray(images, np.float32), self._channels["client"]
        channel.send_control("infer", {"shape": pixels.shape, "separate": separate})
        channel.send(0, [pixels.view(np.uint32)], "online")
        result = self._hear("client", "result").fields
        (logits,) = channel.receive(0, [(np.uint64, tuple(result["shape"]))])
        return logits.view(np.float64).copy(), Record(**result["record"])

    def close(self) -> None:
        """End the three processes and remove their directory; wholly, whatever interrupts it."""
        self._ended = self._ended or "it was closed"
        with self._open as ending:
            ending.callback(self._read_timelines)
            for channel in self._channels.values():
                ending.callback(channel.close)
            for role in ("provider", "server", "client"):  # the last one first
                ending.callback(self._end, role)

    def _read_timelines(self) -> None:
        for written in sorted(self._directory.glob("*.trace")):
            self.timelines.append(Timeline.from_plain(json.loads(written.read_text())))

    def _end(self, role: str) -> None:
        if role in self._channels:
            with contextlib.suppress(RunError):
                self._channels[role].send_control("stop", {})
        if role in self._processes:
            with self._processes[role] as process:  # which closes the pipe that it watches, too
                try:
                    process.wait(STOP_TIMEOUT if role in self._channels else 0.1)
                except subprocess.TimeoutExpired:
                    process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class ThreeThreads:
    """The three roles as threads of this process, over the in-memory channel: for tests and debugging."""

    def __init__(
        self,
        model: ServedModel,
        threads: int = 1,
        timeout: float = 120.0,
        budget: int | None = None,
        traced: bool = False,
        accept: Callable[[PublicModel], None] = shows_the_server_nothing,
    ) -> None:
        """accept: as `Options` has it, of client and provider."""
        options, connector = Options(timeout, budget or Options().budget, threads, accept=accept), MemoryConnector()
        self.timelines = [Timeline(role) for role in sorted(ROLES)] if traced else []
        of = {timeline.role: dataclasses.replace(options, trace=timeline) for timeline in self.timelines}
        self._parties = [ServerParty(model, connector, of.get("server", options)), ProviderParty(connector, of.get("provider", options))]
        self._threads = [threading.Thread(target=party.serve, name=type(party).__name__) for party in self._parties]
        try:
            for thread in self._threads:
                thread.start()
            self._session = ClientSession(connector, of.get("client", options))
        except BaseException:
            self._stop()
            raise
        self.setup_seconds, self.setup_links = self._session.setup_seconds, self._session.setup_links

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer`."""
        return self._session.infer(images, separate)

    def infer_words(self, words: np.ndarray) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer_words`."""
        return self._session.infer_words(words)

    def _stop(self) -> None:
        for party in self._parties:
            party.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def close(self) -> None:
        """End the session and the threads."""
        try:
            self._session.close()
        finally:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_parties(  # noqa: PLR0913 - what a run may choose; most by name
    model: ServedModel,
    transport: str = "ipc",
    network: str = "none",
    progress: Callable[[str], None] = lambda _: None,
    *,
    threads: int = 1,
    timeout: float = 120.0,
    budget: int | None = None,
    traced: bool = False,
    links: str = "",
    ahead: int = 0,
) -> ThreeProcesses | ThreeThreads:
    """The three parties of a model on this machine. transport: ipc, tcp, or memory for threads; other options as `ThreeProcesses`.

    Kernels are compiled here first, so that not every process does it; progress is told what is compiled.
    """
    check_transport(transport, network, links)
    warm_up_for(model.public, progress)
    if transport == "memory":
        return ThreeThreads(model, threads, timeout, budget, traced)
    return ThreeProcesses(model, transport, network, threads, timeout, budget, traced, links, ahead=ahead)


def check_transport(transport: str, network: str, links: str = "") -> None:
    """Raises InputError for a transport, a network or rates that there are none of, and for a network between threads."""
    if transport not in TRANSPORTS:
        raise InputError(f"transport: must be one of {', '.join(TRANSPORTS)}, not {transport}")
    if network not in NETWORKS:
        raise InputError(f"network: must be one of {', '.join(NETWORKS)}, not {network}")
    read_links(links)
    if transport == "memory" and (network != "none" or links):
        raise InputError(f"{'network' if network != 'none' else 'links'}: a simulated network needs processes; choose transport ipc or tcp")
