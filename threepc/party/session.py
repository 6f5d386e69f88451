"""A session: who says what, in which order, and what the sessions of the three parties have in common.

The client C has two connections to the server S and one to the provider P, the server has one to the provider. These are the control messages
on them, with their fields, + what is attached to them; in brackets the data that goes between.

To set up, once:

    C -> S   hello    version, role, session, purpose "online"
    S -> P   hello    version, role, session, model, the public key of C + the keys of S with P and of the weights' mask
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
import resource
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from threepc.choices import NETWORKS
from threepc.errors import RunError, ThreepcError
from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.prf import ATTEMPT_BITS
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
    connection.allow(options.budget)
    return Channel(connection, (here, there), meter=meter, shaper=options.shaper(here, there), timeout=options.timeout)


def key_text(key: bytes | None) -> str | None:
    """A peer's public key as a control message names it; None where the operating system vouches for the peer."""
    return None if key is None else key.decode()


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
    """The attempt and the plan of the inference that a client asks for. Raises RunError for an attempt or a batch that is none."""
    attempt, batch = number_field(request, "attempt"), number_field(request, "batch")
    if attempt >= 1 << ATTEMPT_BITS:
        raise RunError(f"attempt {attempt} was refused: a session has attempts 0 to 2^{ATTEMPT_BITS} - 1")
    if not 1 <= batch <= MAX_BATCH:
        raise RunError(f"a batch of {batch} images was asked for; 1 to {MAX_BATCH} are possible")
    return attempt, model.plan(batch)


def allow_messages(plan: Plan, channels: Sequence[Channel], budget: int) -> None:
    """Let what an inference sends wait to be read: `budget` bytes, or a single message that is larger."""
    largest = max((max(step.cost.total("offline"), step.cost.total("online")) for step in plan.steps), default=0)
    for channel in channels:
        channel.connection.allow(max(budget, largest))


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


class _Sessions:
    """The sessions of this process: what one of them uses is known only while it is alone.

    now: by session, how many parties have it here; more than one where they are threads of one process. begun: how many there ever were.
    peak_of: the session whose largest resident set the operating system is keeping.
    """

    def __init__(self) -> None:
        self.lock, self.begun = threading.Lock(), 0
        self.now: Counter[bytes] = Counter()
        self.peak_of: bytes | None = None

    def begin(self, session: bytes) -> None:
        with self.lock:
            if session not in self.now:
                self.begun += 1
                self.peak_of = session if not self.now and (self.begun == 1 or _forget_peak()) else None
            self.now[session] += 1

    def end(self, session: bytes) -> None:
        with self.lock:
            self.now -= Counter([session])


_sessions = _Sessions()


@contextlib.contextmanager
def counted(session: bytes) -> Iterator[None]:
    """While a party has a session."""
    _sessions.begin(session)
    try:
        yield
    finally:
        _sessions.end(session)


class Usage:
    """What this process has used since `Usage(session)`, as far as it was for that session alone."""

    def __init__(self, session: bytes) -> None:
        self._session, self._wall, self._processor = session, time.perf_counter(), time.process_time()
        self._alone, self._begun = len(_sessions.now) == 1, _sessions.begun

    def fields(self) -> dict[str, float]:
        """For the control message that ends an inference: `seconds` of wall clock always, the rest unless other sessions have overlapped.

        `cpu_seconds`: of the processor. `peak_rss_mb`: the largest resident set since the session began, of the first since the process did.
        """
        fields = {"seconds": time.perf_counter() - self._wall}
        if self._alone and self._begun == _sessions.begun:
            fields["cpu_seconds"] = time.process_time() - self._processor
        if self._session == _sessions.peak_of:
            fields["peak_rss_mb"] = peak_rss_mb()
        return fields


def _forget_peak() -> bool:
    """Have the operating system start anew with this process's largest resident set; False where it does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_mb() -> float:
    """The largest resident set of this process so far, in MB. Not from getrusage: its ru_maxrss starts with that of the process that started this one."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # too many files are open: a figure for a report ends no session
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
