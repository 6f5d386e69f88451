"""`threepc` commands as processes, and deployments for them."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.standard_error import failure
from threepc.party.keygen import generate

REPOSITORY = Path(__file__).parents[2]
ENDS_WITHIN_S = 240  # only a failing test waits that long, also on a busy machine


class Running:
    """A `threepc` command in a process of its own; its lines can be waited for."""

    def __init__(self, arguments: list[str], folder: Path, before: Sequence[str] = ()):
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "threepc", *arguments],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._arrived: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=pipe, daemon=True)
            for pipe in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, kept: list[str]) -> None:
        with pipe:
            for line in pipe:
                kept.append(line.rstrip("\n"))
                self._arrived.put(kept[-1])
        self._arrived.put(None)

    def wait_for(self, pattern: str) -> str:
        """The first new line that holds a match; fails when the process ends before."""
        while (line := self._arrived.get(timeout=ENDS_WITHIN_S)) is not None:
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no line like {pattern!r}: {self.lines} {self.errors}")

    def end(self) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(ENDS_WITHIN_S)
        for reader in self._readers:
            reader.join(ENDS_WITHIN_S)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.end()

    @property
    def failure(self) -> str:
        """The one line that says what went wrong; besides, standard error holds progress alone."""
        return failure(self.errors)

    @property
    def output(self) -> str:
        """Standard output so far."""
        return "\n".join(self.lines)


def write_deployment(folder: Path, *changes: tuple[str, str]) -> Path:
    """Keys and a deployment.yaml with free ports and short timeouts; `changes` replace its text."""
    generate(folder)
    path = folder / "deployment.yaml"
    text = path.read_text()
    with socket.socket() as one, socket.socket() as two:
        for taken, port in ((one, "7001"), (two, "7002")):
            taken.bind(("127.0.0.1", 0))
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{taken.getsockname()[1]}")
    for old, new in (("connect: 300", "connect: 20"), ("answer: 120", "answer: 30"), *changes):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path
