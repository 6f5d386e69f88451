"""`threepc keygen` and `threepc clients`: who the parties are, and which clients may connect. Each returns lines for whoever called it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from threepc.errors import InputError
from threepc.party import client_list
from threepc.party.deployment import LOCAL, ONE_USER, load
from threepc.party.keygen import LOOPBACK, PARTIES, generate, generate_unix
from threepc.party.queries import read_used, state_file


def make_keys(
    directory: Path | str,
    names: tuple[str, ...] = (),
    server: str | None = None,
    provider: str | None = None,
    per_host: bool = False,
    unix: bool = False,
) -> list[str]:
    """Keys and a deployment.yaml in `directory`, as `keygen.generate` makes them; with unix no keys, as `keygen.generate_unix` does."""
    if unix:
        if names or server or provider or per_host:
            raise InputError(
                "keygen: parties on Unix sockets have no keys, and one folder: leave out --party, --server, --provider, --per-host"
            )
        (path,) = generate_unix(directory)
        start = f"next: start provider, server and clients on this host, as this user, each with --deployment {directory}"
        return [f"wrote {path}", start, f"{ONE_USER}: for trying, for demonstrations, and as the inner side of a tunnel"]
    addresses = {"server": server or LOOPBACK["server"], "provider": provider or LOOPBACK["provider"]}
    lines = [f"wrote {path}" for path in generate(directory, names or PARTIES, addresses, per_host)]
    if per_host:
        return [*lines, f"next: copy each folder in {directory} to its party's host, and there alone"]
    place = f"put the hosts' addresses into {Path(directory) / 'deployment.yaml'}, " if addresses == LOOPBACK else ""
    return [*lines, f"next: {place}copy it and the .public files to every host,", "and each .secret file to its party's host alone"]


def add_client(deployment: Path, name: str) -> list[str]:
    """Let a client in, by its key beside deployment.yaml or by a new one, as `client_list.add` does."""
    path = load(deployment).path
    folder = path.parent / name
    made = client_list.add(path, name)
    hand_over = [f"and the folder {folder} to the client's host; then delete it here"] if len(made) > 1 else []
    return [*(f"wrote {each}" for each in made), _elsewhere(path, f"{name}.public"), *hand_over]


def revoke_client(deployment: Path, name: str) -> list[str]:
    """Let a client in no longer, as `client_list.revoke` does."""
    path = load(deployment).path
    changed, deleted = client_list.revoke(path, name)
    return [f"wrote {changed}", f"deleted {deleted}", f"next: 'threepc clients revoke {name}' on the other host that reads such a file"]


def rotate_client(deployment: Path, name: str) -> list[str]:
    """Give a client new keys, as `client_list.rotate` does."""
    path = load(deployment).path
    lines = [f"wrote {each}" for each in client_list.rotate(path, name)]
    return [*lines, _elsewhere(path, f"{name}.public"), f"and the folder {path.parent / name} to the client's host; then delete it here"]


def client_facts(deployment: Path) -> list[dict[str, Any]]:
    """Of each client its name, public key (None over Unix sockets, where all are one), limit of images, and how many it has asked of each model where that is counted."""
    known = load(deployment)
    used = read_used(state_file(known.path))
    keys = {LOCAL: None} if known.is_unix else {name: key.decode() for name, key in known.clients.items()}
    return [
        {"name": name, "public_key": key, "limit": known.queries.of(name), "images": dict(sorted(used.get(name, {}).items()))}
        for name, key in keys.items()
    ]


def list_clients(deployment: Path) -> list[str]:
    """A line for each client: its name and public key; under it, on the server's host, what it has asked of each model where that is counted."""
    facts = client_facts(deployment)
    width = max((len(fact["name"]) for fact in facts), default=0)
    lines = []
    for fact in facts:
        lines.append(f"{fact['name']:<{width}}  {fact['public_key'] or 'has no key: whoever runs as this user'}")
        most = "" if fact["limit"] is None else f" of {fact['limit']:,}"
        lines += [f"{'':<{width}}  {images:,}{most} images of {model}" for model, images in fact["images"].items()]
    return lines


def _elsewhere(path: Path, public: str) -> str:
    return f"next: copy {path.parent / public} and {path} to the other of server and provider, which reads them within seconds,"
