"""`python -m benchmarks.serving`: images a second and latency of a deployment, one at a time, several in flight, and prepared ahead.

Server, provider and client are three processes over CURVE; links are simulated, and all sessions of a process share them. A latency is from when
an image is asked for until its result is decoded. With several in flight the images are asked for as fast as answers come. What is prepared
is prepared before each image, and only the image is timed, so images a second are then those of a client whose images come one by one.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import yaml

from benchmarks.machine import ROOT
from benchmarks.subjects import SUBJECTS
from threepc.choices import NETWORKS, RINGS
from threepc.console import Display
from threepc.party import deployment, keygen, three_hosts
from threepc.party.one_host import memory_settings
from threepc.party.pool import SessionPool, in_order
from threepc.party.warmup import warm_up

BUDGET_MB = 8000
"""Of what may be dealt ahead: nothing here shall wait for it."""
PORTS = {"7001": "17411", "7002": "17412"}


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
def deployed(config: str, ring: int, network: str, links: str) -> Iterator[deployment.Deployment]:
    """Server and provider as processes of their own, until the end."""
    with tempfile.TemporaryDirectory(prefix="threepc-") as folder, contextlib.ExitStack() as running:
        keygen.generate(folder)
        file = Path(folder, deployment.FILE_NAME)
        text = file.read_text()
        for old, new in PORTS.items():
            text = text.replace(old, new)
        settings = yaml.safe_load(text) | {"ring": ring, "network": network} | ({"links": links} if links else {})
        settings["budgets"] = {"client": BUDGET_MB, "provider": BUDGET_MB, "memory": BUDGET_MB}
        file.write_text(yaml.safe_dump(settings))
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
    """Ask for `count` images, each when an inference is prepared for it."""
    with SessionPool(three_hosts.sessions_of(agreed, ahead=[1])) as pool:
        image = np.zeros((1, *pool.model.graph.input.shape), np.float32)
        latencies, online = [], []
        for _ in range(count + 1):
            pool.prepare()
            began = time.perf_counter()
            _, record = pool.infer(image)
            latencies.append(time.perf_counter() - began)
            online.append(record.seconds["online"])
        return Served(count / sum(latencies[1:]), latencies[1:], online[1:])


def _timed(pool: SessionPool, image: np.ndarray) -> float:
    began = time.perf_counter()
    pool.infer(image)
    return time.perf_counter() - began


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--subject", type=click.Choice(list(SUBJECTS)), default="resnet18_cifar", show_default=True)
@click.option("--ring", type=click.Choice([str(ring) for ring in RINGS]), default="32", show_default=True)
@click.option("--network", type=click.Choice([name for name in NETWORKS if name != "none"]), default="wan352", show_default=True)
@click.option("--links", default="", help="Rates of the hosts, as `threepc run --links` takes them.")
@click.option("--images", "count", type=click.IntRange(2), default=16, show_default=True, help="Of each way to ask.")
@click.option("--in-flight", "several", multiple=True, type=int, default=(1, 4, 8), show_default=True)
def command(subject: str, ring: str, network: str, links: str, count: int, several: tuple[int, ...]) -> None:
    """Measure a deployment's images a second and latencies, and print a table."""
    config, display = SUBJECTS[subject].config, Display()
    with deployed(config, int(ring), network, links) as agreed:
        with display.stage("preparing kernels") as progress:
            warm_up(agreed.precision, progress, quick=agreed.may_be_quick)
        click.echo(f"{SUBJECTS[subject].title}, {ring} bits, {network}{f', {links}' if links else ''}, {count} images each\n")
        click.echo("| asked for | images/s | latency, median s | 95 % s | online, median s |\n|---|---:|---:|---:|---:|")
        for sessions in several:
            name = "one at a time" if sessions == 1 else f"{sessions} in flight"
            click.echo(in_flight(agreed, count, sessions).row(name))
        click.echo(prepared(agreed, count).row("prepared ahead"))


if __name__ == "__main__":
    command()
