"""Timelines: every step at every role, every message at both ends, and nothing but names, numbers and times."""

import json
from collections import Counter

import pytest

from tests.party.parties import images, small_model
from threepc.errors import InputError
from threepc.party import tracing
from threepc.party.one_host import open_parties
from threepc.party.session import Options, open_channel
from threepc.party.tracing import LAYER, SEND, WAIT, Timeline
from threepc.transport import memory
from threepc.transport.channel import Channel
from threepc.transport.meter import Meter

MODEL = small_model()
INFERENCES = 2


@pytest.fixture(scope="module")
def run():
    """Timelines of two inferences by role, and the record of the last."""
    with open_parties(MODEL, "memory", traced=True) as parties:
        for _ in range(INFERENCES):
            _, record = parties.infer(images())
    return {timeline.role: timeline for timeline in parties.timelines}, record


def test_every_role_tells_of_every_step(run):
    timelines, _ = run
    steps = Counter({step.name: INFERENCES for step in MODEL.public.plan(1).steps})
    assert set(timelines) == {"client", "provider", "server"}
    for role, timeline in timelines.items():
        lanes = {span.lane for span in timeline.spans if span.kind == LAYER}
        assert len(lanes) == (2 if role == "client" else 1)
        for lane in lanes:
            assert Counter(span.name for span in timeline.spans if span.kind == LAYER and span.lane == lane) == steps


def test_every_message_is_seen_at_both_ends(run):
    """With the bytes that the report counts."""
    timelines, record = run
    ends = {
        kind: Counter(
            tuple(span.facts[key] for key in ("link", "phase", "op", "number", "bytes"))
            for timeline in timelines.values()
            for span in timeline.spans
            if span.kind == kind and span.facts.get("phase") in ("offline", "online")
        )
        for kind in (SEND, WAIT)
    }
    assert ends[SEND] == ends[WAIT] and max(ends[SEND].values()) == 1
    total = Counter()
    for link, phase, _, _, size in ends[SEND]:
        total[link.replace(">", "->"), phase] += size
    assert total == {(link, phase): INFERENCES * size for link, phases in record.links.items() for phase, (size, _) in phases.items()}


def test_messages_lie_within_the_layer_that_they_are_for(run):
    timelines, _ = run
    for timeline in timelines.values():
        layers = [span for span in timeline.spans if span.kind == LAYER]
        for layer in layers:
            inner = [
                s for s in timeline.spans if s.kind != LAYER and s.lane == layer.lane and layer.began <= s.began and s.ended <= layer.ended
            ]
            for kind in (SEND, WAIT):
                assert layer.facts[f"{kind}_us"] == pytest.approx(1e6 * sum(s.ended - s.began for s in inner if s.kind == kind), abs=2)
            whole = sum(layer.facts[key] for key in ("compute_us", "send_us", "wait_us"))
            assert whole == pytest.approx(1e6 * (layer.ended - layer.began), abs=100)


def test_a_timeline_holds_nothing_of_a_message(run):
    timelines, _ = run
    names = {step.name for step in MODEL.public.plan(1).steps} | {f"{how} {role}" for how in ("to", "for") for role in (*timelines, "peer")}
    kinds = {step.kind for step in MODEL.public.plan(1).steps}
    for timeline in timelines.values():
        for span in timeline.spans:
            assert span.name in names | {"for the offline phase"}
            assert span.facts.keys() <= {"kind", "op", "compute_us", "send_us", "wait_us", "link", "phase", "number", "bytes"}
            assert span.facts.get("kind", "conv") in kinds
            assert span.facts.get("phase", "control") in ("control", "setup", "offline", "online", "abort")
            assert all(type(value) is int for key, value in span.facts.items() if key not in ("kind", "link", "phase"))


def test_the_file_is_what_perfetto_reads(run, tmp_path):
    timelines, _ = run
    tracing.write(tmp_path / "t.json", list(timelines.values()))
    written = json.loads((tmp_path / "t.json").read_text())
    spans = [event for event in written["traceEvents"] if event["ph"] == "X"]
    names = [event for event in written["traceEvents"] if event["ph"] == "M"]
    assert len(spans) == sum(len(timeline.spans) for timeline in timelines.values()) and len(spans) + len(names) == len(
        written["traceEvents"]
    )
    assert [event["args"]["name"] for event in names if event["name"] == "process_name"] == list(timelines)
    assert min(event["ts"] for event in spans) == 0 and all(
        type(event[key]) is int and event[key] >= 0 for event in spans for key in ("ts", "dur")
    )


def test_a_party_that_is_not_traced_has_plain_channels():
    ours, _ = memory.pair()
    assert type(open_channel(ours, "client", "server", Options(), Meter())) is Channel
    note = lambda *_: None
    assert tracing.noting(None, "online", note) is note
    with open_parties(MODEL, "memory") as parties:
        parties.infer(images())
    assert parties.timelines == []


def test_a_timeline_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(tracing, "MOST_EVENTS", 3)
    timeline = Timeline("client")
    for _ in range(5):
        timeline.add(SEND, "to server", 0.0)
    assert (len(timeline.spans), timeline.left_out) == (3, 2)
    copy = Timeline.from_plain(json.loads(json.dumps(timeline.to_plain())))
    assert copy.spans == timeline.spans and copy.left_out == 2
    tracing.write(tmp_path / "t.json", [copy])
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["left_out"] == {"client": 2}


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="cannot be written"), tracing.traced(tmp_path, "client"):
        pass


def test_a_failed_session_leaves_its_timeline(tmp_path):
    path = tmp_path / "t.json"

    def fail() -> None:
        with tracing.traced(path, "client") as timeline:
            timeline.add(WAIT, "for server", 0.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(json.loads(path.read_text())["traceEvents"]) == 3
    with tracing.traced(None, "client") as nothing:
        assert nothing is None


def test_what_is_noted_while_it_is_written_comes_too_late(tmp_path):
    class Noted(list):
        def __iter__(self):
            yield from super().__iter__()
            self.append(tracing.Span(f"lane {len(self)}", LAYER, "conv", 1.0, 2.0, {}))

    timeline = Timeline("client")
    timeline.spans = Noted([tracing.Span("set-up", SEND, "to server", 0.0, 1.0, {})])
    tracing.write(tmp_path / "trace.json", [timeline])
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["process_name", "thread_name", "to server"]
