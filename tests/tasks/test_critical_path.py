"""The critical path of traces written by hand, where it is known, and of a real one, where it has no gaps."""

import itertools
import json

import pytest

from tests.party.parties import images, small_model
from threepc.errors import InputError
from threepc.party import tracing
from threepc.party.one_host import open_parties
from threepc.party.tracing import LAYER, SEND, WAIT, Span, Timeline
from threepc.tasks.critical_path import Piece, by_layer, critical_path, read_trace


def written(path, **spans):
    """The trace of parties with these spans: (lane, kind, name, began, ended, facts), times in milliseconds."""
    timelines = []
    for role, rows in spans.items():
        timelines.append(Timeline(role))
        timelines[-1].spans = [Span(lane, kind, name, began / 1e3, ended / 1e3, facts) for lane, kind, name, began, ended, facts in rows]
    tracing.write(path, timelines)
    return path


def message(link, number, phase="online"):
    return {"link": link, "phase": phase, "number": number, "op": 1, "bytes": 8}


def test_a_path_through_two_parties(tmp_path):
    """The client computes 0-10 and sends; the server hears it at 14, computes until 30 and answers; the client hears that at 33, ends at 35."""
    path = written(
        tmp_path / "t.json",
        client=[
            ("online", SEND, "to server", 10, 11, message("client>server", 1)),
            ("online", WAIT, "for server", 11, 33, message("server>client", 1)),
            ("online", LAYER, "conv", 0, 35, {"kind": "conv", "op": 1, "compute_us": 12000, "send_us": 1000, "wait_us": 22000}),
        ],
        server=[
            ("session", WAIT, "for client", 2, 14, message("client>server", 1)),
            ("session", SEND, "to client", 30, 31, message("server>client", 1)),
            ("session", LAYER, "conv", 1, 32, {"kind": "conv", "op": 1, "compute_us": 18000, "send_us": 1000, "wait_us": 12000}),
        ],
    )
    events = read_trace(path)
    assert critical_path(events) == [
        Piece("client", "compute", "conv", 0, 10000),
        Piece("client", "send", "conv", 10000, 11000),
        Piece("server", "on its way", "conv", 11000, 14000),
        Piece("server", "compute", "conv", 14000, 30000),
        Piece("server", "send", "conv", 30000, 31000),
        Piece("client", "on its way", "conv", 31000, 33000),
        Piece("client", "compute", "conv", 33000, 35000),
    ]
    assert by_layer(events) == {
        "conv": {"client": {"compute": 12000, "send": 1000, "wait": 22000}, "server": {"compute": 18000, "send": 1000, "wait": 12000}}
    }


def test_a_message_that_was_there_already_is_no_cause(tmp_path):
    path = written(
        tmp_path / "t.json",
        client=[
            ("online", WAIT, "for server", 20, 21, message("server>client", 1)),
            ("online", LAYER, "a", 0, 12, {"kind": "conv"}),
            ("online", LAYER, "b", 12, 30, {"kind": "relu"}),
        ],
        server=[("session", SEND, "to client", 3, 4, message("server>client", 1)), ("session", LAYER, "a", 2, 5, {"kind": "conv"})],
    )
    assert critical_path(read_trace(path)) == [
        Piece("client", "compute", "a", 0, 12000),
        Piece("client", "compute", "b", 12000, 20000),
        Piece("client", "wait", "b", 20000, 21000),
        Piece("client", "compute", "b", 21000, 30000),
    ]


def test_the_online_phase_waits_for_the_offline_one(tmp_path):
    path = written(
        tmp_path / "t.json",
        client=[
            ("offline", LAYER, "conv", 0, 8, {"kind": "conv"}),
            ("online", WAIT, "for the offline phase", 1, 9, {}),
            ("online", LAYER, "conv", 1, 10, {"kind": "conv"}),
        ],
    )
    assert [(piece.what, piece.began, piece.ended) for piece in critical_path(read_trace(path))] == [
        ("compute", 0, 8000),
        ("compute", 8000, 9000),
        ("compute", 9000, 10000),
    ]


def test_a_real_path_has_no_gaps(tmp_path):
    with open_parties(small_model(), "memory", traced=True) as parties:
        for _ in range(2):
            parties.infer(images())
    tracing.write(tmp_path / "t.json", parties.timelines)
    events = read_trace(tmp_path / "t.json")
    pieces = critical_path(events)
    layers = [event for event in events if event.kind == LAYER]
    assert pieces[0].began == min(event.began for event in layers)
    assert pieces[-1].ended == max(event.ended for event in layers if event.lane[0] == "client")
    assert all(one.ended == two.began for one, two in itertools.pairwise(pieces)) and all(piece.began < piece.ended for piece in pieces)
    assert {piece.party for piece in pieces} >= {"client", "server"}


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"traceEvents": [{"ph": "X"}]}', '{"traceEvents": 3}', '{"traceEvents": [{"ph": "M", "name": 1}]}']
)
def test_something_else_is_refused(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no trace of threepc's: 'threepc run --trace FILE' writes one"):
        read_trace(path)


def test_a_trace_without_an_inference_is_refused(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"traceEvents": []}))
    with pytest.raises(InputError, match="holds no inference"):
        read_trace(tmp_path / "t.json")
