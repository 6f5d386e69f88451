"""A party that dies in the middle of an inference, or fails in a way of its own: all ends everywhere, and no value is told."""

import contextlib
import logging
import threading

import pytest

from tests.party.parties import images, serving, small_model
from threepc.errors import RunError
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.session import Options

MODEL, OPTIONS = small_model(), Options(timeout=60.0)


class Mortal(MemoryConnector):
    """All connections of one party close when the client sends its `moment`-th message in an inference."""

    def __init__(self, victim, moment):
        super().__init__()
        self.victim, self.left, self.ends, self.armed = victim, moment, {"client": [], "server": [], "provider": []}, False

    def connect(self, role, tell=None):
        mine = super().connect(role)
        # the server connects to the provider; whatever else is connected, the client does
        caller = "client" if role == "server" or self.ends["provider"] else "server"
        self.ends[caller].append(mine)
        self.ends[role].append(mine._other)
        send = mine.send
        if caller == "client":
            mine.send = lambda frames: self.strike() or send(frames)
        return mine

    def strike(self):
        if self.armed:
            self.left -= 1
            if self.left == 0:
                for end in self.ends[self.victim]:
                    end.close()


@pytest.mark.parametrize("moment", (1, 2, 4, 7, 10, 12))
@pytest.mark.parametrize("victim", ("client", "server", "provider"))
def test_a_death_in_the_middle_ends_everything(victim, moment, caplog):
    """`serving` sees to it that every thread of every party ends, long before a timeout."""
    connector = Mortal(victim, moment)
    with serving(connector, MODEL, Options(timeout=300.0)):
        session = ClientSession(connector, Options(timeout=300.0))
        connector.armed = True
        ended = "closed the connection|was closed on this side|ended the session"
        # the provider may have done all its work already: then its death is noticed by the next inference
        may_answer = contextlib.nullcontext() if victim == "provider" else pytest.raises(RunError, match=ended)
        with contextlib.suppress(RunError), may_answer:
            session.infer(images())
        with pytest.raises(RunError, match=ended):
            session.infer(images())
    assert "session ended" in caplog.text


@pytest.mark.parametrize(
    "place, told",
    [
        ("protocol.input_output.Input.serve", "the server ended the session: ZeroDivisionError in this party"),
        ("protocol.input_output.Input.infer", "the client ended the session: ZeroDivisionError in the client"),
        ("party.offered.Offer.find", "the server ended the session: ZeroDivisionError in this party"),
    ],
)
def test_reasons_carry_no_values(place, told, caplog, monkeypatch):
    """An error that is not threepc's own is told by its type alone: its text may quote what a party computed with."""

    def explode(*_):
        raise ZeroDivisionError("secret 12345")

    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    with caplog.at_level(logging.DEBUG), serving(connector := MemoryConnector(), MODEL, OPTIONS):
        session = None if "find" in place else ClientSession(connector, OPTIONS)
        monkeypatch.setattr(f"threepc.{place}", explode)
        with pytest.raises((RunError, ZeroDivisionError)) as caught:
            (session or ClientSession(connector, OPTIONS)).infer(images())
    heard = caplog.text + str(caught.value) * isinstance(caught.value, RunError)
    assert told in heard and "12345" not in heard
