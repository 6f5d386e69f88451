"""A session: who says what, in which order, and what the sessions of the three parties have in common.

The client C has two connections to the server S and one to the provider P, the server has one to the provider. These are the control messages
on them, with their fields, + what is attached to them; in brackets the data that goes between.

To set up, once:

    C -> S   hello    version, role, session, purpose "online"
    S -> P   hello    version, role, session, model + the keys of S with P and of the weights' mask
    S -> C   model    graph, precision, sizes, card, reveal
    C -> P   hello    version, role, session, fingerprint of the model + the key of C with P
    C -> S   hello    version, role, session, purpose "offline": from here on this is the second connection
    C -> S   opened   on the first connection
    S -> C            [the masked weights of every linear layer, on the second connection]
    P -> S   ready    fingerprint
    P -> C   ready    fingerprint
    S -> C   ready    on the first connection

To infer, any number of times, one after the other:

    C -> P   deal     attempt, batch
    C -> S   infer    attempt, batch
                      [P -> S what is dealt, C -> S what is prepared, then C and S in turn what is said online]
    S -> P   credit   bytes: for what was dealt, see pacing.py
    S -> C   credit   bytes: for what was prepared
    P -> C   dealt    seconds, cpu_seconds, peak_rss_mb, layers
    S -> C   done     seconds, cpu_seconds, peak_rss_mb, layers, dealt

To end:

    C -> S   bye
    C -> P   bye

Any party may say `abort` with a reason instead, on all its connections at once; whoever hears it ends the session with the same reason.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from threepc.choices import NETWORKS
from threepc.errors import RunError, ThreepcError
from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection
from threepc.transport.framing import SESSION_BYTES, Control
from threepc.transport.meter import Meter
from threepc.transport.shaping import Shaper

log = logging.getLogger("threepc")

MAX_BATCH = 1024
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Options:
    """timeout: seconds that a party waits for a message; budget: bytes that may wait for a receiver; threads: of this party's kernels.

    shaper: makes the simulated pipe for a link direction (sender, receiver), or None. accept: raises RunError for a model of another
    party's that this one is not willing to run.
    """

    timeout: float = 60.0
    budget: int = 512 * MEBIBYTE
    threads: int = 1
    shaper: Callable[[str, str], Shaper | None] = lambda *_: None
    accept: Callable[[PublicModel], None] = lambda _: None

    @classmethod
    def simulating(cls, network: str, timeout: float, budget: int, threads: int) -> Options:
        """With a preset of `choices.NETWORKS` between the parties of one host. The connections of one link direction share its pipe."""
        preset = NETWORKS[network]
        pipes: dict[tuple[str, str], Shaper] = {}

        def shaper(sender: str, receiver: str) -> Shaper | None:
            if preset is None:
                return None
            key = sender, "server" if receiver == "peer" else receiver
            return pipes.setdefault(key, Shaper(preset.rate_bits_per_s, preset.one_way_delay_s))

        return cls(timeout, budget, threads, shaper)


def new_session() -> bytes:
    """A random session identifier."""
    return secrets.token_bytes(SESSION_BYTES)


def open_channel(connection: Connection, here: str, there: str, options: Options, meter: Meter) -> Channel:
    """A channel on a new connection, before its session is known."""
    return Channel(connection, (here, there), meter=meter, shaper=options.shaper(here, there), timeout=options.timeout)


def text_field(control: Control, name: str) -> str:
    """A text field of a control message. Raises RunError where it is missing or something else."""
    value = control.fields.get(name)
    if not isinstance(value, str):
        raise RunError(f"a {control.kind!r} message without a proper {name!r}")
    return value


def number_field(control: Control, name: str) -> int:
    """A non-negative integer field of a control message. Raises RunError where it is missing or something else."""
    value = control.fields.get(name)
    if type(value) is not int or value < 0:
        raise RunError(f"a {control.kind!r} message without a proper {name!r}")
    return value


def number(control: Control, name: str) -> float:
    """A measured number that a peer reports. Raises RunError where it is missing or something else."""
    value = control.fields.get(name)
    if not isinstance(value, int | float):
        raise RunError(f"a {control.kind!r} message without a proper {name!r}")
    return float(value)


def numbers(control: Control, name: str, count: int) -> list[float]:
    """`count` measured numbers that a peer reports. Raises RunError where they are missing or something else."""
    values = control.fields.get(name)
    if not isinstance(values, list) or len(values) != count or not all(isinstance(v, int | float) for v in values):
        raise RunError(f"a {control.kind!r} message without a proper {name!r}")
    return [float(v) for v in values]


def session_field(control: Control) -> bytes:
    """The session identifier of a greeting."""
    try:
        session = bytes.fromhex(text_field(control, "session"))
    except ValueError:
        session = b""
    if len(session) != SESSION_BYTES:
        raise RunError("a greeting without a proper session identifier")
    return session


def requested(model: PublicModel, request: Control) -> tuple[int, Plan]:
    """The attempt and the plan of the inference that a client asks for. Raises RunError for a batch that is none."""
    attempt, batch = number_field(request, "attempt"), number_field(request, "batch")
    if not 1 <= batch <= MAX_BATCH:
        raise RunError(f"a batch of {batch} images was asked for; 1 to {MAX_BATCH} are possible")
    return attempt, model.plan(batch)


@contextlib.contextmanager
def ending_together(channels: list[Channel]) -> Iterator[None]:
    """Close all channels at the end; after an error tell every peer the reason first, so that nobody waits for what will not come."""
    try:
        yield
    except ThreepcError as error:
        close_all(channels, str(error))
        raise
    except BaseException as error:
        close_all(channels, f"{type(error).__name__} in this party")  # no text: it might quote a value
        raise
    close_all(channels)


def close_all(channels: Sequence[Channel], reason: str | None = None) -> None:
    """Close the channels of a session, after telling every peer the reason where there is one."""
    if reason is not None:
        for channel in channels:
            channel.abort(reason)
    for channel in channels:
        channel.close()


@dataclass(frozen=True)
class Usage:
    """What a party's process has used since `Usage()`: wall clock and processor seconds, largest resident set."""

    wall: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)

    def fields(self) -> dict[str, float]:
        """For a control message that ends an inference."""
        return {
            "seconds": time.perf_counter() - self.wall,
            "cpu_seconds": time.process_time() - self.processor,
            "peak_rss_mb": peak_rss_mb(),
        }


def peak_rss_mb() -> float:
    """The largest resident set of this process so far, in MB. Not from getrusage: its ru_maxrss starts with that of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
