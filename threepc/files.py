"""Files that are either whole or not there, and JSON that can be read in one way only."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from threepc.errors import InputError, RunError

ROOM = 1 << 20
"""Bytes that have to be free where results will go."""


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write `content` under a temporary name, then rename: `path` is either what it was, or the whole new file.

    content: bytes, or a function that writes them to the open file. mode: permissions that the file has from its first moment on, less
    the process's umask. The folder is made if it is missing. Raises InputError, naming `path`, where the file cannot be written, and RunError
    where there is no room for it: what it should hold is there already, so that is no bad input.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if not _is_plain(path):
            raise InputError(f"cannot write {path}: it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        temporary.replace(path)
    except OSError as error:
        kind = RunError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) else InputError
        raise kind(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(path: Path | None, is_directory: bool = False) -> None:
    """Raises InputError where results cannot be written to a file, or to files in a directory; nothing is made yet. None: they are not wanted.

    Refused are a folder that cannot be made or written to, devices and pipes, and a disk with less than ROOM bytes free.
    """
    if path is None:
        return
    folder = path if is_directory else path.parent
    try:
        nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise InputError(f"the folder {folder} cannot be made: {nearest} is no folder")
        if not os.access(nearest, os.W_OK | os.X_OK) or not (is_directory or _is_plain(path)) or (not is_directory and path.is_dir()):
            raise InputError(f"{path} cannot be written")
        if shutil.disk_usage(nearest).free < ROOM:
            raise InputError(f"{path} cannot be written: the disk has no room left")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def _is_plain(path: Path) -> bool:
    """Whether renaming a file to this path replaces no device, pipe or socket. A folder is told by the renaming itself."""
    return path.is_file() or path.is_dir() or not path.exists()


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a strict JSON text, in UTF-8 where it is bytes.

    Raises InputError, beginning with `what`, for what is no JSON, a key that occurs twice in one object, NaN, a number beyond floats, and
    nesting deeper than the interpreter's stack.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        return json.loads(decoded, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise InputError(f"{what}: not JSON: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{what}: not JSON: {error}") from None


def read_json(path: Path, what: str) -> Any:
    """The value in a JSON file, as `parse_json` reads it. Raises InputError, naming `what` and the path, also where it cannot be read."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}") from None
    return parse_json(text, f"{what} {path}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise ValueError(f"the key {key[:60]!r} occurs twice")
        members[key] = value
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def local_path(given: str | Path) -> Path:
    """What was given, as a path. Raises InputError, quoting it, for an address on the net, which a path would spell otherwise."""
    if isinstance(given, str) and "://" in given:
        raise InputError(f"{given} is an address on the net; threepc downloads nothing: save the file, and name that")
    return Path(given)
