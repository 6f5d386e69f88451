"""A session: who says what, in which order, and what the sessions of the three parties have in common.

The client C has two connections to the server S and one to the provider P, the server has one to the provider. These are the control messages
on them, with their fields, + what is attached to them; in brackets the data that goes between.

To set up, once:

    C -> S   hello    version, role, session, purpose "online", model: NAME, NAME@FINGERPRINT or "" for the server's first; ahead, batch:
                      how many inferences of so many images the client will have dealt before it infers, where it does; also to P
    S -> C   waiting  for, any number of times: the server loads its model, has no place yet, or waits for the provider
    S -> P   hello    version, role, session, model, the public key of C + the keys of S with P and of the weights' mask
    S -> C   model    graph, precision, sizes, card, reveal, weights: the SHA-256 of all masked weights
    C -> P   hello    version, role, session, fingerprint of the model + the key of C with P
    C -> S   hello    version, role, session, purpose "offline": from here on this is the second connection
    C -> S   opened   on the first connection; weights: that digest again, where the client has them from an earlier session
    S -> C            [the masked weights of every linear layer, on the second connection, unless the client has them]
    P -> S   ready    fingerprint
    P -> C   ready    fingerprint
    S -> C   ready    on the first connection

To infer, any number of times, one after the other:

    C -> P   deal     attempt, batch: of this inference, or of one ahead of it
    C -> S   settle   over simulated links alone, where the online phase is to begin once all is there that was sent before
    S -> C   settled  at: when it was, in seconds of the machine's one clock
    C -> S   infer    attempt, batch
                      [P -> S and P -> C what is dealt, C -> S what is prepared, then C and S in turn what is said online]
    S -> P   credit   bytes: for what was dealt, see pacing.py
    S -> C   credit   bytes: for what was prepared
    C -> P   credit   bytes: for what was dealt to C, see `PublicModel.to_client`
    P -> C   dealt    seconds, cpu_seconds, peak_rss_mb, layers; arrives: when all of it is at S, in nanoseconds, over simulated links
    S -> C   done     seconds, cpu_seconds, peak_rss_mb, layers, dealt

To end:

    C -> S   bye
    C -> P   bye

To learn whether a party that listens is there, accepts this key and speaks the same version, on a connection for nothing else:

    C or S -> S or P   hello    version, role, session, purpose "version"
    S or P -> C or S   version  version

Any party may say `abort` with a reason instead, on all its connections at once; whoever hears it ends the session with the same reason.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from threepc.choices import NETWORKS, HostRates, LinkPreset, read_links
from threepc.errors import InputError, RunError, ThreepcError
from threepc.model.served import PublicModel
from threepc.party.memory import DEFAULT_MEMORY, check_batch
from threepc.party.tracing import Timeline, TracedChannel
from threepc.party.weight_cache import HeldWeights, WeightCache
from threepc.plan.schedule import Plan
from threepc.prf import ATTEMPT_BITS
from threepc.transport.channel import Channel
from threepc.transport.connection import Connection, NoAnswerError
from threepc.transport.framing import SESSION_BYTES, Control, printable
from threepc.transport.meter import Meter
from threepc.transport.shaping import Downlink, Pipe, Shaper

log = logging.getLogger("threepc")

MEBIBYTE = 1 << 20
MOST_AHEAD = 1024
"""So many inferences may be prepared before their images are there, however small they are."""

WAITING_S = 20.0
"""Who has a peer wait tells it so again after so many seconds."""
SETTLING_S = 3600.0
"""So long a server takes at most until what others have sent is through a simulated downlink, which may be as slow as a user likes."""


def shows_the_server_nothing(model: PublicModel) -> None:
    """What every party asks of a model that it knows no policy for: nothing of what the client hands in is opened to the server. Raises RunError."""
    shown = [node.name for node in model.graph.outputs if node.attrs.get("to")]
    if shown:
        raise RunError(
            f"the server describes a job that shows {printable(shown[0])} to the server itself: only a party with a policy runs it"
        )


@dataclass(frozen=True)
class Options:
    """timeout: seconds that a party waits for a message; budget: bytes that may wait for a receiver; threads: of this party's kernels.

    memory: bytes that one inference may take at this party, by `Plan.held_bytes`. model: which one a client asks for, as `Offer.find` takes it.
    idle: seconds without an inference after which a session ends, None for never. tell: hears for whom this party waits. shaper: makes the
    simulated pipe for a link direction (sender, receiver), or None. accept: raises RunError for a model of another party's that this one is
    not willing to run, by default any that shows the server something. weight_cache: where a client keeps the masked weights of models that
    it has seen, None for nowhere; held: where its sessions share them in memory, None where they do not.
    trace: the timeline that this party's work is noted in, None for none. ahead: how many inferences of `batch` images a client's session
    prepares before there are images for them.
    """

    timeout: float = 60.0
    budget: int = 512 * MEBIBYTE
    threads: int = 1
    memory: int = DEFAULT_MEMORY
    model: str = ""
    shaper: Callable[[str, str], Shaper | None] = lambda *_: None
    accept: Callable[[PublicModel], None] = shows_the_server_nothing
    idle: float | None = None
    tell: Callable[[str], None] = log.info
    weight_cache: WeightCache | None = None
    held: HeldWeights | None = None
    trace: Timeline | None = None
    ahead: int = 0
    batch: int = 1

    def asked_ahead(self) -> dict[str, int]:
        """The fields of a client's greeting that say what it prepares ahead."""
        return {"ahead": self.ahead, "batch": self.batch} if self.ahead else {}

    @classmethod
    def simulating(cls, network: str, timeout: float, budget: int, threads: int, links: str = "", ahead: int = 0) -> Options:
        """With a preset of `choices.NETWORKS` and the rates of `choices.read_links` between the parties of one host."""
        return cls(timeout, budget, threads, shaper=_simulated(NETWORKS[network], read_links(links)), ahead=ahead)


def _simulated(preset: LinkPreset | None, hosts: Mapping[str, HostRates]) -> Callable[[str, str], Shaper | None]:
    """A maker of pipes for this process. The connections of one link direction share its pipe, all of a party its uplink and its downlink."""
    if preset is None and not hosts:
        return lambda *_: None
    preset = preset or LinkPreset(math.inf, 0.0)
    pipes: dict[tuple[str, str], Shaper] = {}
    ends: dict[str, tuple[Pipe | None, Downlink | None]] = {}

    def shaper(sender: str, receiver: str) -> Shaper:
        own, peer = hosts.get(sender, HostRates()), hosts.get(receiver, HostRates())
        if sender not in ends:
            ends[sender] = None if own.up == math.inf else Pipe(own.up), None if own.down == math.inf else Downlink(own.down)
        if (sender, receiver) not in pipes:
            uplink, downlink = ends[sender]
            pipes[sender, receiver] = Shaper(
                preset.rate_bits_per_s, preset.one_way_delay_s, uplink=uplink, downlink=downlink, peer_uplink=peer.up
            )
        return pipes[sender, receiver]

    return shaper


def new_session() -> bytes:
    """A random session identifier."""
    return secrets.token_bytes(SESSION_BYTES)


def open_channel(connection: Connection, here: str, there: str, options: Options, meter: Meter) -> Channel:
    """A channel on a new connection, before its session is known."""
    if options.trace is None:
        return Channel(connection, (here, there), meter=meter, shaper=options.shaper(here, there), timeout=options.timeout)
    channel = TracedChannel(connection, (here, there), meter=meter, shaper=options.shaper(here, there), timeout=options.timeout)
    channel.timeline = options.trace
    return channel


def key_text(key: bytes | None) -> str | None:
    """A peer's public key as a control message names it; None where the operating system vouches for the peer."""
    return None if key is None else key.decode()


def _field(control: Control, name: str, is_proper: Callable[[Any], bool]) -> Any:
    value = control.fields.get(name)
    if not is_proper(value):
        raise RunError(f"a {control.kind!r} message without a proper {name!r}")
    return value


def _is_measured(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 53


def text_field(control: Control, name: str) -> str:
    """A text of a control message. Raises RunError, as the others do, where it is missing or something else."""
    return str(_field(control, name, lambda value: isinstance(value, str)))


def number_field(control: Control, name: str) -> int:
    """A whole number from 0 on."""
    return int(_field(control, name, lambda value: type(value) is int and value >= 0))


def measured(control: Control, name: str) -> float:
    """Seconds, or another measured number from 0 on that floats hold."""
    return float(_field(control, name, _is_measured))


def all_measured(control: Control, name: str, count: int) -> list[float]:
    """`count` measured numbers."""
    is_proper = lambda values: isinstance(values, list) and len(values) == count and all(map(_is_measured, values))
    return [float(value) for value in _field(control, name, is_proper)]


def session_field(control: Control) -> bytes:
    """The session identifier of a greeting."""
    try:
        session = bytes.fromhex(text_field(control, "session"))
    except ValueError:
        session = b""
    if len(session) != SESSION_BYTES:
        raise RunError("a greeting without a proper session identifier")
    return session


def requested(model: PublicModel, request: Control, options: Options, whose: str) -> tuple[int, Plan]:
    """The attempt and the plan of the inference that a client asks for. Raises RunError for an attempt that is none, InputError for a batch.

    whose: the party's role. A batch is refused that its memory does not hold, before anything is allocated for it.
    """
    attempt, batch = number_field(request, "attempt"), number_field(request, "batch")
    if attempt >= 1 << ATTEMPT_BITS:
        raise RunError(f"attempt {attempt} was refused: a session has attempts 0 to 2^{ATTEMPT_BITS} - 1")
    return attempt, check_batch(model, batch, options.memory, f"the {whose}")


def check_ahead(model: PublicModel, options: Options, role: str, greeting: Control | None = None) -> None:
    """Check what a client prepares ahead, by its greeting or, at the client, by its options; before anything is dealt or allocated for it.

    Raises RunError for numbers that are none, InputError for more than the budget of `role` for one session holds.
    """
    count, batch = options.ahead, options.batch
    if greeting is not None:
        count = number_field(greeting, "ahead") if "ahead" in greeting.fields else 0
        batch = number_field(greeting, "batch") if count else 1
    if not count:
        return
    plan = check_batch(model, batch, options.memory, f"the {role}")
    sizes = [size for link, size in plan.cost.offline.items() if role == "server" or role in link.split("->")]
    held = [(max(sizes, default=0), options.budget)] + ([(plan.kept_bytes, options.memory)] if role == "client" else [])
    for size, limit in held:
        most = min(limit // max(size, 1), MOST_AHEAD)
        if count > most:
            cure = f"prepare at most {most} ahead" if most else "prepare none, or raise budgets in deployment.yaml"
            takes = f"{count} inference(s) of {batch} image(s) ahead take {count * size / 1e6:,.0f} MB"
            raise InputError(f"{takes}, but the {role} holds {limit / 1e6:,.0f} MB ahead for a session: {cure}")


def next_request(channel: Channel, kind: str, idle: float | None, **others: Callable[[Control], None]) -> Control | None:
    """What a client asks for next, or None when it says bye. Raises RunError when it has asked for nothing in `idle` seconds.

    others: by their kinds, what hears of messages that come in between.
    """
    try:
        while (request := channel.receive_control(kind, "bye", *others, timeout=idle)).kind in others:
            others[request.kind](request)
    except NoAnswerError:
        raise RunError(f"the session was idle for {idle:g} s") from None
    return request if request.kind == kind else None


def allow_messages(plan: Plan, channels: Sequence[Channel], budget: int) -> None:
    """Let what an inference sends wait to be read: `budget` bytes, or a single message that is larger."""
    for channel in channels:
        channel.connection.allow(max(budget, plan.most_bytes_of_a_step))


@contextlib.contextmanager
def ending_together(channels: list[Channel]) -> Iterator[None]:
    """Close all channels at the end; after an error tell every peer the reason first, so that nobody waits for what will not come."""
    try:
        yield
    except ThreepcError as error:
        close_all(channels, str(error), kind_of(error))
        raise
    except BaseException as error:
        close_all(channels, f"{type(error).__name__} in this party")  # no text: it might quote a value
        raise
    close_all(channels)


def kind_of(error: BaseException) -> str:
    """What peers are told of an error besides its text: its kind, or its cause's."""
    return (error.cause or error.kind) if isinstance(error, RunError) else "refused"


def close_all(channels: Sequence[Channel], reason: str | None = None, kind: str = "refused") -> None:
    """Close the channels of a session, after telling every peer the reason and its kind where there is one; all, whatever interrupts it."""
    with contextlib.ExitStack() as closing:
        for channel in reversed(channels):
            closing.callback(channel.close)
        if reason is not None:
            for channel in channels:
                channel.abort(reason, kind)
