"""Control messages: JSON in, JSON out, and anything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.channels import channels
from threepc.errors import RunError


def test_control_messages_arrive_as_sent():
    client, server = channels()
    fields = {"ring": 48, "name": "é", "list": [1, None, {"deep": 0.5}]}
    client.send_control("hello", fields, [b"k" * 16, b""])
    control = server.receive_control("bye", "hello")
    assert (control.kind, control.fields, control.attachments) == ("hello", fields, [b"k" * 16, b""])
    assert "kkkk" not in repr(control)


def test_control_messages_may_be_of_another_attempt():
    client, server = channels()
    client.attempt = 3
    client.send_control("credit", {"bytes": 5})
    assert server.receive_control("credit").fields == {"bytes": 5}
    client.session = b"another_"
    client.send_control("credit", {})
    with pytest.raises(RunError, match=r"sent session [0-9a-f]{16} where it should be [0-9a-f]{16}$"):
        server.receive_control("credit")


def test_unexpected_control_kinds_are_named():
    client, server = channels()
    client.send_control("he\x1b[31mllo", {})
    with pytest.raises(RunError, match=r"sent 'he \[31mllo' where 'ready' or 'failed' was expected"):
        server.receive_control("ready", "failed")


@pytest.mark.parametrize(
    "text, words",
    [
        (b"{", "not strict JSON"),
        (b"\xff\xfe", "not strict JSON"),
        (b"[" * 100_000, "not strict JSON"),
        (b'{"kind": "a", "fields": {"x": NaN}}', "not strict JSON"),
        (b'{"kind": "a", "fields": {"x": 1, "x": 2}}', "not strict JSON"),
        (b'{"kind": "a", "kind": "b", "fields": {}}', "not strict JSON"),
        (b"[]", "without kind and fields"),
        (b'{"kind": "a"}', "without kind and fields"),
        (b'{"kind": "a", "fields": {}, "more": 1}', "without kind and fields"),
        (b'{"kind": 1, "fields": {}}', "whose kind is no text"),
        (b'{"kind": "a", "fields": []}', "fields are no mapping"),
    ],
)
def test_malformed_control_messages_are_refused(text, words):
    client, server = channels()
    client.send_control("a", {})
    header, _ = server.connection.receive(1)
    client.connection.send([header, text])
    with pytest.raises(RunError, match=words):
        server.receive_control("a")


plain = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_value_is_a_field(value):
    client, server = channels()
    client.send_control("a", {"value": value})
    assert server.receive_control("a").fields == json.loads(json.dumps({"value": value}))


def test_control_messages_have_a_size(monkeypatch):
    client, server = channels()
    with pytest.raises(ValueError, match="too large"):
        client.send_control("a", {}, [bytes(1 << 20), b"x"])
    with pytest.raises(ValueError, match="Out of range float values"):
        client.send_control("a", {"x": float("nan")})
    monkeypatch.setattr("threepc.transport.channel.CONTROL_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match="too large"):
        client.send_control("a", {"text": "x" * (1 << 20)})
    client.send_control("a", {"text": "x" * (1 << 19)})
    monkeypatch.setattr("threepc.transport.channel.CONTROL_LIMIT", 1 << 18)
    with pytest.raises(RunError, match="malformed control message"):
        server.receive_control("a")


@pytest.mark.parametrize(
    "change",
    [
        lambda header, frames: [header[:-2] + b"\0\0"],
        lambda header, frames: [header + b"\1", *frames],
        lambda header, frames: [header, frames[0], bytes(5)],
    ],
    ids=("without a text", "with a description", "with more attached than may be"),
)
def test_control_messages_are_a_text_and_a_few_bytes(change, monkeypatch):
    client, server = channels()
    client.send_control("a", {}, [b"key."])
    header, *frames = map(bytes, server.connection.receive(1))
    monkeypatch.setattr("threepc.transport.channel.ATTACHMENT_LIMIT", 4)
    client.connection.send([header, *frames])
    assert server.receive_control("a").attachments == [b"key."]
    server._received = 0
    client.connection.send(change(header, frames))
    with pytest.raises(RunError, match="sent a malformed control message"):
        server.receive_control("a")
