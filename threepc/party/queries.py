"""How many images a client may ask of a model: counted on the server's disk before the server takes part in an inference.

Whoever may ask without limit can extract a model, from labels alone too (Lehmkuhl et al. 2021; docs/security.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from threepc.errors import InputError, RunError, ThreepcError
from threepc.files import read_json, write_atomically
from threepc.party.session import log

FILE_NAME = "queries.json"
STATE_VARIABLE = "STATE_DIRECTORY"
"""In the environment: the server's folder for what it must remember, as systemd sets it."""
VERSION = 1

Used = dict[str, dict[str, int]]
"""Images by client and model."""


@dataclass(frozen=True)
class Limits:
    """Images that a client may ask of each model: of some by name, and of all others; None for no limit."""

    default: int | None = None
    named: Mapping[str, int] = field(default_factory=dict)

    def of(self, client: str) -> int | None:
        """The limit of one client."""
        return self.named.get(client, self.default)

    def __bool__(self) -> bool:
        return self.default is not None or bool(self.named)


def state_file(beside: Path) -> Path:
    """Where the counts lie: in the folder of STATE_DIRECTORY, or beside the deployment.yaml at `beside`."""
    return Path(os.environ.get(STATE_VARIABLE) or beside.parent) / FILE_NAME


def read_used(path: Path) -> Used:
    """What is counted in a file; nothing where there is none. Raises InputError for a file that holds something else."""
    if not path.exists():
        return {}
    data = read_json(path, "the counted queries")
    used = data.get("used") if isinstance(data, dict) and data.get("version") == VERSION else None
    is_count = lambda value: type(value) is int and value >= 0
    if not isinstance(used, dict) or not all(isinstance(by, dict) and all(map(is_count, by.values())) for by in used.values()):
        raise InputError(f"{path} does not hold counted queries: bring back a copy, or remove it to begin at 0")
    return used


@dataclass
class Charge:
    """One inference that is counted. is_final: from here on it counts, whatever becomes of it."""

    is_final: bool = False


class QueryCounts:
    """What clients have asked for, and may. Safe to use from several threads of one process."""

    def __init__(self, path: Path | None = None, limits: Limits = Limits()) -> None:
        """path: of the file, None to count nothing. Raises InputError where there are limits and the file cannot be read or written."""
        self._path, self._limits, self._lock = path, limits, threading.Lock()
        self._used = {} if path is None else read_used(path)
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """From now on. Raises InputError where the file cannot be written."""
        with self._lock:
            if limits and self._path is not None:
                try:
                    self._write(self._path)
                except ThreepcError as error:
                    raise InputError(f"{error}: queries are counted there, or in the folder that {STATE_VARIABLE} names") from None
            self._limits = limits

    @contextlib.contextmanager
    def charged(self, client: str, model: str, images: int) -> Iterator[Charge]:
        """Count images before they are evaluated, and no longer where that fails before the charge is final.

        Raises RunError where they are more than the client has left, or cannot be counted; then nothing is evaluated.
        """
        charge, is_counted = Charge(), self._add(client, model, images)
        try:
            yield charge
        except BaseException:
            if is_counted and not charge.is_final:
                self._take_back(client, model, images)
            raise

    def _add(self, client: str, model: str, images: int) -> bool:
        with self._lock:
            limit = self._limits.of(client)
            if limit is None or self._path is None:
                return False
            used = self._used.get(client, {}).get(model, 0)
            if used + images > limit:
                raise RunError(
                    f"{client} has used {used:,} of its {limit:,} images of {model}, and {images:,} more are too many: ask the server's owner"
                )
            self._set(client, model, used + images)
            try:
                self._write(self._path)
            except ThreepcError as error:
                self._set(client, model, used)
                log.error("queries are refused: %s", error)
                raise RunError("the server cannot count this query, and refuses it: tell its owner") from None
            return True

    def _take_back(self, client: str, model: str, images: int) -> None:
        with self._lock:
            self._set(client, model, self._used[client][model] - images)
            if self._path is not None:
                with contextlib.suppress(ThreepcError):  # what stays counted on the disk is too much, never too little
                    self._write(self._path)

    def _set(self, client: str, model: str, images: int) -> None:
        self._used.setdefault(client, {})[model] = images

    def _write(self, path: Path) -> None:
        write_atomically(path, (json.dumps({"version": VERSION, "used": self._used}, indent=1) + "\n").encode(), 0o600)
