"""Clients come and go: their lines in deployment.yaml, their public keys beside it, and a folder with what a new one's host needs.

Server and provider read deployment.yaml again when it changes, so nobody restarts for a client.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import yaml

from threepc.errors import InputError
from threepc.files import write_atomically
from threepc.party import strict_yaml
from threepc.party.deployment import FILE_NAME, Deployment, load, parse
from threepc.party.key_files import LISTENING, check_name, created, read_text
from threepc.transport.keys import KeyPair


def add(path: Path, name: str) -> list[Path]:
    """Let a client in, by the key in NAME.public beside the deployment.yaml at `path`, or else by a new one; returns the files written.

    With a new key the folder NAME holds what the client's host needs, its secret key among it. Raises InputError for a name that is none or
    taken and for files that cannot be written, and then changes nothing.
    """
    check_name(name)
    with _changing(path) as deployment:
        if name in deployment.clients:
            raise InputError(f"{path}: clients: {name} is there already: choose another name, or 'threepc clients rotate {name}'")
        known = (path.parent / f"{name}.public").exists()
        if name in LISTENING or (not known and ((path.parent / name).exists() or (path.parent / f"{name}.secret").exists())):
            raise InputError(f"{path.parent} holds keys of another {name}: choose another name, or move {name} and {name}.secret away")
        made = {} if known else _for_host(deployment, name, KeyPair.new())
        with created(path.parent, made, "remove it, or choose another name"):
            _rewrite(path, [*_listed(path), f"{name}.public"])
    return [*made, path]


def revoke(path: Path, name: str) -> list[Path]:
    """Let a client in no longer, and delete NAME.public; returns the files changed. Raises InputError for a client that is not there."""
    with _changing(path) as deployment:
        file = _file_of(deployment, name)
        _rewrite(path, [each for each in _listed(path) if each != file])
        (path.parent / file).unlink(missing_ok=True)
    return [path, path.parent / file]


def rotate(path: Path, name: str) -> list[Path]:
    """Give a client new keys, in the folder NAME and wherever they are beside deployment.yaml; returns the files written.

    The old key opens nothing any longer. Raises InputError for a client that is not there and for files that cannot be written.
    """
    with _changing(path) as deployment:
        file = _file_of(deployment, name)
        check_name(name)
        files = _for_host(deployment, name, KeyPair.new())
        public, secret = (files[path.parent / name / f"{name}.{kind}"] for kind in ("public", "secret"))
        if (beside := path.parent / f"{name}.secret").exists():
            files[beside] = secret
        files.pop(path.parent / file, None)
        files[path.parent / file] = public  # last: from here on the new key counts
        (path.parent / name).mkdir(mode=0o700, exist_ok=True)
        for each, (content, mode) in files.items():
            write_atomically(each, content, mode)
    return list(files)


def with_clients(text: str, files: Sequence[str]) -> str:
    """The text of a deployment.yaml with another list of .public files, and otherwise as it was, comments and all."""
    root = cast("yaml.MappingNode", yaml.compose(text, Loader=yaml.SafeLoader))
    key, listed = next((key, value) for key, value in root.value if key.value == "clients")
    kept = {item.value: item for item in listed.value if item.value in files}
    new = [file for file in files if file not in kept]
    if listed.flow_style:
        items = [text[item.start_mark.index : item.end_mark.index] for item in kept.values()]
        return f"{text[: listed.start_mark.index]}[{', '.join([*items, *new])}]{text[listed.end_mark.index :]}"
    lines = text.splitlines(keepends=True)
    last = listed.value[-1].start_mark
    dash = lines[last.line][: last.column].rstrip().removesuffix("-")
    lines[-1] += "" if lines[-1].endswith("\n") else "\n"
    added = [f"{dash}- {file}\n" for file in new]
    dropped = {item.start_mark.line for item in listed.value if item.value not in kept}
    if not files:
        row, column = key.end_mark.line, key.end_mark.column + 1
        lines[row] = f"{lines[row][:column]} []{lines[row][column:]}"
    head, tail = lines[: last.line + 1], lines[last.line + 1 :]
    return "".join([*(line for number, line in enumerate(head) if number not in dropped), *added, *tail])


@contextmanager
def _changing(path: Path) -> Iterator[Deployment]:
    """The deployment, which nobody else changes meanwhile. Raises InputError where clients have no keys."""
    if load(path).is_unix:
        raise InputError(f"{path}: clients over Unix sockets have no keys: whoever runs as this user may connect, and nobody else")
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield load(path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot change the clients of {path}: {error.strerror}") from None


def _listed(path: Path) -> list[str]:
    return list(strict_yaml.read(path, read_text(path)).take("clients"))


def _file_of(deployment: Deployment, name: str) -> str:
    if name not in deployment.clients:
        known = ", ".join(deployment.clients) or "nobody"
        raise InputError(f"{deployment.path}: clients: {name[:80]!r} is not there: name one of {known}")
    return _listed(deployment.path)[list(deployment.clients).index(name)]


def _for_host(deployment: Deployment, name: str, pair: KeyPair) -> dict[Path, tuple[bytes, int]]:
    """What goes to a client's host, in the folder NAME, and its public key beside deployment.yaml."""
    path = deployment.path
    folder, text = path.parent / name, read_text(path)
    files = {folder / FILE_NAME: (with_clients(text, [f"{name}.public"]).encode(), 0o644)}
    for role, party in (("server", deployment.server), ("provider", deployment.provider)):
        public = strict_yaml.read(path, text).section(role).take("public_key")
        if Path(public).is_absolute() or ".." in Path(public).parts:
            raise InputError(
                f"{path}: {role}.public_key: is outside of {path.parent}: move the key there, so that a client's folder can hold it"
            )
        files[folder / public] = party.public_key + b"\n", 0o644
    files[folder / f"{name}.public"] = pair.public + b"\n", 0o644
    files[folder / f"{name}.secret"] = pair.secret + b"\n", 0o600
    return files | {path.parent / f"{name}.public": (pair.public + b"\n", 0o644)}


def _rewrite(path: Path, files: Sequence[str]) -> None:
    text = with_clients(read_text(path), files)
    try:
        written = strict_yaml.read(path, text).take("clients")
    except InputError:
        written = None
    if written != files:
        raise InputError(f"{path}: clients: is written in a way that only a person can edit: write one line '- NAME.public' each")
    parse(path, text)
    real = path.resolve()
    write_atomically(real, text.encode(), real.stat().st_mode & 0o777)
