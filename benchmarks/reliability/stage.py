"""A deployment on this host to do things to: server and provider as processes behind proxies, clients as processes, a small network."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from benchmarks.reliability.proxy import Proxy
from threepc.party.keygen import generate

ROOT = Path(__file__).parents[2]

FACTORY = '''
import torch
from torch import nn
from threepc.card import ModelCard, Preprocessing

def small():
    """A classifier of 32 x 32 images with every kind of step, its weights from a seed."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    net.model_card = ModelCard("small", Preprocessing((32, 32), (127.5,) * 3, (64.0,) * 3), classes=("ant", "bee", "cow", "dog"))
    return net
'''
SHAPE = (3, 32, 32)
STARTS_WITHIN_S = 180
PARTIES = ("provider", "server")


@dataclass
class Process:
    """A `threepc` command in a process of its own, its lines kept as they come."""

    arguments: Sequence[str]
    folder: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "threepc", *self.arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    def wait_for(self, pattern: str, seconds: float = STARTS_WITHIN_S) -> None:
        """Until a line matches. Raises AssertionError where the process ends, or the time is over, before."""
        until = time.monotonic() + seconds
        while not any(re.search(pattern, line) for line in list(self.lines)):
            assert time.monotonic() < until, f"no line like {pattern!r}: {self.lines}"
            assert self.process.poll() is None or self._reader.is_alive(), f"ended: {self.lines}"
            time.sleep(0.02)

    def end(self, seconds: float = STARTS_WITHIN_S) -> int | None:
        """The exit status; None where the process does not end within the time."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(seconds)
        return status

    def signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def said(self) -> str:
        """The line that says what went wrong, "" where there is none."""
        return next((line for line in self.lines if line.startswith("threepc: ")), "")

    def resident_mb(self) -> float:
        """Memory that the process holds now, in MB; 0 once it has ended."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The most memory that it has held so far."""
        return self._status("VmHWM")

    def _status(self, key: str) -> float:
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0.0
        found = re.search(rf"{key}:\s*(\d+) kB", text)
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def threads(self) -> int:
        """Threads that run."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Stage:
    """Keys, deployment.yaml, images and the two parties that listen. A context manager.

    clients: names of clients with keys. timeouts: of deployment.yaml, seconds. Every party reaches the others through proxies[name].
    """

    def __init__(self, clients: Sequence[str] = ("client",), connect: float = 10, answer: float = 8, **settings: object) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="threepc-reliability-")
        self.folder = Path(self._temporary.name)
        (self.folder / "factory.py").write_text(FACTORY)
        self.images = np.random.default_rng(1).normal(0, 0.7, (4, *SHAPE)).astype(np.float32)
        np.save(self.folder / "images.npy", self.images)
        self._write_keys(clients, {"connect": connect, "answer": answer}, settings)
        self.parties: dict[str, Process] = {}
        self.plain = self._plaintext()

    def _write_keys(self, clients: Sequence[str], timeouts: dict[str, float], settings: dict[str, object]) -> None:
        keys = self.folder / "keys"
        generate(keys, ["server", "provider", *clients])
        ports = dict(zip(PARTIES, free_ports(2), strict=True))
        self.ports = ports
        self.proxies = {name: Proxy(port) for name, port in ports.items()}
        document: dict[str, object] = {
            name: {
                "address": f"tcp://127.0.0.1:{self.proxies[name].port}",
                "listen": f"tcp://127.0.0.1:{ports[name]}",
                "public_key": f"{name}.public",
            }
            for name in PARTIES
        }
        document |= {"clients": [f"{name}.public" for name in clients], "ring": 48, "reveal": "logits", "timeouts": timeouts} | settings
        self.deployment = keys / "deployment.yaml"
        self.deployment.write_text(yaml.safe_dump(document, sort_keys=False))

    def _plaintext(self) -> np.ndarray:
        import torch

        namespace: dict[str, Any] = {}
        exec(compile(FACTORY, "factory.py", "exec"), namespace)  # noqa: S102 - the text above, so that processes and this one share it
        with torch.no_grad():
            outputs: np.ndarray = namespace["small"]()(torch.from_numpy(self.images)).numpy()
        return outputs

    def start(self, name: str) -> Process:
        """Start the server or the provider, and wait until it listens."""
        model = ["factory:small"] if name == "server" else []
        self.parties[name] = Process([name, *model, "--deployment", str(self.deployment)], self.folder)
        self.parties[name].wait_for("listens at")
        return self.parties[name]

    def client(self, name: str = "client", repeat: int = 1, *more: str) -> Process:
        """Start a client with the four images, `repeat` times over."""
        output = self.folder / f"out-{name}"
        inputs = ["images.npy"] * repeat
        arguments = ["client", "--deployment", str(self.deployment), "--name", name, "--output", str(output), *more, "--input", *inputs]
        return Process(arguments, self.folder)

    def right(self, name: str = "client") -> bool:
        """Whether the answers that a client wrote are those of plaintext PyTorch."""
        path = self.folder / f"out-{name}" / "logits.npy"
        if not path.is_file():
            return False
        logits = np.load(path)
        path.unlink()
        plain = np.concatenate([self.plain] * (len(logits) // len(self.plain)))
        return bool(np.abs(logits - plain).max() <= 0.005 * np.abs(plain).max())

    def __enter__(self) -> Self:
        for name in PARTIES:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.parties.values():
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in self.parties.values():
            if process.end(20) is None:
                process.signal(signal.SIGKILL)
                process.end()
        for proxy in self.proxies.values():
            proxy.close()
        self._temporary.cleanup()
