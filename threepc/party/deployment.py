"""deployment.yaml: where the parties are, which keys they are known by, and what they agree on.

The file and the .public keys beside it go to every host; a .secret key stays with its party alone. Parties that sit on one host, under one user,
may be reached over Unix sockets instead: then nobody has a key, and the operating system keeps every other user out.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from threepc.choices import AUTO, AUTO_ONLINE, LOGITS, NETWORKS, REVEAL_FORM, REVEALS, RINGS, read_links
from threepc.errors import InputError
from threepc.party import strict_yaml
from threepc.party.key_files import LISTENING, read_pair, read_public, read_text
from threepc.party.memory import DEFAULT_MEMORY
from threepc.party.queries import Limits
from threepc.party.strict_yaml import Section
from threepc.plan.precision import FRACTION, MAX_TRUNCATION, Precision
from threepc.transport.addresses import check_ipc_directory, is_tcp
from threepc.transport.keys import KeyPair

FILE_NAME = "deployment.yaml"
LOCAL = "local"
"""What every client is called that comes over a Unix socket."""
ONE_USER = "all parties run under one user, and keep nothing secret from each other"
"""What is said of parties on Unix sockets wherever they start."""
_UNNAMED = "client"  # what a client is called where nobody says otherwise
_KEYLESS = "is nothing that parties on Unix sockets have: remove it"
_MEGABYTE = 10**6
_LONGEST_S = 7 * 24 * 3600
_LARGEST_MB = 10**6
_MOST_QUERIES = 10**12


@dataclass(frozen=True)
class Party:
    """A party that listens."""

    address: str
    """Where others reach it: tcp://HOST:PORT, or ipc:///PATH."""
    listen: str
    """Where it listens itself."""
    public_key: bytes
    """40 characters of z85; none over a Unix socket."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 300.0
    answer: float = 120.0
    idle: float = 600.0


@dataclass(frozen=True)
class Budgets:
    """client, provider: bytes of correlated randomness that a party holds ahead of its use, for each session; memory: that an inference takes."""

    client: int = 256 * _MEGABYTE
    provider: int = 256 * _MEGABYTE
    memory: int = DEFAULT_MEMORY


@dataclass(frozen=True)
class Deployment:
    """A deployment.yaml that has passed all checks."""

    path: Path
    server: Party
    provider: Party
    clients: dict[str, bytes]
    """Who may connect as a client: the name of the .public file, without its ending, and the key in it, 40 characters of z85.

    Nobody has a key over Unix sockets; there whoever runs as this user may connect.
    """
    ring: int = 48
    frac_bits: int | None = None
    """Fractional bits of activations; None for what suits the ring."""
    drelu_window: tuple[int, int] | None = None
    """Bits low..high-1 that decide a sign, or None for all that can matter."""
    reveal: str = "logits"
    relu_messages: str = "4"
    """One of `choices.RELU_MESSAGES`."""
    network: str = "none"
    links: str = ""
    """The rates of the parties' hosts, as `choices.read_links` takes them."""
    timeouts: Timeouts = Timeouts()
    budgets: Budgets = Budgets()
    queries: Limits = field(default_factory=Limits)

    @cached_property
    def precision(self) -> Precision:
        """The precision that the file asks for, before calibration."""
        return Precision(self.ring, self.frac_bits or FRACTION[self.ring], window=self.drelu_window)

    @property
    def may_vary(self) -> bool:
        """Whether the plan may have ReLUs of two or six messages."""
        return self.relu_messages != "4"

    @cached_property
    def is_unix(self) -> bool:
        """Whether the parties are reached over Unix sockets, without keys."""
        return not is_tcp(self.server.address)

    @cached_property
    def listening(self) -> dict[str, bytes]:
        """The public keys of server and provider; none over Unix sockets."""
        return {} if self.is_unix else {"server": self.server.public_key, "provider": self.provider.public_key}

    def authorised(self, role: str) -> frozenset[bytes]:
        """The public keys that may connect to the server or to the provider."""
        clients = frozenset(self.clients.values())
        return clients if role == "server" or self.is_unix else clients | {self.server.public_key}

    def name_of(self, key: bytes | None) -> str | None:
        """The name that a public key is known by: server, provider or a client's; None for one that is not. Without keys it is LOCAL."""
        return LOCAL if self.is_unix else self._names.get(key)

    @cached_property
    def _names(self) -> dict[bytes | None, str]:
        return {key: name for name, key in (self.clients | self.listening).items()}

    def key_pair(self, name: str) -> KeyPair | None:
        """The key pair of the party `name`: "server", "provider", or the name of a client's key files. None over Unix sockets.

        Raises InputError when a file is missing or malformed, when others may read the secret key, when the two keys do not belong
        together, or when the deployment knows this party by another key; over Unix sockets for the name of a client.
        """
        if self.is_unix:
            return None if name in LISTENING else self.client_pair(name)
        pair = read_pair(self.path.parent, name)
        if pair.public not in ([self.listening[name]] if name in LISTENING else self.clients.values()):
            place = name if name in LISTENING else "clients"
            raise InputError(f"{self.path} does not list the key in {name}.public: add it under '{place}'")
        return pair

    def client_pair(self, name: str) -> KeyPair | None:
        """The key pair of a client. Raises InputError as `key_pair` does, and for the name of another party."""
        if self.is_unix:
            if name not in (_UNNAMED, LOCAL):
                raise InputError(f"{self.path}: clients over Unix sockets have neither keys nor names: leave the name {name[:80]!r} out")
            return None
        known = ", ".join(self.clients) or "nobody"
        if name in LISTENING:
            raise InputError(f"{self.path}: the {name} is not a client: name one that 'clients' lists ({known})")
        if not os.access(self.path.parent / f"{name}.public", os.F_OK):
            raise InputError(f"{self.path}: no {name[:80]}.public beside it: name a client that 'clients' lists ({known}), with --name")
        return self.key_pair(name)


def load(path: Path | str) -> Deployment:
    """Read and check a deployment.yaml, or the one in a folder, and the public keys that it names, relative to its own directory.

    Raises InputError, with file, key, what is wrong and the fix.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read: {reason}: 'threepc keygen DIR' makes one") from None
    return parse(path, text)


def parse(path: Path, text: str) -> Deployment:
    """`load`, of a text that is to be written to `path`."""
    top = strict_yaml.read(path, text)
    ring = top.choice("ring", RINGS, 48)
    server, provider = _listening(top)
    is_unix = not is_tcp(server.address)
    deployment = Deployment(
        path=path,
        server=server,
        provider=provider,
        clients=_clients(top, is_unix),
        ring=ring,
        frac_bits=top.integer("frac_bits", 1, min(MAX_TRUNCATION, ring // 2 - 1)),
        drelu_window=_window(top, ring),
        reveal=_reveal(top),
        relu_messages=str(top.choice("relu_messages", (4, 2, 6, AUTO, AUTO_ONLINE), 4)),
        network=top.choice("network", tuple(NETWORKS), "none"),
        links=_links(top),
        timeouts=_timeouts(top.section("timeouts", required=False)),
        budgets=_budgets(top.section("budgets", required=False)),
        queries=_queries(top.section("queries", required=False), is_unix),
    )
    top.finish()
    precision = deployment.precision
    try:
        _ = precision.product_window
    except InputError as error:
        raise top.wrong("drelu_window", f"{error}: choose higher bits, or fewer frac_bits") from None
    keys = [*deployment.listening.values(), *deployment.clients.values()]
    if len(set(keys)) < len(keys):
        raise InputError(f"{path}: two parties have the same public key: each needs its own, 'threepc keygen DIR' makes them")
    return deployment


def _listening(top: Section) -> list[Party]:
    """Server and provider: both over TCP, or both over Unix sockets."""
    sections = [top.section(role) for role in LISTENING]
    addresses = [section.address("address", may_be_ipc=True) for section in sections]
    if len({is_tcp(address) for address in addresses}) > 1:
        cure = "write tcp://HOST:PORT for both, or ipc:///PATH where all parties run under one user of this host"
        raise top.wrong("server.address and provider.address", f"one is a Unix socket and the other is not: {cure}")
    return list(map(_party, sections, addresses))


def _party(section: Section, address: str) -> Party:
    if is_tcp(address):
        party = Party(address, section.address("listen", address), _public_key(section, "public_key", section.take("public_key")))
    else:
        for key in [key for key in section.names() if key in ("listen", "public_key")]:
            raise section.wrong(key, _KEYLESS)
        try:
            check_ipc_directory(address)
        except InputError as error:
            raise section.wrong("address", str(error)) from None
        party = Party(address, address, b"")
    section.finish()
    return party


def _clients(top: Section, is_unix: bool) -> dict[str, bytes]:
    if is_unix:
        if "clients" in top.names():
            raise top.wrong("clients", _KEYLESS)
        return {}
    files = top.take("clients")
    if not isinstance(files, list):
        raise top.wrong("clients", "must be a list of .public files, one line '- NAME.public' each")
    keys: dict[str, bytes] = {}
    for number, file in enumerate(files):
        key = _public_key(top, f"clients[{number}]", file)
        name = file.removesuffix(".public")
        keys[file if name in keys else name] = key
    return keys


def _public_key(section: Section, key: str, name: object) -> bytes:
    if not isinstance(name, str):
        raise section.unfit(key, name, "write the name of a .public file")
    return read_public(section.path.parent / name, str(section.wrong(key, "the key file")))


def _reveal(top: Section) -> str:
    reveal = top.take("reveal", LOGITS)
    if not isinstance(reveal, str) or not re.fullmatch(REVEAL_FORM, reveal):
        several = "of several outputs one for each (logits,label), or NAME=label for some"
        raise top.unfit("reveal", reveal, f"choose one of {', '.join(REVEALS)}; {several}")
    return reveal


def _links(top: Section) -> str:
    links = top.take("links", "")
    try:
        read_links(links if isinstance(links, str) else "?")
    except InputError as error:
        raise top.unfit("links", links, str(error).removeprefix("links: ")) from None
    return str(links)


def _window(top: Section, ring: int) -> tuple[int, int] | None:
    window = top.take("drelu_window", None)
    if window is None:
        return None
    if not isinstance(window, list) or [type(bound) for bound in window] != [int, int] or not 0 <= window[0] < window[1] <= ring - 2:
        raise top.unfit("drelu_window", window, f"write [LOW, HIGH] with 0 <= LOW < HIGH <= {ring - 2}")
    return window[0], window[1]


def _timeouts(section: Section) -> Timeouts:
    timeouts = Timeouts(*(section.positive(name, default, _LONGEST_S) for name, default in vars(Timeouts()).items()))
    section.finish()
    return timeouts


def _queries(section: Section, is_unix: bool) -> Limits:
    limits = {name: section.integer(name, 0, _MOST_QUERIES) for name in section.names()}
    for name in [name for name in limits if is_unix and name not in ("default", LOCAL)]:
        raise section.wrong(name, f"clients over Unix sockets have no names: write default, or {LOCAL}")
    return Limits(limits.pop("default", None), {name: limit for name, limit in limits.items() if limit is not None})


def _budgets(section: Section) -> Budgets:
    sizes = [round(section.positive(name, default / _MEGABYTE, _LARGEST_MB) * _MEGABYTE) for name, default in vars(Budgets()).items()]
    section.finish()
    return Budgets(*sizes)
