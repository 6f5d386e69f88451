"""What a peer says in a control message is taken only where it is what it should be."""

import pytest

from tests.party.parties import serving, small_model
from threepc.errors import RunError
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.session import Options, all_measured, measured, number_field, session_field, text_field
from threepc.transport.channel import Channel
from threepc.transport.framing import Control

HUGE = 10**400
"""A number that JSON can write and floats cannot hold."""


@pytest.mark.parametrize(
    "read, good, bad",
    [
        (text_field, "online", (None, 3, ["online"])),
        (number_field, 7, (None, -1, 1.0, True, "7")),
        (measured, 1.5, (None, -0.5, True, "1.5", HUGE, float("nan"), [1.5])),
        (lambda control, name: all_measured(control, name, 2), [1, 2.5], (None, [1], [1, 2, 3], [1, "2"], [1, HUGE], {"0": 1, "1": 2})),
    ],
)
def test_fields(read, good, bad):
    assert read(Control("done", {"it": good}), "it") == good
    for fields in ({}, *({"it": value} for value in bad)):
        with pytest.raises(RunError, match="a 'done' message without a proper 'it'"):
            read(Control("done", fields), "it")


@pytest.mark.parametrize("value", ["", "00" * 7, "00" * 9, "zz" * 8])
def test_a_session_identifier_has_eight_bytes(value):
    assert session_field(Control("hello", {"session": "0f" * 8})) == b"\x0f" * 8
    with pytest.raises(RunError, match="a greeting without a proper session identifier"):
        session_field(Control("hello", {"session": value}))


@pytest.mark.parametrize("told", ("client", "server"))
def test_a_provider_that_confirms_another_model_ends_the_session(told, monkeypatch):
    """To one of the two alone: the other one's check does not stand in for it."""
    connector, options, send = MemoryConnector(), Options(timeout=20.0), Channel.send_control

    def lie(channel, kind, fields, attachments=()):
        lies = kind == "ready" and channel.link == ("provider", told)
        send(channel, kind, {"fingerprint": "f" * 64} if lies else fields, attachments)

    monkeypatch.setattr(Channel, "send_control", lie)
    with serving(connector, small_model(), options), pytest.raises(RunError, match="the provider confirmed another model"):
        ClientSession(connector, options).close()
