"""Channels over the in-memory connection: what goes in comes out, and anything else is refused by name."""

import json
import struct
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import RunError
from threepc.transport.channel import Channel
from threepc.transport.connection import NoAnswer
from threepc.transport.framing import HEADER_BYTES
from threepc.transport.memory import pair
from threepc.transport.meter import Meter
from threepc.transport.shaping import Shaper

LAYOUT = [(np.uint64, (2, 3)), (np.uint8, (5,))]
PARTS = [np.arange(6, dtype=np.uint64).reshape(2, 3), np.arange(5, dtype=np.uint8)]
SESSION = b"session1"

# Where the fields of a header lie that receivers do not compare with something they know.
PHASE_BYTE, ARRIVAL_BYTES = 7, range(32, 40)


def channels(**settings) -> tuple[Channel, Channel]:
    one, two = pair()
    return (
        Channel(one, ("client", "server"), SESSION, Meter(), timeout=5, **settings),
        Channel(two, ("server", "client"), SESSION, Meter(), timeout=5, **settings),
    )


def tampered(change) -> Channel:
    """The receiving channel of one good message whose frames went through `change`."""
    client, server = channels()
    client.send(12, PARTS, "online")
    frames = server.connection.receive(1)
    client.connection.send(change([bytearray(frame) for frame in frames]))
    return server


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
dtypes = st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64])


@given(st.lists(st.tuples(dtypes, shapes), max_size=4), st.integers(0, 2**32 - 1), st.integers(0, 2**24 - 1))
def test_arrays_arrive_as_sent(layout, attempt, op):
    client, server = channels()
    client.attempt = server.attempt = attempt
    parts = [np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape) for dtype, shape in layout]
    client.send(op, parts, "online")
    for sent, got in zip(parts, server.receive(op, layout), strict=True):
        assert got.dtype == sent.dtype and got.shape == sent.shape and (got == sent).all()
        assert not got.flags.writeable and got.flags.aligned


def test_memory_channels_do_not_copy():
    client, server = channels()
    array = np.arange(100, dtype=np.uint64)
    client.send(1, [array], "online")
    assert np.shares_memory(server.receive(1, [(np.uint64, (100,))])[0], array)


def test_messages_keep_their_order_between_threads():
    client, server = channels()
    sums = []

    def serve():
        for op in range(200):
            (array,) = server.receive(op, [(np.uint32, (3,))])
            server.send(op, [array + np.uint32(1)], "online")

    thread = threading.Thread(target=serve)
    thread.start()
    for op in range(200):
        client.send(op, [np.full(3, op, np.uint32)], "online")
        sums.append(int(client.receive(op, [(np.uint32, (3,))])[0].sum()))
    thread.join()
    assert sums == [3 * (op + 1) for op in range(200)]


@pytest.mark.parametrize("part", [np.zeros(3), np.zeros(3, np.int64), np.zeros(3, bool), np.zeros(3, object)])
def test_other_dtypes_do_not_travel(part):
    with pytest.raises(ValueError, match="do not travel"):
        channels()[0].send(1, [part], "online")


def test_strided_arrays_and_unknown_phases_are_refused():
    client, _ = channels()
    with pytest.raises(ValueError, match="C-contiguous"):
        client.send(1, [np.zeros((4, 4), np.uint64).T[:, :2]], "online")
    with pytest.raises(ValueError, match="setup, offline, online"):
        client.send(1, PARTS, "onlien")


@pytest.mark.parametrize(
    "op, layout, words",
    [
        (13, LAYOUT, "expected op 13 of attempt 0, but the client at memory sent op 12 where it should be 13"),
        (12, LAYOUT[:1], r"op 12 of attempt 0 of uint64\[2, 3\], but .* sent uint64\[2, 3\], uint8\[5\]"),
        (12, [LAYOUT[0], (np.uint16, (5,))], r"uint16\[5\], but .* uint8\[5\]"),
        (12, [(np.uint64, (3, 2)), LAYOUT[1]], r"uint64\[3, 2\], uint8"),
        (12, [(np.uint64, (6,)), LAYOUT[1]], r"uint64\[6\]"),
        (12, [], "of no arrays, but"),
    ],
)
def test_a_receiver_that_expects_something_else_says_so(op, layout, words):
    client, server = channels()
    client.send(12, PARTS, "online")
    with pytest.raises(RunError, match=words):
        server.receive(op, layout)


@pytest.mark.parametrize("name, value, shown", [("session", b"session2", SESSION.hex()), ("attempt", 3, "attempt 0 where it should be 3")])
def test_session_and_attempt_must_agree(name, value, shown):
    client, server = channels()
    setattr(server, name, value)
    client.send(12, PARTS, "online")
    with pytest.raises(RunError, match=shown):
        server.receive(12, LAYOUT)


def test_a_repeated_message_is_refused():
    client, server = channels()
    client.send(12, PARTS, "online")
    frames = server.connection.receive(1)
    client.connection.send(frames)
    client.connection.send(frames)
    server.receive(12, LAYOUT)
    with pytest.raises(RunError, match="sequence number 0 where it should be 1"):
        server.receive(12, LAYOUT)


def test_a_lost_message_is_noticed():
    client, server = channels()
    for _ in range(2):
        client.send(12, PARTS, "online")
    server.connection.receive(1)
    with pytest.raises(RunError, match="sequence number 1 where it should be 0"):
        server.receive(12, LAYOUT)


def test_kinds_are_not_confused():
    client, server = channels()
    client.send_control("hello", {})
    with pytest.raises(RunError, match="kind of message 1 where it should be 0"):
        server.receive(12, LAYOUT)
    client, server = channels()
    client.send(12, PARTS, "online")
    with pytest.raises(RunError, match="expected a control message, but the client at memory sent kind of message 0 "):
        server.receive_control("hello")


@given(st.data())
def test_every_changed_byte_of_a_header_is_refused(data):
    length = HEADER_BYTES + len(struct.pack("<BBQQBBQ", 0, 0, 0, 0, 0, 0, 0))
    position = data.draw(st.sampled_from([i for i in range(length) if i != PHASE_BYTE]))
    flip = data.draw(st.integers(1, 255))

    def change(frames):
        assert len(frames[0]) == length
        frames[0][position] ^= flip
        return frames

    with pytest.raises(RunError):
        tampered(change).receive(12, LAYOUT)


@given(st.integers(3, 255))
def test_unknown_phases_are_refused(phase):
    def change(frames):
        frames[0][PHASE_BYTE] = phase
        return frames

    with pytest.raises(RunError, match="phase"):
        tampered(change).receive(12, LAYOUT)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_garbage_is_refused(frames):
    server = tampered(lambda _: frames)
    with pytest.raises(RunError):
        server.receive(12, LAYOUT)


@given(st.data())
def test_garbage_behind_a_good_header_is_refused(data):
    def change(frames):
        header = frames[0][: data.draw(st.integers(HEADER_BYTES, len(frames[0])))] + data.draw(st.binary(min_size=0, max_size=40))
        if header == frames[0]:
            header += b"\0"
        return [header, *frames[1:]]

    with pytest.raises(RunError):
        tampered(change).receive(12, LAYOUT)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda frames: frames[:2], "number of frames 2 where it should be 1"),
        (lambda frames: [*frames, b"more"], "number of frames 2 where it should be 3"),
        (lambda frames: [frames[0], frames[1][:-1], frames[2]], r"an array of \[2, 3\] came from .* in 47 bytes"),
        (lambda frames: [frames[0], frames[1] + b"\0" * 8, frames[2]], "in 56 bytes"),
        (lambda frames: [frames[0], frames[1], b""], "in 0 bytes"),
        (lambda frames: [frames[0][:20]], "no message of this protocol"),
        (lambda frames: [b"GET / HTTP/1.1" * 10], "no message of this protocol"),
        (lambda frames: [frames[0][:4] + b"\2\0" + frames[0][6:], *frames[1:]], "protocol version 2, this is version 1: install the same"),
        (lambda frames: [frames[0][:6] + b"\x09" + frames[0][7:], *frames[1:]], "unknown kind 9"),
        (lambda frames: [frames[0][:40] + b"\xff\xff" + frames[0][42:], *frames[1:]], "number of frames 65535"),
        (lambda frames: [frames[0][:32] + b"\1" + frames[0][33:], *frames[1:]], "network simulation True where it should be False"),
        (lambda frames: [frames[0][:42] + b"\7" + frames[0][43:], *frames[1:]], "unreadable arrays"),
    ],
)
def test_bad_messages_are_named(change, words):
    with pytest.raises(RunError, match=words):
        tampered(change).receive(12, LAYOUT)


def test_payload_is_not_the_channel_s_business():
    server = tampered(lambda frames: [frames[0], bytes(48), frames[2]])
    assert not server.receive(12, LAYOUT)[0].any()


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
    with pytest.raises(RunError, match="session"):
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
    with pytest.raises(ValueError):
        client.send_control("a", {"x": float("nan")})
    monkeypatch.setattr("threepc.transport.channel.CONTROL_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match="too large"):
        client.send_control("a", {"text": "x" * (1 << 20)})
    client.send_control("a", {"text": "x" * (1 << 19)})
    monkeypatch.setattr("threepc.transport.channel.CONTROL_LIMIT", 1 << 18)
    with pytest.raises(RunError, match="malformed control message"):
        server.receive_control("a")


def test_an_abort_reaches_a_pending_receive():
    client, server = channels()
    seen = []

    def wait():
        with pytest.raises(RunError) as caught:
            server.receive(12, LAYOUT)
        seen.append(str(caught.value))

    thread = threading.Thread(target=wait)
    thread.start()
    client.abort("the model is another one\n")
    thread.join()
    assert seen == ["the client ended the session: the model is another one "]


def test_an_abort_reaches_the_next_receive_whatever_it_waits_for():
    client, server = channels()
    client.send_control("hello", {})
    client.session, client.attempt = b"another_", 9
    client.abort("x" * 1000)
    server.receive_control("hello")
    with pytest.raises(RunError, match="^the client ended the session: x{400}$"):
        server.receive_control("hello")


def test_an_abort_to_someone_who_left_is_silent():
    client, server = channels()
    server.close()
    client.abort("too late")
    with pytest.raises(RunError, match="the server at memory closed the connection"):
        client.send(1, PARTS, "online")


def test_what_was_sent_before_the_end_is_received():
    client, server = channels()
    with client:
        client.send(12, PARTS, "online")
    server.receive(12, LAYOUT)
    for _ in range(2):
        with pytest.raises(RunError, match="the client at memory closed the connection"):
            server.receive(12, LAYOUT)


def test_closing_wakes_one_s_own_receiver():
    client, _ = channels()
    seen = []

    def wait():
        with pytest.raises(RunError, match="was closed on this side"):
            client.receive(12, LAYOUT, timeout=None)
        seen.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    client.close()
    thread.join()
    client.close()
    with pytest.raises(RunError, match="was closed on this side"):
        client.send(1, PARTS, "online")
    assert seen == [True]


def test_silence_is_named_and_may_end():
    client, server = channels()
    with pytest.raises(NoAnswer, match="the client at memory has not answered for 0 s: expected op 12 of attempt 0"):
        server.receive(12, LAYOUT, timeout=0)
    server.timeout = 0
    with pytest.raises(NoAnswer, match="expected a control message"):
        server.receive_control("hello")
    client.send(12, PARTS, "online")
    server.receive(12, LAYOUT)


def test_both_meters_count_the_payload_exactly():
    client, server = channels()
    client.send(12, PARTS, "offline")
    server.receive(12, LAYOUT)
    server.send(3, [np.zeros(7, np.uint16)], "online")
    client.receive(3, [(np.uint16, (7,))])
    client.send_control("done", {}, [b"12345678"])
    server.receive_control("done")
    assert client.meter.counts() == server.meter.counts()
    assert client.meter.as_report() == server.meter.as_report()
    report = client.meter.as_report()
    assert report["bytes"] == {"setup": 0, "offline": 53, "online": 14, "total": 67}
    assert report["links"]["client->server"] == {
        "setup": 0,
        "offline": 53,
        "online": 0,
        "total": 53,
        "messages": {"setup": 0, "offline": 1, "online": 0},
        "overhead": HEADER_BYTES + 18 + 10 + HEADER_BYTES + len(json.dumps({"kind": "done", "fields": {}})) + 8,
    }


class FakeClock:
    """Time that passes only while someone sleeps."""

    def __init__(self):
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def test_shaped_channels_deliver_when_the_link_would_have():
    clock = FakeClock()
    client, server = channels(shaper=Shaper(8e6, 0.25, clock, clock.sleep))  # a byte takes one microsecond
    start = clock.now
    size = HEADER_BYTES + 18 + 10 + 53
    for _ in range(2):
        client.send(12, PARTS, "online")
    assert clock.now == start
    server.receive(12, LAYOUT)
    assert clock.now - start == 250_000_000 + 1000 * size
    server.receive(12, LAYOUT)
    assert clock.now - start == 250_000_000 + 2000 * size


def test_a_shaped_message_beyond_the_timeout_comes_later():
    clock = FakeClock()
    client, server = channels(shaper=Shaper(1e9, 30, clock, clock.sleep))
    client.send(12, PARTS, "online")
    with pytest.raises(NoAnswer, match="has not answered for 5 s"):
        server.receive(12, LAYOUT)
    server.receive(12, LAYOUT, timeout=60)


def test_one_sided_simulation_is_refused():
    one, two = pair()
    client = Channel(one, ("client", "server"), shaper=Shaper(1e9, 0))
    server = Channel(two, ("server", "client"))
    client.send(1, [], "online")
    with pytest.raises(RunError, match="network simulation"):
        server.receive(1, [])
    server.send(1, [], "online")
    with pytest.raises(RunError, match="network simulation False"):
        client.receive(1, [])
