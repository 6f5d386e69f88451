"""Clients come and go while server and provider run: deployment.yaml is read again on SIGHUP, and when it or a key beside it changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from threepc.errors import InputError
from threepc.party.deployment import Deployment, load
from threepc.party.listening import ListeningParty
from threepc.party.session import log

LOOKS_EVERY_S = 2.0


class Reload:
    """Tells a party that listens who may connect, each time that it looks and finds the files changed."""

    def __init__(self, deployment: Deployment, party: ListeningParty) -> None:
        self._deployment, self._party = deployment, party
        self._seen: list[tuple[int, ...]] | None = None  # it may have changed since it was loaded, which was before the model

    def look(self, asked: bool = False) -> None:
        """Read deployment.yaml again if it has changed, or in any case if `asked`. A file that is wrong is reported, and nothing changes."""
        stamp = self._stamp()
        if stamp == self._seen and not asked:
            return
        self._seen = stamp
        before = self._deployment
        try:
            after = load(before.path)
            if after.is_unix != before.is_unix:
                raise InputError(f"{before.path}: Unix sockets took the place of keys, or keys theirs: restart the {self._party.role}")
        except InputError as error:
            log.warning("the clients stay as they were: %s", error)
            return
        self._party.authorise(after.authorised(self._party.role), after.name_of)  # first: a full disk keeps no revoked client
        try:
            if after.queries != before.queries:
                self._party.queries.limit(after.queries)
                log.info("the limits of queries have changed")
        except InputError as error:
            log.warning("the limits of queries stay as they were: %s", error)
            after = dataclasses.replace(after, queries=before.queries)
        self._deployment = dataclasses.replace(before, clients=after.clients, queries=after.queries)
        if after != self._deployment:
            log.warning("%s: only clients and queries are read again: restart the %s for the rest of it", before.path, self._party.role)
        gone = [name for name, key in before.clients.items() if key not in after.clients.values()]
        come = [name for name, key in after.clients.items() if key not in before.clients.values()]
        if gone or come or asked:
            changes = [f"{' and '.join(names)} {what}" for names, what in ((come, "added"), (gone, "revoked")) if names]
            who = "every process of this user" if after.is_unix else _count(len(after.clients))
            log.info("%s may connect: %s", who, ", ".join(changes) or "no change")

    def _stamp(self) -> list[tuple[int, ...]]:
        """What changes when deployment.yaml or a client's key does: times, sizes and places of these files and of their folder."""
        folder = self._deployment.path.parent
        return [_stamp(path) for path in (folder, self._deployment.path, *(folder / f"{name}.public" for name in self._deployment.clients))]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _count(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients} clients"
