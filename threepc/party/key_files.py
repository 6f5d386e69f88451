"""Key files: NAME.public may be seen by anybody, NAME.secret by its party alone."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from threepc.errors import InputError
from threepc.transport.keys import KeyPair, is_key

LISTENING = ("server", "provider")
"""The names of the parties that are not clients."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LARGEST = 1 << 20


def check_name(name: str) -> None:
    """Raises InputError for a name that no party's key files can have."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name[:80]!r} is no name of a party: write 1 to 64 letters, digits, '-' and '_', a letter or digit first")


def read_pair(directory: Path, name: str) -> KeyPair:
    """The key pair of a party from the files of its name; the secret key, where a service manager hands it over, from that folder.

    Raises InputError when a file is missing or malformed, when other users may read the secret key, and when the two do not belong together.
    """
    public = read_public(directory / f"{name}.public", f"the public key of {name}")
    path, exposed = directory / f"{name}.secret", 0o077
    handed_over = os.environ.get("CREDENTIALS_DIRECTORY")
    if handed_over and (Path(handed_over) / path.name).exists():
        # systemd and Kubernetes let the group read, which there is the service's own
        path, exposed = Path(handed_over) / path.name, 0o037
    pair = KeyPair(public, _key(path, f"the secret key of {name}", exposed))
    if not pair.is_consistent():
        raise InputError(f"{path} does not belong to {name}.public beside it: copy both files again from where they were made")
    return pair


def read_public(path: Path, what: str) -> bytes:
    """The key in a .public file, 40 characters of z85. Raises InputError, beginning with `what`."""
    return _key(path, what, 0)


def read_text(path: Path) -> str:
    """A regular file of UTF-8, up to 1 MiB. Raises OSError or UnicodeDecodeError; never waits, also not for a FIFO."""
    return _read(path, 0, "").decode()


@contextmanager
def created(directory: Path, files: Mapping[Path, tuple[bytes, int]], instead: str) -> Iterator[None]:
    """New files, each with its mode from the first moment on, in `directory` and folders of it; all of them or, where the block fails, none.

    Raises InputError where a file exists already (`instead`: what to do then), where one cannot be written, and for a folder that others may
    write to.
    """
    made: list[Path] = []
    try:
        for folder in dict.fromkeys((directory, *(path.parent for path in files))):
            _make_folder(folder, made)
        for path, (content, mode) in files.items():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            made.append(path)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        yield
    except BaseException as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, FileExistsError):
            raise InputError(f"{error.filename} exists already and is not overwritten: {instead}") from None
        if isinstance(error, OSError):
            raise InputError(f"cannot write keys to {directory}: {error.strerror}: choose another directory") from None
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700 if missing == folder else 0o777)
        made.append(missing)
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        raise InputError(f"other users may write to {folder}, and exchange the keys in it: run 'chmod go-w {folder}'")


def _key(path: Path, what: str, exposed: int) -> bytes:
    try:
        text = _read(path, exposed, what).strip()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{what} {str(path)!r} cannot be read: {reason}: 'threepc keygen DIR' makes keys") from None
    if not is_key(text):
        raise InputError(f"{what} {path} holds no key of 40 characters: copy it again, or make new keys with 'threepc keygen DIR'")
    return text


def _read(path: Path, exposed: int, what: str) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if stat.S_IMODE(status.st_mode) & exposed:
            raise InputError(f"{path}: other users may read {what}: run 'chmod 600 {path}', and make new keys if anyone may have read it")
        if status.st_size > _LARGEST:
            raise OSError(0, f"it is longer than {_LARGEST} bytes")
        return file.read(_LARGEST)
