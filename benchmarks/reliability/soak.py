"""Soak: clients ask for a long time while faults happen at random; nothing may leak, no answer be wrong, every failure be told."""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field

from benchmarks.reliability.stage import PARTIES, Stage


@dataclass
class Soak:
    """Counts of what happened. memory_mb, descriptors, threads: by party, [(seconds, value)] since that party's last start."""

    seconds: float = 0.0
    right: int = 0
    wrong: int = 0
    told: int = 0
    silent: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    grown: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """The table for docs/reliability.md."""
        happened = ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items()))
        rows = [
            ("minutes", f"{self.seconds / 60:.0f}"),
            ("faults", happened or "none"),
            ("sessions with the right answer", str(self.right)),
            ("sessions with a wrong answer", str(self.wrong)),
            ("sessions that failed and said why in one line", str(self.told)),
            ("sessions that failed without a word or hung", str(self.silent)),
            *((f"{name}: memory, descriptors, threads, from its first quiet minute to the end", text) for name, text in self.grown.items()),
        ]
        return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def soak(minutes: float = 30.0, clients: int = 3, faults: bool = True, seed: int = 0) -> Soak:
    """Run for so long. The server and the provider are never restarted unless a fault killed them."""
    names, result, lock = [f"client{number}" for number in range(clients)], Soak(), threading.Lock()
    chance, ended = random.Random(seed), threading.Event()  # noqa: S311 - chooses faults, nothing secret
    with Stage(names, connect=60, answer=10) as stage:

        def ask(name: str) -> None:
            while not ended.is_set():
                client = stage.client(name, repeat=3)
                status = client.end(120)
                with lock:
                    if status is None:
                        client.signal(signal.SIGKILL)
                        result.silent += 1
                    elif status == 0:
                        good = stage.right(name)
                        result.right, result.wrong = result.right + good, result.wrong + (not good)
                    elif client.said:
                        result.told += 1
                    else:
                        result.silent += 1

        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        before = {name: _figures(stage, name) for name in PARTIES}
        settled = False
        while time.monotonic() - began < 60 * minutes:
            time.sleep(5)
            if not settled and time.monotonic() - began > 60:
                before, settled = {name: _figures(stage, name) for name in PARTIES}, True
            if faults and settled and chance.random() < 0.3:
                _fault(stage, chance, result, before)
        ended.set()
        for thread in threads:
            thread.join()
        time.sleep(15)  # sessions that a fault left behind end within their time
        for name in PARTIES:
            after = _figures(stage, name)
            result.grown[name] = "; ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(before[name], after, strict=True))
    result.seconds = time.monotonic() - began
    return result


def _figures(stage: Stage, name: str) -> tuple[float, float, float]:
    party = stage.parties[name]
    return party.resident_mb(), float(party.descriptors()), float(party.threads())


def _fault(stage: Stage, chance: random.Random, result: Soak, before: dict[str, tuple[float, float, float]]) -> None:
    kind, name = chance.choice(("cut", "cut", "silence", "hang", "kill")), chance.choice(PARTIES)
    result.faults[f"{kind} of the {name}"] = result.faults.get(f"{kind} of the {name}", 0) + 1
    party, proxy = stage.parties[name], stage.proxies[name]
    if kind == "cut":
        proxy.cut()
    elif kind == "silence":
        proxy.silent = True
        time.sleep(chance.uniform(1, 15))
        proxy.silent = False
        proxy.cut()
    elif kind == "hang":
        party.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(1, 15))
        party.signal(signal.SIGCONT)
    else:
        party.signal(signal.SIGKILL)
        party.end()
        stage.start(name)
        time.sleep(20)
        before[name] = _figures(stage, name)
