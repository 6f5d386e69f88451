"""`threepc keygen`: key pairs for the parties, and a deployment.yaml, in one folder for all or in one for each host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from threepc.errors import InputError
from threepc.party.deployment import FILE_NAME, LOCAL
from threepc.party.key_files import LISTENING, check_name, created
from threepc.party.strict_yaml import check_address
from threepc.transport.addresses import check_ipc_directory
from threepc.transport.keys import KeyPair

PARTIES = (*LISTENING, "client")
"""Whose keys are made where nobody says otherwise."""

LOOPBACK = {"server": "tcp://127.0.0.1:7001", "provider": "tcp://127.0.0.1:7002"}
"""Where server and provider are where nobody says otherwise."""

_HOSTS = """\
# Where the three parties are and what they agree on. Copy this file and the *.public files beside it to every host;
# NAME.secret goes to the host of NAME and nowhere else.

server:
  address: {server}   # where clients reach the server
  {server_listen}
  public_key: server.public

provider:
  address: {provider}   # where clients and the server reach the provider
  {provider_listen}
  public_key: provider.public

clients:                          # the public keys of those who may use the server; nobody else can connect
{clients}"""

_ONE_USER = """\
# Where the three parties are and what they agree on. All run under one user of this host, whom alone the folder of the sockets lets in. So they
# need no keys, and keep nothing secret from each other: for trying, for demonstrations, and as the inner side of a tunnel.

server:
  address: {server}

provider:
  address: {provider}
"""

_AGREED = """
ring: 48                          # bits of a ring element: 64, 48, 40, 32, 28 or 24
# frac_bits: 16                   # fractional bits of activations; by default what suits the ring
# drelu_window: [16, 46]          # bits LOW..HIGH-1 that decide a sign; by default all that can matter
reveal: logits                    # what a client learns: logits or label; of several outputs NAME=label for some
# relu_messages: 2                # online messages of a ReLU: 4, 2 for more dealt bytes, 6 for fewer, auto as network and links say,
                                  # auto-online as they say where clients prepare ahead and the online phase alone counts
# network: wan                    # simulate a slower network between parties on one host: lan, lan10, wan, wan352
# links: server=1G,client=20M/100M   # what hosts send and receive (UP/DOWN bits/s): decides who is dealt what; simulated with the network

timeouts:                         # seconds
  connect: 300                    # until a party that is not there is given up
  answer: 120                     # until a party that is silent in the middle of a session is given up
  idle: 600                       # until a session without an inference is ended, for the next client

budgets:                          # megabytes, for each session
  client: 256                     # of what the client prepares ahead of its use
  provider: 256                   # of what the provider deals ahead of its use
  memory: 8000                    # that one inference may take at a party; it says how many images go at once

# queries:                        # images that a client may ask of one model, counted by the server; without it there is no limit
#   default: 10000
#   {limited:<30}# another limit for {whose}
"""


def generate(
    directory: Path | str, names: Iterable[str] = PARTIES, addresses: Mapping[str, str] = LOOPBACK, per_host: bool = False
) -> list[Path]:
    """Make a key pair for each party of `names`, and a deployment.yaml; returns the paths written.

    directory: made if it is missing; per_host: a folder for each party in it, with what goes to the party's host. addresses: of server
    and provider, tcp://HOST:PORT. Secret keys are readable by their owner alone. Raises InputError for a name or address that is none, when
    the directory cannot be written to, lets others write, or holds any of these files already: nothing is overwritten, and what a failure
    leaves behind is what was there before.
    """
    directory, names = _named(directory), list(dict.fromkeys(names))
    for name in names:
        check_name(name)
    for role in LISTENING:
        check_address(addresses[role], f"keygen: the address of the {role}")
    listen = {f"{role}_listen": _listen(address, address == LOOPBACK[role]) for role, address in addresses.items()}
    pairs = {name: KeyPair.new() for name in names}
    clients = [name for name in names if name not in LISTENING] or ["client"]
    files: dict[Path, tuple[bytes, int]] = {}
    for host in names if per_host else [""]:
        secrets = [host] if per_host else names
        known = [host] if host in clients else clients
        text = _HOSTS.format(clients="".join(f"  - {name}.public\n" for name in known), **listen, **addresses)
        text += _AGREED.format(limited="NAME: 500", whose="the client of that name")
        files[directory / host / FILE_NAME] = text.encode(), 0o644
        files |= {
            directory / host / f"{name}.public": (pairs[name].public + b"\n", 0o644) for name in (*LISTENING, *known) if name in pairs
        }
        files |= {directory / host / f"{name}.secret": (pairs[name].secret + b"\n", 0o600) for name in secrets}
    with created(directory, files, "choose another directory"):
        return list(files)


def generate_unix(directory: Path | str) -> list[Path]:
    """Make a deployment.yaml of parties on this host alone, which are reached over Unix sockets in `directory` and have no keys; returns its path.

    directory: made with mode 0700 if it is missing. Raises InputError as `generate` does, when other users may enter the directory, and when
    its path is too long for a socket in it.
    """
    directory = _named(directory)
    addresses = {role: f"ipc://{directory.resolve() / role}" for role in LISTENING}
    quoted = {
        role: yaml.safe_dump(address, default_style='"', allow_unicode=True, width=math.inf).strip() for role, address in addresses.items()
    }
    text = _ONE_USER.format(**quoted) + _AGREED.format(limited=f"{LOCAL}: 500", whose="all clients together, who have no names here")
    for role, address in addresses.items():
        check_address(address, f"keygen: the address of the {role}", may_be_ipc=True)
    path = directory / FILE_NAME
    with created(directory, {path: (text.encode(), 0o644)}, "choose another directory"):
        for address in addresses.values():
            check_ipc_directory(address)
    return [path]


def _named(directory: Path | str) -> Path:
    if directory == "":
        raise InputError("keygen: the name of the folder is empty: say where the keys go, for example 'threepc keygen keys'")
    return Path(directory)


def _listen(address: str, local: bool) -> str:
    """The line that says where a party listens: on every network of its host, where others reach it on another one."""
    port = address.rpartition(":")[2]
    if local:
        return f"# listen: tcp://0.0.0.0:{port}    # where it listens, if that is another address of its host"
    return f"listen: tcp://{'[::]' if '[' in address else '0.0.0.0'}:{port}      # where it listens: on every network of its host"  # noqa: S104 - keys keep strangers out
