"""The fault matrix: each party, at five moments, is killed, stopped, hung, blackholed or cut off; then the next client must get its answer.

A moment is a share of the bytes that a clean session moves, so the same cell is the same place of the protocol on every machine.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.reliability.proxy import Proxy
from benchmarks.reliability.stage import PARTIES, Process, Stage

MOMENTS = {"connecting": 0.0, "handshake": 0.01, "set-up": 0.03, "first image": 0.3, "last image": 0.9}
FAULTS = ("kill", "stop", "hang", "blackhole", "cut")
VICTIMS = ("client", *PARTIES)
REPEAT = 4
"""Times that the client asks for its four images."""


@dataclass(frozen=True)
class Cell:
    """One fault and what followed. told: the client's line. seconds: from the fault to the client's end. next_right: the next client's answer."""

    victim: str
    fault: str
    moment: str
    status: int | None
    told: str
    seconds: float
    next_right: bool

    @property
    def good(self) -> bool:
        """The next client was served, and this one ended with its answer or with one line that says why."""
        ended = self.victim == "client" or self.status == 0 or (self.status == 1 and bool(self.told))
        return self.next_right and ended and "key" not in self.told


def matrix(wanted: Callable[[str, str, str], bool] = lambda victim, fault, moment: True) -> Iterator[Cell]:
    """All cells, or those wanted, one after the other on one stage."""
    with Stage(answer=5) as stage:
        total = _bytes_of_a_session(stage)
        for victim in VICTIMS:
            for fault in FAULTS:
                for moment, share in MOMENTS.items():
                    if wanted(victim, fault, moment):
                        yield _cell(stage, victim, fault, moment, int(share * total))


def _bytes_of_a_session(stage: Stage) -> int:
    before = sum(proxy.passed for proxy in stage.proxies.values())
    client = stage.client("client", REPEAT)
    assert client.end() == 0, client.lines
    assert stage.right()
    return sum(proxy.passed for proxy in stage.proxies.values()) - before


def _cell(stage: Stage, victim: str, fault: str, moment: str, after: int) -> Cell:
    client = stage.client("client", REPEAT)
    process = client if victim == "client" else stage.parties[victim]
    struck = _strike(stage, process, victim, fault, after)
    status = client.end(60)
    seconds = time.monotonic() - struck
    if status is None:
        client.signal(signal.SIGKILL)
    _recover(stage, victim, fault, process)
    stage.right()  # what this client wrote, if it still did, goes
    following = stage.client("client")
    return Cell(victim, fault, moment, status, client.said, seconds, following.end(60) == 0 and stage.right())


def _strike(stage: Stage, process: Process, victim: str, fault: str, after: int) -> float:
    """Wait for the moment and do it; when that was. For a server or provider its own proxy is meant, for a client both."""
    before = {name: proxy.passed for name, proxy in stage.proxies.items()}
    while sum(proxy.passed - before[name] for name, proxy in stage.proxies.items()) <= after:
        if process.process.poll() is not None:
            break
        time.sleep(0.0005)
    mine: list[Proxy] = [proxy for name, proxy in stage.proxies.items() if victim in ("client", name)]
    if fault == "cut":
        for proxy in mine:
            proxy.cut()
    elif fault == "blackhole":
        for proxy in mine:
            proxy.silent = True
    else:
        process.signal({"kill": signal.SIGKILL, "stop": signal.SIGTERM, "hang": signal.SIGSTOP}[fault])
        if victim == "client" and fault == "hang":
            time.sleep(8)  # longer than the others wait
            process.signal(signal.SIGKILL)
    return time.monotonic()


def _recover(stage: Stage, victim: str, fault: str, process: Process) -> None:
    for proxy in stage.proxies.values():
        if proxy.silent:
            proxy.silent = False
            proxy.cut()
    if victim == "client":
        return
    process.signal(signal.SIGCONT)
    if fault in ("kill", "stop"):
        process.end(60)
        stage.start(victim)


def markdown(cells: list[Cell]) -> str:
    """The table for docs/reliability.md."""
    rows = [
        f"| {c.victim} | {c.fault} | {c.moment} | {'answer' if c.status == 0 else c.status} | {c.told.removeprefix('threepc: ') or '-'} |"
        f" {c.seconds:.1f} | {'yes' if c.next_right else '**no**'} |"
        for c in cells
    ]
    head = "| party | fault | moment | client's status | client's line | seconds | next client right |\n|---|---|---|---|---|---|---|\n"
    return head + "\n".join(rows) + f"\n\n{sum(c.good for c in cells)} of {len(cells)} cells are good.\n"
