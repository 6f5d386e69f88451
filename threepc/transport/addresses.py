"""Addresses that parties listen on, and what must hold before they are used."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
from pathlib import Path

from threepc.errors import InputError

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>[0-9]{1,5})", re.ASCII)
_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)", re.ASCII)
_HOST_NAME_LIMIT = 253
# sockaddr_un holds 108 bytes, the last of them zero.
_IPC_PATH_LIMIT = 107


def is_tcp(address: str) -> bool:
    """True for tcp://HOST:PORT, False for ipc://PATH. Raises InputError for anything else."""
    match = _TCP.fullmatch(address)
    if match and int(match["port"]) < 65536 and _is_host(match["host"]):
        return True
    if address.startswith("ipc:///") and address.isprintable():
        return False
    raise InputError(f"{address!r} is no address: write tcp://HOST:PORT, or ipc:///PATH with an absolute path of printable characters")


def _is_host(host: str) -> bool:
    """Whether `host` is an IPv4 address, an IPv6 address in brackets, or a name of the DNS."""
    *_, last = labels = host.removesuffix(".").split(".")
    try:
        if host.startswith("["):
            return bool(ipaddress.IPv6Address(host[1:-1]))
        if last.isdigit():
            return bool(ipaddress.IPv4Address(host))
    except ValueError:
        return False
    return len(host) <= _HOST_NAME_LIMIT and all(map(_LABEL.fullmatch, labels))


def ipc_path(address: str) -> Path:
    """Where the socket of an ipc address lies."""
    return Path(address.removeprefix("ipc://"))


def check_ipc_directory(address: str) -> Path:
    """The path of an ipc address, once its directory is known to be closed to all other users.

    ipc connections are not encrypted: the operating system keeps others out. Raises InputError when it would not.
    """
    path = ipc_path(address)
    if len(os.fsencode(path)) > _IPC_PATH_LIMIT:
        raise InputError(f"the path of {address} is longer than {_IPC_PATH_LIMIT} bytes: choose a shorter directory")
    directory = path.parent
    try:
        status = os.lstat(directory)
    except OSError as error:
        raise InputError(f"the directory of {address} cannot be used: {error.strerror}: create it with mode 0700") from None
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{directory} is not a directory, so {address} cannot be used")
    if status.st_uid != os.geteuid():
        raise InputError(f"the directory {directory} belongs to another user: choose one of your own for {address}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InputError(f"other users may enter {directory}: run 'chmod 700 {directory}' or choose another directory for {address}")
    return path


def check_ipc_free(path: Path) -> None:
    """Raises InputError when somebody listens on `path`, or when it is another file; libzmq itself would silently take its place."""
    if path.is_symlink() or (path.exists() and not path.is_socket()):
        raise InputError(f"{path} is no socket, and is not replaced by one: choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise InputError(f"{path} cannot be used as a socket: {error.strerror}") from None
    raise InputError(f"the address ipc://{path} is in use: end the other process or choose another path")
