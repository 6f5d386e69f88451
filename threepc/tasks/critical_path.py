"""What a run waited for, from its trace: the path of work and messages that ends with the result, walked back from there."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from threepc.errors import InputError
from threepc.files import read_json
from threepc.party.tracing import LAYER, SEND, WAIT

Lane = tuple[str, str]
"""Party and lane."""


class Event(NamedTuple):
    """A span of a trace; began and ended in microseconds."""

    lane: Lane
    kind: str
    name: str
    began: int
    ended: int
    facts: dict[str, Any]


class Piece(NamedTuple):
    """A stretch of the critical path. what: "compute", "send", "on its way" or "wait"; layer: "" between layers."""

    party: str
    what: str
    layer: str
    began: int
    ended: int


def read_trace(path: Path) -> list[Event]:
    """The spans of a file that `tracing.write` wrote, by their ends. Raises InputError, naming the file, for anything else."""
    data = read_json(path, "the trace")
    try:
        rows = data["traceEvents"]
        names = {(row["name"], row["pid"], row["tid"]): str(row["args"]["name"]) for row in rows if row["ph"] == "M"}
        events = [
            Event(
                (names["process_name", row["pid"], 0], names["thread_name", row["pid"], row["tid"]]),
                str(row["cat"]),
                str(row["name"]),
                int(row["ts"]),
                int(row["ts"]) + int(row["dur"]),
                dict(row["args"]),
            )
            for row in rows
            if row["ph"] == "X"
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is no trace of threepc's: 'threepc run --trace FILE' writes one") from None
    if not any(event.kind == LAYER for event in events):
        raise InputError(f"the trace {path} holds no inference")
    return sorted(events, key=lambda event: event.ended)


def by_layer(events: Sequence[Event]) -> dict[str, dict[str, Counter[str]]]:
    """Layer -> party -> microseconds of "compute", "send" and "wait", over all inferences and lanes."""
    times: dict[str, dict[str, Counter[str]]] = {}
    for event in sorted((event for event in events if event.kind == LAYER), key=lambda event: event.began):
        found = times.setdefault(event.name, defaultdict(Counter))[event.lane[0]]
        for what in ("compute", "send", "wait"):
            found[what] += int(event.facts.get(f"{what}_us", 0))
    return times


def critical_path(events: Sequence[Event]) -> list[Piece]:
    """The pieces in order of time, without gaps, from where the path began to the end of the last layer at the client.

    events: of all three parties, on one clock. A wait that a message ended leads to whoever sent it; a wait whose message was there already
    leads on in the same lane.
    """
    return list(_Walk(events).pieces())[::-1]


class _Walk:
    def __init__(self, events: Sequence[Event]) -> None:
        self._messages: dict[Lane, list[Event]] = defaultdict(list)
        self._layers: dict[Lane, list[Event]] = defaultdict(list)
        self._sent: dict[tuple[Any, ...], Event] = {}
        self._controls: dict[Any, list[Event]] = defaultdict(list)
        for event in events:
            (self._layers if event.kind == LAYER else self._messages)[event.lane].append(event)
            if event.kind == SEND and event.facts.get("phase") == "control":
                self._controls[event.facts.get("link")].append(event)
            elif event.kind == SEND:
                self._sent[self._message(event)] = event
        ends = [event for event in events if event.kind == LAYER and event.lane[0] == "client"]
        self._end = ends[-1] if ends else max((event for event in events if event.kind == LAYER), key=lambda event: event.ended)
        self._begin = min(event.began for event in events if event.kind == LAYER)

    @staticmethod
    def _message(event: Event) -> tuple[Any, ...]:
        return tuple(event.facts.get(key) for key in ("link", "phase", "number"))

    def pieces(self) -> Iterator[Piece]:
        """From the end to the beginning."""
        lane, now = self._end.lane, self._end.ended
        before = {lane: [event.ended for event in events] for lane, events in self._messages.items()}
        place = {lane: len(ends) for lane, ends in before.items()}
        while now > self._begin:
            at = min(bisect_right(before.get(lane, []), now), place.get(lane, 0))
            if not at:  # nothing was waited for before
                yield from self._worked(lane, "compute", self._begin, now)
                return
            event = self._messages[lane][at - 1]
            place[lane] = at - 1
            yield from self._worked(lane, "compute", max(event.ended, self._begin), now)
            now = min(event.ended, now)
            cause = self._cause(event)
            if cause is None:
                yield from self._worked(lane, event.kind, max(event.began, self._begin), now)
                now = min(event.began, now)
            else:
                sent = max(min(cause.ended, now), self._begin)  # a sender may be told late that its message went
                yield from self._worked(lane, "on its way", sent, now)
                yield from self._worked(cause.lane, "send", max(cause.began, self._begin), sent)
                lane, now = cause.lane, min(cause.began, sent)

    def _cause(self, wait: Event) -> Event | None:
        """The send that ended a wait, if it came after the wait had begun."""
        if wait.kind != WAIT:
            return None
        if wait.facts.get("phase") == "control":
            sent = self._controls.get(wait.facts.get("link"), [])
            at = bisect_right([event.began for event in sent], wait.ended)
            cause = sent[at - 1] if at else None
        elif "link" not in wait.facts:  # for another thread of this party
            here = [events[-1] for lane, events in self._layers.items() if lane[0] == wait.lane[0] and lane != wait.lane]
            cause = here[0]._replace(began=wait.ended, ended=wait.ended) if here else None
        else:
            cause = self._sent.get(self._message(wait))
        return cause if cause is not None and wait.began < cause.ended and cause.began <= wait.ended else None

    def _worked(self, lane: Lane, what: str, began: int, ended: int) -> Iterator[Piece]:
        """What a lane did from `began` to `ended`, split by layers, last first."""
        layers = self._layers.get(lane, [])
        at = bisect_right([layer.began for layer in layers], ended)
        while ended > began and at:
            layer = layers[at - 1]
            at -= 1
            if layer.ended < ended:
                yield Piece(lane[0], what, "", max(layer.ended, began), ended)
                ended = max(layer.ended, began)
            if max(layer.began, began) < ended:
                yield Piece(lane[0], what, layer.name, max(layer.began, began), ended)
                ended = max(layer.began, began)
        if ended > began:
            yield Piece(lane[0], what, "", began, ended)
