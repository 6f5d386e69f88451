"""What a party that serves tells of itself: a line in the log for each event, and counts of them for whoever watches.

Sessions, sizes, times, names and reasons; never a share, a key, a value or a weight.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from threepc.errors import RunError, ThreepcError
from threepc.party.session import log


@dataclass
class Counts:
    """Since the party began. seconds, images, inferences: of finished inferences; bytes: by link and phase; failures: sessions by `RunError.kind`."""

    sessions: int = 0
    active: int = 0
    inferences: int = 0
    images: int = 0
    seconds: float = 0.0
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


class Observation:
    """Of one party. Safe to use from several threads."""

    def __init__(self, role: str) -> None:
        self.role, self.began = role, time.time()
        self.state = "loading"
        """`loading`, then `ready`, then `stopping`."""
        self._counts, self._lock = Counts(), threading.Lock()

    def counts(self) -> Counts:
        """As they are now."""
        with self._lock:
            now = self._counts
            return Counts(**vars(now) | {"bytes": Counter(now.bytes), "failures": Counter(now.failures)})

    def plain(self) -> dict[str, Any]:
        """The same as JSON-plain data, for `threepc status`."""
        counts = self.counts()
        by_link = {f"{link} {phase}": size for (link, phase), size in sorted(counts.bytes.items())}
        fields = vars(counts) | {"bytes": by_link, "failures": dict(counts.failures)}
        return {"role": self.role, "state": self.state, "up_seconds": round(time.time() - self.began, 1)} | fields

    @contextlib.contextmanager
    def session(self, session: bytes, client: str, where: str) -> Iterator[None]:
        """While a session that is set up lasts. where: of the client."""
        name = session.hex()[:8]
        with self._lock:
            self._counts.sessions += 1
            self._counts.active += 1
        self._say("session began", f"session {name}: {client} at {where}", session=name, client=client, where=where)
        try:
            yield
            self._say("session ended", f"session {name}: ended", session=name, client=client)
        finally:
            with self._lock:
                self._counts.active -= 1

    def inferred(self, session: bytes, images: int, seconds: float, links: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
        """An inference is finished. seconds: that it took here; links: [bytes, messages] by link and phase."""
        sizes = {(link, phase): count[0] for link, phases in links.items() for phase, count in phases.items()}
        with self._lock:
            self._counts.inferences += 1
            self._counts.images += images
            self._counts.seconds += seconds
            self._counts.bytes.update(sizes)
        name, what = session.hex()[:8], "dealt for " if self.role == "provider" else ""
        text = f"session {name}: {what}{images} image(s) in {seconds:.2f} s"
        self._say("inference", text, session=name, images=images, seconds=round(seconds, 4), bytes=sum(sizes.values()))

    def failed(self, error: ThreepcError) -> None:
        """A session ended before its time, or never began."""
        kind = error.kind if isinstance(error, RunError) else "refused"
        with self._lock:
            self._counts.failures[kind] += 1
        self._say("session failed", f"session ended: {error}", level="warning", kind=kind, reason=str(error))

    @staticmethod
    def _say(event: str, text: str, level: str = "info", **fields: Any) -> None:
        getattr(log, level)("%s", text, extra={"event": event, "fields": fields})
