"""`python -m benchmarks.serving`: images a second and latency of a deployment, one at a time, several in flight, and prepared ahead.

Server, provider and client are three processes, over CURVE on loopback or, with `--transport ipc`, over Unix sockets without encryption, as
`threepc keygen --unix` sets up parties of one host. Links are simulated, and all sessions of a process share them. A latency is from when
an image is asked for until its result is decoded. With several in flight the images are asked for as fast as answers come. What is prepared
is prepared before each image, and only the image is timed, so images a second are then those of a client whose images come one by one.

With `--clients` as many processes ask side by side, each one batch after the other, and images a second are those of all together, from the
first one's first batch to the last one's last; a latency is that of a batch.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from benchmarks.machine import ROOT
from benchmarks.subjects import SUBJECTS
from threepc.choices import NETWORKS, RELU_MESSAGES, RINGS, read_links
from threepc.console import Display
from threepc.party import deployment, keygen, three_hosts
from threepc.party.allocator import memory_settings
from threepc.party.pool import SessionPool, in_order
from threepc.party.warmup import warm_up
from threepc.plan.messages import Links

BUDGET_MB = 8000
"""Of what may be dealt ahead: nothing here shall wait for it."""
CLIENT_S = 600.0
"""So long a client of several may take until all are ready, or done."""
PORTS = ("7001", "7002")
"""Of a new deployment.yaml; free ones take their place."""


@dataclass(frozen=True)
class Served:
    """Of one way to ask: images a second, seconds of each image, and of its online phase where the rest was prepared."""

    rate: float
    latencies: list[float]
    online: list[float]

    def row(self, name: str) -> str:
        """A line of the table."""
        late = statistics.quantiles(self.latencies, n=20, method="inclusive")[-1]
        online = f"{statistics.median(self.online):.2f}" if self.online else ""
        return f"| {name} | {self.rate:.2f} | {statistics.median(self.latencies):.2f} | {late:.2f} | {online} |"


@contextlib.contextmanager
def deployed(config: str, settings: Mapping[str, Any], transport: str = "tcp") -> Iterator[deployment.Deployment]:
    """Server and provider as processes of their own, until the end. settings: of deployment.yaml; transport: "tcp" or "ipc"."""
    with tempfile.TemporaryDirectory(prefix="threepc-") as folder, contextlib.ExitStack() as running:
        keygen.generate_unix(folder) if transport == "ipc" else keygen.generate(folder)
        file = Path(folder, deployment.FILE_NAME)
        text = file.read_text()
        with contextlib.ExitStack() as held:  # until both are known, lest one is given twice
            for port in PORTS:
                free = held.enter_context(socket.create_server(("127.0.0.1", 0)))
                text = text.replace(port, str(free.getsockname()[1]))
        budgets = {"client": BUDGET_MB, "provider": BUDGET_MB, "memory": BUDGET_MB}
        file.write_text(yaml.safe_dump(yaml.safe_load(text) | settings | {"budgets": budgets}))
        for words in (["provider"], ["server", config]):
            command = [sys.executable, "-m", "threepc", *words, "--deployment", str(file)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | memory_settings()
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            running.callback(process.wait)
            running.callback(process.terminate)
        yield deployment.load(file)


def in_flight(agreed: deployment.Deployment, count: int, sessions: int) -> Served:
    """Ask for `count` images, `sessions` at a time, all sessions open and used before."""
    with SessionPool(three_hosts.sessions_of(agreed), sessions) as pool:
        image = np.zeros((1, *pool.model.graph.input.shape), np.float32)
        pool.prepare()
        list(in_order(pool.infer, [image] * sessions, sessions))
        began = time.perf_counter()
        latencies = list(in_order(partial(_timed, pool), [image] * count, sessions))
        return Served(count / (time.perf_counter() - began), latencies, [])


def prepared(agreed: deployment.Deployment, count: int) -> Served:
    """Ask for `count` images, each when an inference is prepared for it and all that was sent for that has arrived, as the links' rates tell."""
    with SessionPool(three_hosts.sessions_of(agreed, ahead=[1])) as pool:
        image = np.zeros((1, *pool.model.graph.input.shape), np.float32)
        latencies, online = [], []
        links = Links(NETWORKS[agreed.network], read_links(agreed.links))
        arriving = links.busiest(pool.model.plan(1).cost.offline)
        for _ in range(count + 1):
            pool.prepare()
            time.sleep(arriving)
            began = time.perf_counter()
            _, record = pool.infer(image)
            latencies.append(time.perf_counter() - began)
            online.append(record.seconds["online"])
        return Served(count / sum(latencies[1:]), latencies[1:], online[1:])


def _timed(pool: SessionPool, images: np.ndarray) -> float:
    began = time.perf_counter()
    pool.infer(images)
    return time.perf_counter() - began


def side_by_side(file: Path, clients: int, count: int, batch: int) -> Served:
    """Ask for `count` batches in each of several processes. They begin together, when each has had an answer."""
    spawning = multiprocessing.get_context("spawn")
    ready, answers = spawning.Barrier(clients), spawning.Queue()
    processes = [spawning.Process(target=_client, args=(file, count, batch, ready, answers), daemon=True) for _ in range(clients)]
    for process in processes:
        process.start()
    began, ended, latencies = zip(*(answers.get(timeout=CLIENT_S) for _ in processes), strict=True)
    for process in processes:
        process.join()
    return Served(clients * count * batch / (max(ended) - min(began)), list(itertools.chain(*latencies)), [])


def _client(file: Path, count: int, batch: int, ready: Barrier, answers: multiprocessing.Queue[tuple[float, float, list[float]]]) -> None:
    """One of several clients; says when it began and ended, by the machine's one clock, and how long each batch took."""
    with SessionPool(three_hosts.sessions_of(deployment.load(file), cache=False)) as pool:
        images = np.zeros((batch, *pool.model.graph.input.shape), np.float32)
        pool.infer(images)
        ready.wait(CLIENT_S)
        began = time.monotonic()
        latencies = [_timed(pool, images) for _ in range(count)]
        answers.put((began, time.monotonic(), latencies))
        ready.wait(CLIENT_S)  # nobody's goodbye falls into another one's time


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--subject", type=click.Choice(list(SUBJECTS)), default="resnet18_cifar", show_default=True)
@click.option("--ring", type=click.Choice([str(ring) for ring in RINGS]), default="32", show_default=True)
@click.option("--transport", type=click.Choice(["tcp", "ipc"]), default="tcp", show_default=True, help="ipc: Unix sockets, without keys.")
@click.option("--network", type=click.Choice(list(NETWORKS)), default="wan352", show_default=True)
@click.option("--links", default="", help="Rates of the hosts, as `threepc run --links` takes them.")
@click.option("--relu-messages", "messages", type=click.Choice(RELU_MESSAGES), default="4", show_default=True)
@click.option(
    "--images", "count", type=click.IntRange(2), default=16, show_default=True, help="Of each way to ask; of batches, with --clients."
)
@click.option("--in-flight", "several", multiple=True, type=int, default=(1, 4, 8), show_default=True, help="0 for prepared ahead alone.")
@click.option("--clients", multiple=True, type=click.IntRange(1), help="So many processes that ask, and nothing else; may be repeated.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images that each of the --clients asks for at once.")
def command(  # noqa: PLR0913 - one of each option
    *,
    subject: str,
    ring: str,
    transport: str,
    network: str,
    links: str,
    messages: str,
    count: int,
    several: tuple[int, ...],
    clients: tuple[int, ...],
    batch: int,
) -> None:
    """Measure a deployment's images a second and latencies, and print a table."""
    config, display = SUBJECTS[subject].config, Display()
    settings = {"ring": int(ring), "network": network} | ({"links": links} if links else {})
    with deployed(config, settings | {"relu_messages": int(messages) if messages.isdigit() else messages}, transport) as agreed:
        with display.stage("preparing kernels") as progress:
            warm_up(agreed.precision, progress, varied=agreed.may_vary)
        what = f"{count} batches of {batch} a client" if clients else f"{count} images each"
        over = f"{transport}, {network}{f', {links}' if links else ''}"
        click.echo(f"{SUBJECTS[subject].title}, {ring} bits, {over}, {messages} messages a ReLU, {what}\n")
        click.echo("| asked for | images/s | latency, median s | 95 % s | online, median s |\n|---|---:|---:|---:|---:|")
        for processes in clients:
            click.echo(side_by_side(agreed.path, processes, count, batch).row(f"{processes} client(s), batches of {batch}"))
        for sessions in [] if clients else [number for number in several if number]:
            name = "one at a time" if sessions == 1 else f"{sessions} in flight"
            click.echo(in_flight(agreed, count, sessions).row(name))
        if not clients:
            click.echo(prepared(agreed, count).row("prepared ahead"))


if __name__ == "__main__":
    command()
