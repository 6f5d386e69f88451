"""`threepc keygen`: key pairs for the parties, and a deployment.yaml, in one folder for all or in one for each host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from threepc.errors import InputError
from threepc.party.deployment import FILE_NAME
from threepc.party.key_files import LISTENING, check_name, created
from threepc.party.strict_yaml import check_address
from threepc.transport.keys import KeyPair

PARTIES = (*LISTENING, "client")
"""Whose keys are made where nobody says otherwise."""

LOCAL = {"server": "tcp://127.0.0.1:7001", "provider": "tcp://127.0.0.1:7002"}
"""Where server and provider are where nobody says otherwise."""

_TEMPLATE = """\
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
{clients}
ring: 48                          # bits of a ring element: 64, 48, 40 or 32
# frac_bits: 16                   # fractional bits of activations; by default what suits the ring
# drelu_window: [16, 46]          # bits LOW..HIGH-1 that decide a sign; by default all that can matter
reveal: logits                    # what a client learns: logits or label; of several outputs NAME=label for some
# relu_messages: 2                # online messages of a ReLU: 4, 2 for more dealt bytes where delay decides, auto as network and links say
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
#   NAME: 500                     # another limit for the client of that name
"""


def generate(
    directory: Path | str, names: Iterable[str] = PARTIES, addresses: Mapping[str, str] = LOCAL, per_host: bool = False
) -> list[Path]:
    """Make a key pair for each party of `names`, and a deployment.yaml; returns the paths written.

    directory: made if it is missing; per_host: a folder for each party in it, with what goes to the party's host. addresses: of server
    and provider, tcp://HOST:PORT. Secret keys are readable by their owner alone. Raises InputError for a name or address that is none, when
    the directory cannot be written to, lets others write, or holds any of these files already: nothing is overwritten, and what a failure
    leaves behind is what was there before.
    """
    if directory == "":
        raise InputError("keygen: the name of the folder is empty: say where the keys go, for example 'threepc keygen keys'")
    directory, names = Path(directory), list(dict.fromkeys(names))
    for name in names:
        check_name(name)
    for role in LISTENING:
        check_address(addresses[role], f"keygen: the address of the {role}")
    listen = {f"{role}_listen": _listen(address, address == LOCAL[role]) for role, address in addresses.items()}
    pairs = {name: KeyPair.new() for name in names}
    clients = [name for name in names if name not in LISTENING] or ["client"]
    files: dict[Path, tuple[bytes, int]] = {}
    for host in names if per_host else [""]:
        secrets = [host] if per_host else names
        known = [host] if host in clients else clients
        text = _TEMPLATE.format(clients="".join(f"  - {name}.public\n" for name in known), **listen, **addresses)
        files[directory / host / FILE_NAME] = text.encode(), 0o644
        files |= {
            directory / host / f"{name}.public": (pairs[name].public + b"\n", 0o644) for name in (*LISTENING, *known) if name in pairs
        }
        files |= {directory / host / f"{name}.secret": (pairs[name].secret + b"\n", 0o600) for name in secrets}
    with created(directory, files, "choose another directory"):
        return list(files)


def _listen(address: str, local: bool) -> str:
    """The line that says where a party listens: on every network of its host, where others reach it on another one."""
    port = address.rpartition(":")[2]
    if local:
        return f"# listen: tcp://0.0.0.0:{port}    # where it listens, if that is another address of its host"
    return f"listen: tcp://{'[::]' if '[' in address else '0.0.0.0'}:{port}      # where it listens: on every network of its host"  # noqa: S104 - keys keep strangers out
