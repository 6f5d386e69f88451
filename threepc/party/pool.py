"""Several inferences of one client in flight, so that one's waiting is another's computing.

Each runs in a session of its own, with keys of its own, as if several clients asked; so nothing of the protocol changes, and an inference that
fails takes no other one with it. The other way, several inferences side by side in one session, would need every message routed to the attempt
that it belongs to, at three parties, and budgets divided between attempts; what it would save is a handshake for each session, of four
one-way messages beside the keys' proof, because the sessions share the masked weights, which cross the link once.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.party.client import ClientSession
from threepc.party.record import Record
from threepc.party.retrying import RetryingClient
from threepc.party.session import log

Item = TypeVar("Item")
Result = TypeVar("Result")

Tell = Callable[[str], None]

MOST_IN_FLIGHT = 32
"""As many sessions as a server has at once."""


class _NoPlaceError(RunError):
    """A further session would have to wait; the others go on meanwhile."""


def shares(total: int, sessions: int) -> Iterable[int]:
    """How many of `total` inferences each session prepares ahead: together as many; a session in place of a lost one as many as the first."""
    each = [total // sessions + (index < total % sessions) for index in range(sessions)]
    return itertools.chain(each, itertools.repeat(each[0]))


class SessionPool:
    """Up to `most` sessions of one client, the first opened at once and each other one when all are busy. A context manager.

    Each retries as `RetryingClient` does. Where the server, or whoever is reached over it, has a further session wait, it is given up, and
    `warn` hears how many there are; the client asks for no more then. Safe to use from several threads.
    """

    def __init__(
        self,
        connect: Callable[[Tell], ClientSession],
        most: int = 1,
        retries: int = 0,
        tell: Tell = log.info,
        warn: Tell = log.warning,
        *,
        reopens: bool = False,
    ) -> None:
        """connect: opens a session and tells the function that it is given for whom it waits; `tell` is what the first one is given.

        warn: hears of retries and of a server that takes no further session; the rest as `RetryingClient`. Raises RunError as that does.
        """
        self._connect, self._most, self._tell = connect, most, warn
        self._retries, self._reopens = retries, reopens
        self._changed, self._closed, self._opened = threading.Condition(), False, 1
        self._expected: float = math.inf
        self._refilling: dict[RetryingClient, float] = {}  # how many such sessions will have ready
        self._clients = [self._new(tell)]
        self._free = deque(self._clients)

    @property
    def first(self) -> ClientSession:
        """The session that was opened first, or what came in its place."""
        return self._clients[0].session

    @property
    def model(self) -> PublicModel:
        """What the server says of its network."""
        return self.first.model

    @property
    def setup_links(self) -> dict[str, list[int]]:
        """[bytes, messages] by link that the sessions took to set up, all together."""
        links: dict[str, Counter[int]] = {}
        for client in list(self._clients):
            for link, counts in client.session.setup_links.items():
                links.setdefault(link, Counter()).update(dict(enumerate(counts)))
        return {link: [counts[0], counts[1]] for link, counts in links.items()}

    def prepare(self) -> None:
        """Open all sessions that the server allows, and wait until each that is free has prepared as many inferences as its options say."""
        while True:
            with self._changed:
                if self._opened >= self._most:
                    break
                self._opened += 1
            client = self._another()
            if client is not None:
                with self._changed:
                    self._free.append(client)
        with self._changed:
            clients = [self._free.popleft() for _ in range(len(self._free))]
        try:
            for wait in (False, True):  # all begin before one is waited for
                for client in clients:
                    client.prepare_ahead(wait=wait)
        finally:
            self._give_back(*clients)

    def expect(self, inferences: int) -> None:
        """So many will be asked for, and no more: no others are prepared. Before this is said, their number is not known."""
        self._expected = inferences

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer`, in whichever session is free first."""
        with self.session() as client:
            return client.infer(images, separate)

    @contextlib.contextmanager
    def session(self) -> Iterator[RetryingClient]:
        """A session for this thread alone. Raises RunError when the pool is closed, and what opening one raises."""
        client = self._take()
        try:
            yield client
            self._refill(client)
        finally:
            self._give_back(client)

    def _refill(self, client: RetryingClient) -> None:
        """Prepare in place of what was used, if it will be asked for. Whoever asks next in this session hears what goes wrong."""
        session = client.session
        with self._changed:
            ready = (self._refilling.get(other, other.session.ready) for other in self._clients if other is not client)
            most = min(self._expected - sum(ready), session.most_ready)
            if session.has_ended or most <= session.ready:
                return
            self._refilling[client] = most
        try:  # without the lock: where that fails, the session is closed, and others do not wait until its parties are told
            with contextlib.suppress(RunError):
                session.prepare_ahead(most)
        finally:
            with self._changed:
                del self._refilling[client]

    def _give_back(self, *clients: RetryingClient) -> None:
        with self._changed:
            self._free.extend(clients)
            self._changed.notify_all()
        if self._closed:
            for client in clients:
                client.close()

    def _take(self) -> RetryingClient:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._free or self._opened < self._most)
                self._check_open()
                client = max(self._free, key=lambda client: client.session.ready, default=None)
                if client is None:
                    self._opened += 1
                else:
                    self._free.remove(client)
            if client := client or self._another():
                with self._changed:
                    self._expected -= 1
                return client

    def _another(self) -> RetryingClient | None:
        """A further session, which is counted already; None where the server has it wait, and then there will be no more."""
        try:
            client = self._new(self._give_up)
        except _NoPlaceError:
            with self._changed:
                self._most = self._opened = self._opened - 1
                self._changed.notify_all()
                said = f"{self._most} inference(s) in flight, and no more: the server has a further session of this client wait"
            self._tell(said)
            return None
        except BaseException:
            with self._changed:
                self._opened -= 1
                self._changed.notify_all()
            raise
        if client.session.model.fingerprint != self.model.fingerprint:
            client.close()
            with self._changed:
                self._opened -= 1
                self._changed.notify_all()
            raise RunError("the server has another model than before: begin again")
        with self._changed:
            if not (closed := self._closed):
                self._clients.append(client)
        if closed:  # while it was opened: nobody else would end it
            client.close()
            self._check_open()
        return client

    def _new(self, tell: Tell) -> RetryingClient:
        tells = iter([tell])  # a session in place of a lost one may wait

        def connect() -> ClientSession:
            self._check_open()
            return self._connect(next(tells, self._tell))

        return RetryingClient(connect, self._retries, self._tell, reopens=self._reopens)

    def _give_up(self, text: str) -> None:
        raise _NoPlaceError(f"the client goes on with the sessions that it has: {text}")

    def _check_open(self) -> None:
        if self._closed:
            raise RunError("this client was closed")

    def close(self) -> None:
        """End all sessions: those that are free in good order, and those in which an inference runs at once, with an error for it."""
        with self._changed:
            self._closed = True
            clients, free = list(self._clients), list(self._free)
            self._changed.notify_all()
        for client in clients:
            if client in free:
                client.close()
            else:
                client.__exit__(RunError, RunError("this client was closed"), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if len(self._clients) == 1:
            self._closed = True
            self._clients[0].__exit__(kind, error, trace)
        else:
            self.close()


class Gathering:
    """Requests of several threads, answered together: up to `size` images in one inference.

    It is the client that forms batches: each client computes with keys of its own, so a server cannot put two clients' images together.
    """

    def __init__(self, pool: SessionPool, size: int, seconds: float) -> None:
        """seconds: that a request waits for others at most, while a session is free for it."""
        self._pool, self._size, self._seconds = pool, size, seconds
        self._lock = threading.Lock()
        self._open: _Group | None = None

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer`; the record is that of all images that were answered together."""
        if not 0 < len(images) < self._size:
            return self._pool.infer(images)
        with self._lock:
            group = self._open
            leads = group is None or len(group.images) + len(images) > self._size
            if group is None or leads:
                if group is not None:
                    group.complete.set()
                group = self._open = _Group()
            first = len(group.images)
            group.images.extend(images)
            if len(group.images) == self._size:
                group.complete.set()
        if leads:
            self._lead(group)
        try:
            decoded, record = group.answer.result()
        except InputError:  # nothing was sent: it may be another one's image that is bad
            if len(group.images) == len(images):
                raise
            return self._pool.infer(images)
        return decoded[first : first + len(images)], record

    def close(self) -> None:
        """Have nobody wait for others any more, as the pool is closed."""
        with self._lock:
            if self._open is not None:
                self._open.complete.set()

    def _lead(self, group: _Group) -> None:
        try:
            group.complete.wait(self._seconds)
            with self._pool.session() as client:
                with self._lock:  # whoever came while all sessions were busy is of the group, too
                    if self._open is group:
                        self._open = None
                group.answer.set_result(client.infer(np.stack(group.images)))
        except BaseException as error:  # raised where its result is waited for, in this thread too
            with self._lock:
                if self._open is group:
                    self._open = None
            if group.answer.done():
                raise
            group.answer.set_exception(error)


class _Group:
    """Images (C, H, W) that are answered together. complete: no others will come."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.complete = threading.Event()
        self.answer: Future[tuple[np.ndarray, Record]] = Future()


def in_order(act: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Iterator[Result]:
    """What builtin `map` gives, with `at_once` items at a time in threads of their own. Raises what `act` raises, at its place, which is the end.

    Items are taken as results are: there are never more than twice as many as `at_once` of which the result was not taken yet.
    """
    waiting: deque[Future[Result]] = deque()
    threads = ThreadPoolExecutor(at_once, "in flight")
    try:
        for item in items:
            waiting.append(threads.submit(act, item))
            if len(waiting) == 2 * at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
