"""Attacks on a server and a provider that run: how much memory each costs them, and whether an honest client is served meanwhile.

Without a key: half-open connections, and handshakes that promise much. With a listed key: idle sessions, greetings without end, what
nobody reads. Each attack goes on for some seconds, during which an honest client asks.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.reliability.stage import PARTIES, Stage
from threepc.errors import ThreepcError
from threepc.party.deployment import Deployment, load
from threepc.party.session import new_session
from threepc.party.three_hosts import connector_of
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection
from threepc.transport.framing import PROTOCOL_VERSION

LASTS_S = 10.0
GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f" + b"\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
"""ZMTP 3.0's greeting of a client that will use CURVE."""


@dataclass(frozen=True)
class Attacked:
    """peak_mb: of the party attacked during the attack; honest_mb: of the same party under honest load."""

    attack: str
    party: str
    honest_mb: float
    peak_mb: float
    served: bool
    seconds: float

    @property
    def ratio(self) -> float:
        """Memory under attack as a multiple of that of honest load."""
        return self.peak_mb / self.honest_mb


def half_open(stage: Stage, name: str, stop: threading.Event) -> None:
    """Two thousand TCP connections that say nothing."""
    held: list[socket.socket] = []
    while not stop.is_set():
        with contextlib.suppress(OSError):
            if len(held) < 2000:
                held.append(socket.create_connection(("127.0.0.1", stage.ports[name]), 1))
                continue
        time.sleep(0.05)
    for each in held:
        each.close()


def promised(stage: Stage, name: str, stop: threading.Event) -> None:
    """Two connections that greet, then send a command frame of 4 GB before any key was checked."""
    for _ in range(2):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", stage.ports[name]), 2) as peer:
            peer.sendall(GREETING + b"\x06" + struct.pack(">Q", (1 << 32) - 1))
            piece = bytes(1 << 20)
            for _ in range(600):
                if stop.is_set():
                    break
                peer.sendall(piece)
    stop.wait()


def idle_sessions(stage: Stage, name: str, stop: threading.Event) -> None:
    """A listed client that opens connection after connection and says nothing."""
    with _connections(stage, name, 80):
        stop.wait()


def greetings(stage: Stage, name: str, stop: threading.Event) -> None:
    """A listed client that greets again and again, each time for another session."""
    deployment = load(stage.deployment)
    channels: list[Channel] = []
    while not stop.is_set() and len(channels) < 100:
        with contextlib.suppress(ThreepcError):
            channel = _channel(deployment, name)
            fields = {
                "version": PROTOCOL_VERSION,
                "role": "client",
                "session": new_session().hex(),
                "purpose": "online",
                "fingerprint": "0",
            }
            channel.send_control("hello", fields, [bytes(16)] if name == "provider" else [])
            channels.append(channel)
    stop.wait()
    for channel in channels:
        channel.close()


def unread(stage: Stage, name: str, stop: threading.Event) -> None:
    """A listed client that opens a session and sends what nobody reads."""
    with contextlib.suppress(ThreepcError):
        channel = _channel(load(stage.deployment), name)
        channel.send_control("hello", {"version": PROTOCOL_VERSION, "role": "client", "session": new_session().hex(), "purpose": "online"})
        piece = np.zeros(1 << 20, np.uint8)
        for _ in range(640):
            if stop.is_set():
                break
            channel.send(0, [piece], "online")
        stop.wait()
        channel.close()
    stop.wait()


def _channel(deployment: Deployment, name: str) -> Channel:
    return Channel(connector_of(deployment, "attacker", deployment.client_pair("attacker")).connect(name), ("client", name), timeout=5)


@contextlib.contextmanager
def _connections(stage: Stage, name: str, count: int) -> Iterator[list[Connection]]:
    deployment, made = load(stage.deployment), []
    connector = connector_of(deployment, "attacker", deployment.client_pair("attacker"))
    for _ in range(count):
        with contextlib.suppress(ThreepcError):
            made.append(connector.connect(name))
    try:
        yield made
    finally:
        for connection in made:
            connection.close()


ATTACKS: dict[str, Callable[[Stage, str, threading.Event], None]] = {
    "2,000 connections that say nothing, without a key": half_open,
    "a command frame of 4 GB, without a key": promised,
    "80 idle connections of a listed client": idle_sessions,
    "100 greetings of a listed client": greetings,
    "640 MB that nobody reads, of a listed client": unread,
}


def attacks() -> Iterator[Attacked]:
    """Each attack on each party, one after the other, parties as they are after the one before."""
    with Stage(("client", "attacker"), connect=30, answer=20) as stage:
        for _ in range(3):
            _ask(stage)
        honest = {name: stage.parties[name].peak_mb() for name in PARTIES}
        for title, attack in ATTACKS.items():
            for name in PARTIES:
                yield _attacked(stage, title, attack, name, honest[name])


def _ask(stage: Stage) -> None:
    client = stage.client("client", 2)
    assert client.end(60) == 0, client.lines
    assert stage.right()


def _attacked(stage: Stage, title: str, attack: Callable[[Stage, str, threading.Event], None], name: str, honest: float) -> Attacked:
    stop, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], stage.parties[name].resident_mb())
            time.sleep(0.02)

    threads = [threading.Thread(target=attack, args=(stage, name, stop)), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    time.sleep(LASTS_S / 2)
    began = time.monotonic()
    client = stage.client("client")
    served = client.end(60) == 0 and stage.right()
    seconds = time.monotonic() - began
    time.sleep(LASTS_S / 2)
    stop.set()
    for thread in threads:
        thread.join()
    return Attacked(title, name, honest, peak[0], served, seconds)


def markdown(rows: list[Attacked]) -> str:
    """The table for docs/reliability.md."""
    lines = [
        f"| {r.attack} | {r.party} | {r.honest_mb:.0f} MB | {r.peak_mb:.0f} MB | {r.ratio:.2f} | {'yes' if r.served else '**no**'} | {r.seconds:.1f} |"
        for r in rows
    ]
    head = "| attack | on the | honest load | under attack | ratio | honest client served | in seconds |\n|---|---|---|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n"
