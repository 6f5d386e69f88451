"""What a process has used for one session: processor time and memory, as far as no other session can have had a part in them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


class _Sessions:
    """The sessions of this process: what one of them uses is known only while it is alone.

    now: by session, how many parties have it here; more than one where they are threads of one process. begun: how many there ever were.
    peak_of: the session whose largest resident set the operating system is keeping.
    """

    def __init__(self) -> None:
        self.lock, self.begun = threading.Lock(), 0
        self.now: Counter[bytes] = Counter()
        self.peak_of: bytes | None = None

    def begin(self, session: bytes) -> None:
        with self.lock:
            if session not in self.now:
                self.begun += 1
                self.peak_of = session if not self.now and (self.begun == 1 or _forget_peak()) else None
            self.now[session] += 1

    def end(self, session: bytes) -> None:
        with self.lock:
            self.now -= Counter([session])


_sessions = _Sessions()


@contextlib.contextmanager
def counted(session: bytes) -> Iterator[None]:
    """While a party has a session."""
    _sessions.begin(session)
    try:
        yield
    finally:
        _sessions.end(session)


class Usage:
    """What this process has used since `Usage(session)`, as far as it was for that session alone."""

    def __init__(self, session: bytes) -> None:
        self._session, self._wall, self._processor = session, time.perf_counter(), time.process_time()
        self._alone, self._begun = len(_sessions.now) == 1, _sessions.begun

    def fields(self) -> dict[str, float]:
        """For the control message that ends an inference: `seconds` of wall clock always, the rest unless other sessions have overlapped.

        `cpu_seconds`: of the processor. `peak_rss_mb`: the largest resident set since the session began, of the first since the process did.
        """
        fields = {"seconds": time.perf_counter() - self._wall}
        if self._alone and self._begun == _sessions.begun:
            fields["cpu_seconds"] = time.process_time() - self._processor
        if self._session == _sessions.peak_of:
            with contextlib.suppress(OSError):  # too many files are open: a figure for a report ends no session
                fields["peak_rss_mb"] = peak_rss_mb()
        return fields


def _forget_peak() -> bool:
    """Have the operating system start anew with this process's largest resident set; False where it does not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_mb() -> float:
    """The largest resident set of this process so far, in MB. Not from getrusage: its ru_maxrss starts with that of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0
