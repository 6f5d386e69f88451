"""What a peer says in a control message is taken only where it is what it should be."""

import pytest

from tests.party.parties import Stranger, serving, small_model, told_model
from threepc.errors import RunError
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


def test_a_server_deals_with_no_provider_that_confirms_another_model():
    """Client and provider may agree on what they read of it, and the server not."""
    connector, model = MemoryConnector(), small_model()
    stranger, providers = Stranger(connector), connector.listen("provider")
    with serving(connector, model, Options(timeout=60.0), provider=False):
        online = stranger.greet("server", purpose="online")
        provider = Channel(providers.accept(60.0), ("provider", "server"), timeout=60.0)
        assert provider.receive_control("hello").fields["model"] == told_model(online).to_plain()
        stranger.greet("server", purpose="offline")
        online.send_control("opened", {})
        provider.session = stranger.session
        provider.send_control("ready", {"fingerprint": "f" * 64})
        with pytest.raises(RunError, match="the provider confirmed another model"):
            online.receive_control("ready")
