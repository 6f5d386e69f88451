"""Load: many listed clients, of whom several ask at a time; every one must be served, none much later than its share."""

from __future__ import annotations

import statistics
import threading
import time
from dataclasses import dataclass

from benchmarks.reliability.stage import PARTIES, Stage


@dataclass(frozen=True)
class Load:
    """seconds: of every client from its start to its end. idle_mb, busy_mb: memory of server and provider before and at most after."""

    seconds: tuple[float, ...]
    wrong: int
    idle_mb: dict[str, float]
    busy_mb: dict[str, float]

    @property
    def fair(self) -> float:
        """The slowest client's time as a multiple of the median."""
        return max(self.seconds) / statistics.median(self.seconds)

    def markdown(self) -> str:
        """The table for docs/reliability.md."""
        rows = "".join(
            f"| memory of the {name}: idle, at most | {self.idle_mb[name]:.0f} MB, {self.busy_mb[name]:.0f} MB |\n" for name in PARTIES
        )
        return (
            "| | |\n|---|---|\n"
            f"| clients served right | {len(self.seconds) - self.wrong} of {len(self.seconds)} |\n"
            f"| seconds a client: median, slowest | {statistics.median(self.seconds):.1f}, {max(self.seconds):.1f} |\n" + rows
        )


def load(listed: int = 100, active: int = 8) -> Load:
    """Serve every listed client once, `active` of them at any time."""
    names = [f"client{number}" for number in range(listed)]
    seconds, wrong, waiting, lock = [], [0], list(reversed(names)), threading.Lock()
    with Stage(names, connect=120, answer=60) as stage:
        idle = {name: stage.parties[name].resident_mb() for name in PARTIES}

        def ask() -> None:
            while True:
                with lock:
                    if not waiting:
                        return
                    name = waiting.pop()
                began = time.monotonic()
                client = stage.client(name)
                good = client.end(300) == 0 and stage.right(name)
                with lock:
                    seconds.append(time.monotonic() - began)
                    wrong[0] += not good

        threads = [threading.Thread(target=ask) for _ in range(active)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        busy = {name: stage.parties[name].peak_mb() for name in PARTIES}
    return Load(tuple(seconds), wrong[0], idle, busy)
