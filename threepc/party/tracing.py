"""A party's timeline: what it computed, sent and waited for, layer by layer, as Chrome's trace events, which https://ui.perfetto.dev opens.

A party that is not traced has channels of the usual kind and notes nothing. A timeline holds names of layers, numbers of steps, sizes of
messages and times; it never sees a message's content.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from threepc.files import check_writable, write_atomically
from threepc.party.inference import Note
from threepc.protocol.steps import Step
from threepc.transport.channel import Channel
from threepc.transport.connection import Buffer, byte_view
from threepc.transport.framing import CONTROL, DATA, Header
from threepc.transport.meter import PHASES

Value = TypeVar("Value")

MOST_EVENTS = 200_000
"""Of one party, some tens of megabytes; what comes later is counted alone."""

LAYER, SEND, WAIT = "layer", "send", "wait"
"""Kinds of spans, a trace event's `cat`. A layer's span holds those of its messages, and its `args` the microseconds of each kind."""


class Span(NamedTuple):
    """lane: what goes on at once in a party goes on in different lanes. began, ended: seconds of this machine's monotonic clock."""

    lane: str
    kind: str
    name: str
    began: float
    ended: float
    facts: Mapping[str, str | int]


class Timeline:
    """The spans of one party, noted by its threads. role: client, server or provider."""

    def __init__(self, role: str) -> None:
        self.role, self.spans, self.left_out = role, list[Span](), 0
        self._mine = threading.local()

    def enter(self, lane: str) -> None:
        """What this thread notes from now on belongs to `lane`; its first step begins now."""
        self._mine.lane = lane
        self._begin()

    def _begin(self) -> None:
        self._mine.began, self._mine.passed = time.perf_counter(), {SEND: 0.0, WAIT: 0.0}

    def add(self, kind: str, name: str, began: float, /, **facts: str | int) -> None:
        """Note what began at `began`, a reading of time.perf_counter, and ends now."""
        ended = time.perf_counter()
        if not hasattr(self._mine, "lane"):
            self.enter("set-up")
        if kind != LAYER:
            self._mine.passed[kind] += ended - began
        if len(self.spans) < MOST_EVENTS:
            self.spans.append(Span(self._mine.lane, kind, name, began, ended, facts))
        else:
            self.left_out += 1

    def layer(self, step: Step) -> None:
        """Note a step, which ends now and began with the end of the last one; what its messages took is told apart."""
        began: float = self._mine.began
        sent, waited = (float(self._mine.passed[kind]) for kind in (SEND, WAIT))
        computed = max(time.perf_counter() - began - sent - waited, 0.0)
        times = {"compute_us": _micros(computed), "send_us": _micros(sent), "wait_us": _micros(waited)}
        self.add(LAYER, step.name, began, kind=step.kind, op=step.op, **times)
        self._begin()

    def to_plain(self) -> dict[str, Any]:
        """JSON-plain, for another process."""
        return {"role": self.role, "spans": self.spans, "left_out": self.left_out}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Timeline:
        """Inverse of `to_plain`."""
        timeline = cls(data["role"])
        timeline.spans, timeline.left_out = [Span(*span) for span in data["spans"]], data["left_out"]
        return timeline


def noting(timeline: Timeline | None, lane: str, note: Note) -> Note:
    """`note` itself or, where there is a timeline, one that tells it of each step, too; called in the thread that walks the steps."""
    if timeline is None:
        return note
    timeline.enter(lane)

    def both(index: int, step: Step, seconds: float) -> None:
        timeline.layer(step)
        note(index, step, seconds)

    return both


def result_of(future: Future[Value], timeline: Timeline | None) -> Value:
    """The result of another thread of this party; a wait for it is noted."""
    if timeline is None or future.done():
        return future.result()
    began = time.perf_counter()
    try:
        return future.result()
    finally:
        timeline.add(WAIT, "for the offline phase", began)


class TracedChannel(Channel):
    """A channel that tells a timeline what is sent and waited for."""

    timeline: Timeline

    def _transmit(self, kind: int, phase: str, op: int, described: bytes, parts: Sequence[Buffer]) -> None:
        began = time.perf_counter()
        super()._transmit(kind, phase, op, described, parts)
        size = sum(byte_view(part).nbytes for part in parts)
        facts: dict[str, str | int] = {
            "link": ">".join(self.link),
            "phase": _phase(kind, phase),
            "op": op,
            "number": self._sent,
            "bytes": size,
        }
        self.timeline.add(SEND, f"to {self.link[1]}", began, **facts)

    def _next(self, kind: int, op: int, timeout: Any) -> tuple[Header, list[memoryview]]:
        began = time.perf_counter()
        header, frames = super()._next(kind, op, timeout)
        size, phase = sum(frame.nbytes for frame in frames[1:]), _phase(kind, PHASES[header.phase])
        facts: dict[str, str | int] = {"link": ">".join(self.link[::-1]), "phase": phase, "op": op, "number": self._received, "bytes": size}
        self.timeline.add(WAIT, f"for {self.link[1]}", began, **facts)
        return header, frames


def _phase(kind: int, phase: str) -> str:
    """The phase of data; of what else the parties say its kind."""
    return {DATA: phase, CONTROL: "control"}.get(kind, "abort")


@contextlib.contextmanager
def traced(path: Path | None, role: str) -> Iterator[Timeline | None]:
    """A timeline of this party's, written to `path` at the end, however that comes; None where there is no path.

    Raises InputError at once where the file cannot be written.
    """
    if path is None:
        yield None
        return
    check_writable(path)
    timeline = Timeline(role)
    try:
        yield timeline
    finally:
        if timeline.spans:
            write(path, [timeline])


def write(path: Path, timelines: Sequence[Timeline]) -> None:
    """Chrome's trace-event format (JSON): a process a party, a thread a lane, times in microseconds since the first span.

    Raises InputError where the file cannot be written.
    """
    spans = [list(timeline.spans) for timeline in timelines]  # threads that have not ended yet may note more meanwhile
    start = min((span.began for noted in spans for span in noted), default=0.0)
    events: list[dict[str, Any]] = []
    for process, (timeline, noted) in enumerate(zip(timelines, spans, strict=True), 1):
        lanes = {lane: number for number, lane in enumerate(dict.fromkeys(span.lane for span in noted), 1)}
        events.append(_named("process_name", process, 0, timeline.role))
        events += [_named("thread_name", process, thread, lane) for lane, thread in lanes.items()]
        events += [
            {
                "ph": "X",
                "pid": process,
                "tid": lanes[span.lane],
                "ts": _micros(span.began - start),
                "dur": _micros(span.ended - span.began),
                "name": span.name,
                "cat": span.kind,
                "args": span.facts,
            }
            for span in noted
        ]
    left_out = {timeline.role: timeline.left_out for timeline in timelines if timeline.left_out}
    content = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"written_at": time.time(), "left_out": left_out}}
    write_atomically(path, json.dumps(content, allow_nan=False).encode())


def _named(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}}


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)
