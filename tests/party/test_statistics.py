"""What parties say of themselves after an inference: no answer is lost with it, and no session is charged for another."""

import time

import numpy as np
import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.errors import RunError
from threepc.party import usage
from threepc.party.batches import infer_all
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.record import Record, merged, report
from threepc.party.session import SETTLING_S, Options
from threepc.transport.framing import Control

MODEL = small_model()
OPTIONS = Options(timeout=60.0)
ROLES = {"client", "server", "provider"}


class Losing(MemoryConnector):
    """Every connection on which a party would send control messages of one kind ends instead."""

    def __init__(self, kind):
        super().__init__()
        self.start = f'{{"kind": "{kind}"'.encode()

    def connect(self, role, tell=None):
        mine = super().connect(role)
        theirs, send = mine._other, mine._other.send

        def send_or_end(frames):
            if len(frames) > 1 and bytes(frames[1]).startswith(self.start):
                theirs.close()
            send(frames)

        theirs.send = send_or_end
        return mine


@pytest.mark.parametrize("kind, present", [("dealt", {"client"}), ("done", {"client", "provider"})])
def test_an_answer_that_was_computed_is_not_lost(kind, present):
    connector = Losing(kind)
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        outputs, record = infer_all(session.infer, MODEL.public, [images()])
        assert_close(MODEL, images(), outputs[:, :, None, None])
        assert "closed the connection" in record.incomplete and record.layers == [] and record.seconds["total"] > 0
        assert record.links["client->server"]["online"][1] > 0
        assert set(record.cpu_seconds) == present
        plain = report(MODEL.public, record, 1, None, session.setup_links, session.setup_seconds)
        assert plain["incomplete"] == record.incomplete
        with pytest.raises(RunError, match=r"this session is over: the .* closed the connection"):
            session.infer(images())


def test_nothing_is_computed_where_the_offline_phase_does_not_end():
    connector = Losing("dealt")
    refused = pytest.raises(RunError, match="closed the connection")
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session, refused:
        session.infer(images(), separate=True)


def test_a_party_that_is_gone_needs_no_goodbye():
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        with ClientSession(connector, OPTIONS) as session:
            logits, record = session.infer(images())
            for channel in session._channels:
                channel.connection._other.close()
        assert_close(MODEL, images(), logits)
        assert not record.incomplete


def test_a_whole_record_says_nothing_of_it():
    record = Record({"total": 1.0}, layers=[{"name": "a", "seconds": 1.0, "bytes": 2, "messages": 1}])
    assert "incomplete" not in report(MODEL.public, record, 1, None, {}, 0.0)
    total = merged([record, Record({"total": 2.0}, incomplete="the server is gone")])
    assert (total.seconds, total.layers, total.incomplete) == ({"total": 3.0}, [], "the server is gone")


def test_a_session_alone_knows_what_it_used(monkeypatch):
    monkeypatch.setattr(usage, "_sessions", usage._Sessions())
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        with ClientSession(connector, OPTIONS) as session:
            _, record = session.infer(images())
        assert set(record.cpu_seconds) == set(record.peak_rss_mb) == ROLES


def test_a_session_among_others_does_not_know(monkeypatch):
    """Processor time comes back when the other one has gone; a process's largest resident set does not."""
    monkeypatch.setattr(usage, "_sessions", usage._Sessions())
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS), ClientSession(connector, OPTIONS) as session:
        with ClientSession(connector, OPTIONS):
            _, among_others = session.infer(images())
            assert (among_others.cpu_seconds, among_others.peak_rss_mb) == ({}, {})
        while len(usage._sessions.now) > 1:
            time.sleep(0.01)
        _, alone = session.infer(images())
        assert (set(alone.cpu_seconds), alone.peak_rss_mb) == (ROLES, {})
        assert merged([among_others, alone]).cpu_seconds == {}


@pytest.mark.parametrize("forgets", (True, False))
def test_memory_is_that_of_the_session(monkeypatch, forgets):
    """The second session's peak begins with the session, or stays unknown where the operating system keeps no other."""
    counts = usage._Sessions()
    monkeypatch.setattr(usage, "_sessions", counts)
    if not forgets:
        monkeypatch.setattr(usage, "_forget_peak", lambda: False)
    with usage.counted(b"one"):
        large = np.ones(1 << 24)
        first = usage.Usage(b"one").fields()["peak_rss_mb"]
        assert first > large.nbytes / 1e6
    del large
    with usage.counted(b"two"):
        fields = usage.Usage(b"two").fields()
        assert ("peak_rss_mb" in fields) == forgets and fields.get("peak_rss_mb", 0) < first
        assert "cpu_seconds" in fields


@pytest.mark.parametrize("links", ("provider={rate}k/1G", "server=1G/{rate}k"))
def test_a_separate_offline_phase_ends_when_all_has_arrived(links):
    """Behind the provider's uplink, and behind the server's downlink, which alone the server knows."""
    connector, dealt = MemoryConnector(), MODEL.public.plan(1).cost.offline["provider->server"]
    options = Options.simulating("none", 60.0, OPTIONS.budget, 1, links.format(rate=round(8 * dealt / 0.3 / 1e3)))
    with serving(connector, MODEL, options), ClientSession(connector, options) as session:
        logits, record = session.infer(images(), separate=True)
    assert_close(MODEL, images(), logits)
    assert record.seconds["offline"] >= 0.29 and record.seconds["total"] >= record.seconds["offline"] + record.seconds["online"]


def test_nobody_waits_as_long_as_a_provider_says(monkeypatch):
    """A number of any size as the time at which all will have arrived."""
    connector, slept = MemoryConnector(), []
    options = Options.simulating("lan", 60.0, OPTIONS.budget, 1)
    with serving(connector, MODEL, options), ClientSession(connector, options) as session:
        ahead = session._begin(MODEL.public.plan(1))
        session._wait_for(ahead)
        ahead.dealt = Control("dealt", ahead.dealt.fields | {"arrives": 10**400}, [])
        monkeypatch.setattr(time, "sleep", slept.append)
        assert session._settled(ahead) >= 0
    assert max(slept) == SETTLING_S
