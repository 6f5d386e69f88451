"""A client that asks again, in a new session with new keys, where the one before was lost; never where it was refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from threepc.errors import RunError
from threepc.party.client import ClientSession
from threepc.party.record import Record
from threepc.party.session import log

_T = TypeVar("_T")

PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before the first new session, twice as long before each further one, and at most."""


class RetryingClient:
    """Sessions one after the other, as few as it takes. A context manager.

    An inference that is asked for again is a new one: every session has keys of its own, so nothing of the lost one is drawn twice. The
    answer is the same up to the rounding that a secure run has.
    """

    def __init__(
        self, connect: Callable[[], ClientSession], retries: int, tell: Callable[[str], None] = log.warning, *, reopens: bool = False
    ) -> None:
        """connect: opens a session; retries: how often one inference, or the first session, is tried again. Raises RunError as it does.

        reopens: begin a new session, too, where the one before gave its last answer and then lost a party, which is no retry. Without it and
        without retries the next inference says what ended that session.
        """
        self._connect, self._retries, self._tell = connect, retries, tell
        self._reopens = reopens or retries > 0
        self.session = self._try(connect)

    def infer(self, images: np.ndarray, separate: bool = False) -> tuple[np.ndarray, Record]:
        """As `ClientSession.infer`. Raises RunError, too, where another session finds another model."""
        return self._try(lambda: self._current().infer(images, separate))

    def prepare_ahead(self, *, wait: bool = False) -> None:
        """As `ClientSession.prepare_ahead`."""
        self._try(lambda: self._current().prepare_ahead(wait=wait))

    def _current(self) -> ClientSession:
        if self.session.has_ended and self._reopens:
            before = self.session.model
            self.session = self._connect()
            if self.session.model.fingerprint != before.fingerprint:
                self.close()
                raise RunError("the server has another model than before: begin again")
        return self.session

    def _try(self, act: Callable[[], _T]) -> _T:
        tried = 0
        while True:
            try:
                return act()
            except RunError as error:
                if tried == self._retries or not error.may_pass:
                    raise
                pause = min(PAUSE_S * 2**tried, LONGEST_PAUSE_S)
                self._tell(f"{error}: trying again in a new session, in {pause:g} s")
                time.sleep(pause)
                tried += 1

    def close(self) -> None:
        """End the session in good order."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.session.__exit__(kind, error, trace)
