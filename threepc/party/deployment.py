"""deployment.yaml: where the parties are, which keys they are known by, and what they agree on.

The file and the .public keys beside it go to every host; a .secret key stays with its party alone.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from threepc.errors import InputError
from threepc.files import write_atomically
from threepc.transport.addresses import is_tcp
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.shaping import NETWORKS

FILE_NAME = "deployment.yaml"
RINGS = (64, 48, 40, 32)
REVEALS = ("logits", "label")
_MEGABYTE = 10**6

_TEMPLATE = """\
# Where the three parties are and what they agree on. Copy this file and the *.public files beside it to every host;
# NAME.secret goes to the host of NAME and nowhere else.

server:
  address: tcp://127.0.0.1:7001   # where clients reach the server
  # listen: tcp://0.0.0.0:7001    # where it listens, if that is another address of its host
  public_key: server.public

provider:
  address: tcp://127.0.0.1:7002   # where clients and the server reach the provider
  public_key: provider.public

clients:                          # the public keys of those who may use the server; nobody else can connect
  - client.public

ring: 48                          # bits of a ring element: 64, 48, 40 or 32
# frac_bits: 16                   # fractional bits of activations; by default what suits the ring
# drelu_window: [16, 46]          # bits LOW..HIGH-1 that decide a sign; by default all that can matter
reveal: logits                    # what a client learns: logits, or the label alone
# network: wan                    # simulate a slower network between parties on one host: lan, lan10, wan, wan352

timeouts:                         # seconds
  connect: 30                     # until a party that is not there is given up
  answer: 120                     # until a party that is silent in the middle of a session is given up

budgets:                          # megabytes of correlated randomness held ahead of its use, for each session
  client: 256
  provider: 256
"""


@dataclass(frozen=True)
class Party:
    """A party that listens."""

    address: str
    """Where others reach it: tcp://HOST:PORT."""
    listen: str
    """Where it listens itself."""
    public_key: bytes
    """40 characters of z85."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds."""

    connect: float = 30.0
    answer: float = 120.0


@dataclass(frozen=True)
class Budgets:
    """Bytes of correlated randomness that a party holds ahead of its use, for each session."""

    client: int = 256 * _MEGABYTE
    provider: int = 256 * _MEGABYTE


@dataclass(frozen=True)
class Deployment:
    """A deployment.yaml that has passed all checks."""

    path: Path
    server: Party
    provider: Party
    clients: tuple[bytes, ...]
    """The public keys of the clients that may connect, 40 characters of z85 each."""
    ring: int = 48
    frac_bits: int | None = None
    """Fractional bits of activations; None for what suits the ring."""
    drelu_window: tuple[int, int] | None = None
    """Bits low..high-1 that decide a sign, or None for all that can matter."""
    reveal: str = "logits"
    network: str = "none"
    timeouts: Timeouts = Timeouts()
    budgets: Budgets = Budgets()

    def key_pair(self, name: str) -> KeyPair:
        """The key pair of the party `name`: "server", "provider", or the name of a client's key files.

        Raises InputError when a file is missing or malformed, when others may read the secret key, when the two keys do not belong
        together, or when the deployment knows this party by another key.
        """
        directory = self.path.parent
        public = _read_key(directory / f"{name}.public", f"the public key of {name}")
        secret_path = directory / f"{name}.secret"
        secret = _read_key(secret_path, f"the secret key of {name}", is_secret=True)
        pair = KeyPair(public, secret)
        if not pair.is_consistent():
            raise InputError(f"{secret_path} does not belong to {name}.public beside it: copy both files again from where they were made")
        known = {"server": (self.server.public_key,), "provider": (self.provider.public_key,)}.get(name, self.clients)
        if public not in known:
            place = name if name in ("server", "provider") else "clients"
            raise InputError(f"{self.path} does not list the key in {name}.public: add it under '{place}'")
        return pair


def generate(directory: Path | str, names: Iterable[str] = ("server", "provider", "client")) -> list[Path]:
    """Write one key pair for each party and a deployment.yaml to edit into `directory`; returns the paths written.

    Secret keys are readable by their owner alone. Raises InputError when the directory cannot be written to, or holds any of these
    files already: nothing is ever overwritten.
    """
    directory = Path(directory)
    files = {directory / FILE_NAME: (_TEMPLATE.encode(), 0o644)}
    for name in names:
        pair = KeyPair.new()
        files[directory / f"{name}.public"] = (pair.public + b"\n", 0o644)
        files[directory / f"{name}.secret"] = (pair.secret + b"\n", 0o600)
    for path in files:
        if path.exists():
            raise InputError(f"{path} exists already and is not overwritten: choose another directory")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, (content, mode) in files.items():
            write_atomically(path, content, mode)
    except OSError as error:
        raise InputError(f"cannot write keys to {directory}: {error.strerror}: choose another directory") from None
    return list(files)


def load(path: Path | str) -> Deployment:
    """Read and check a deployment.yaml and the public keys that it names, relative to its own directory.

    Raises InputError, with file, key, what is wrong and the fix.
    """
    path = Path(path)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read: {reason}: 'threepc keygen DIR' makes one") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"{path}: {line}{error.problem}: correct the YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"{path}: is not YAML: correct it, or make a new one with 'threepc keygen DIR'") from None
    top = _Section(path, "", document)
    ring = top.choice("ring", RINGS, 48)
    deployment = Deployment(
        path=path,
        server=_party(top.section("server")),
        provider=_party(top.section("provider")),
        clients=_clients(top),
        ring=ring,
        frac_bits=top.integer("frac_bits", 1, ring // 2 - 1, None),
        drelu_window=_window(top, ring),
        reveal=top.choice("reveal", REVEALS, "logits"),
        network=top.choice("network", tuple(NETWORKS), "none"),
        timeouts=_timeouts(top.section("timeouts", required=False)),
        budgets=_budgets(top.section("budgets", required=False)),
    )
    top.finish()
    keys = [deployment.server.public_key, deployment.provider.public_key, *deployment.clients]
    if len(set(keys)) < len(keys):
        raise InputError(f"{path}: two parties have the same public key: each needs its own, 'threepc keygen DIR' makes them")
    return deployment


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, and a key that occurs twice is an error instead of the last one winning."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                problem = f"the key {key!r} occurs twice" if isinstance(key, str) else f"{key!r} is no key"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Section:
    """A mapping of the file that knows where it is, for errors."""

    def __init__(self, path: Path, prefix: str, values: object):
        self.path = path
        self._prefix = prefix
        if not isinstance(values, dict):
            what = prefix.rstrip(".") or "the file"
            raise InputError(f"{path}: {what} must be a mapping of keys to values, as in the file that 'threepc keygen DIR' writes")
        self._values = dict(values)

    def wrong(self, key: str, what: str) -> InputError:
        return InputError(f"{self.path}: {self._prefix}{key}: {what}")

    def take(self, key: str, default: object = ...) -> object:
        if key not in self._values and default is ...:
            raise self.wrong(key, "is missing: add it, or make a new file with 'threepc keygen DIR'")
        return self._values.pop(key, default)

    def section(self, key: str, required: bool = True) -> _Section:
        return _Section(self.path, f"{self._prefix}{key}.", self.take(key, ... if required else {}))

    def choice(self, key: str, choices: tuple, default: object) -> object:
        value = self.take(key, default)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise self.wrong(key, f"is {value!r}: choose one of {', '.join(map(str, choices))}")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None) -> int | None:
        value = self.take(key, default)
        if value is default:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"is {value!r}: write a whole number from {low} to {high}")
        return value

    def positive(self, key: str, default: float) -> float:
        value = self.take(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.wrong(key, f"is {value!r}: write a positive number")
        return value

    def address(self, key: str, default: object = ...) -> str:
        value = self.take(key, default)
        try:
            good = isinstance(value, str) and is_tcp(value)
        except InputError:
            good = False
        if not good:
            raise self.wrong(key, f"is {value!r}: write tcp://HOST:PORT")
        return value

    def finish(self) -> None:
        """Raises InputError for a key that nobody has asked for."""
        for key in self._values:
            raise self.wrong(key, "is not a key of this file: remove it or correct its name")


def _party(section: _Section) -> Party:
    address = section.address("address")
    party = Party(address, section.address("listen", address), _public_key(section, "public_key", section.take("public_key")))
    section.finish()
    return party


def _clients(top: _Section) -> tuple[bytes, ...]:
    names = top.take("clients")
    if not isinstance(names, list):
        raise top.wrong("clients", "must be a list of .public files, one line '- NAME.public' each")
    return tuple(_public_key(top, f"clients[{number}]", name) for number, name in enumerate(names))


def _public_key(section: _Section, key: str, name: object) -> bytes:
    if not isinstance(name, str):
        raise section.wrong(key, f"is {name!r}: write the name of a .public file")
    return _read_key(section.path.parent / name, str(section.wrong(key, "the key file")))


def _window(top: _Section, ring: int) -> tuple[int, int] | None:
    window = top.take("drelu_window", None)
    if window is None:
        return None
    if not isinstance(window, list) or [type(bound) for bound in window] != [int, int] or not 0 <= window[0] < window[1] < ring:
        raise top.wrong("drelu_window", f"is {window!r}: write [LOW, HIGH] with 0 <= LOW < HIGH < {ring}")
    return window[0], window[1]


def _timeouts(section: _Section) -> Timeouts:
    timeouts = Timeouts(section.positive("connect", Timeouts.connect), section.positive("answer", Timeouts.answer))
    section.finish()
    return timeouts


def _budgets(section: _Section) -> Budgets:
    sizes = [round(section.positive(name, default / _MEGABYTE) * _MEGABYTE) for name, default in vars(Budgets()).items()]
    section.finish()
    return Budgets(*sizes)


def _read_key(path: Path, what: str, is_secret: bool = False) -> bytes:
    try:
        if is_secret and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InputError(f"{path}: other users may read {what}: run 'chmod 600 {path}', and make new keys if anyone may have read it")
        text = path.read_bytes().strip()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        reason = getattr(error, "strerror", error)
        raise InputError(f"{what} {str(path)!r} cannot be read: {reason}: 'threepc keygen DIR' makes keys") from None
    if not is_key(text):
        raise InputError(f"{what} {path} holds no key of 40 characters: copy it again, or make new keys with 'threepc keygen DIR'")
    return text
