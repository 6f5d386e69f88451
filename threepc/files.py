"""Files that are either whole or not there, and JSON that can be read in one way only."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from threepc.errors import InputError


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write `content` under a temporary name, then rename: `path` is either what it was, or the whole new file.

    content: bytes, or a function that writes them to the open file. mode: permissions that the file has from its first moment on, less
    the process's umask. The folder is made if it is missing. Raises InputError, naming `path`, where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
