"""Channels over the in-memory connection: what goes in comes out, and a message that nobody expects is refused by name."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.channels import LAYOUT, PARTS, SESSION, channels
from threepc.errors import RunError
from threepc.transport.channel import Channel
from threepc.transport.connection import NoAnswerError
from threepc.transport.framing import HEADER_BYTES
from threepc.transport.memory import pair
from threepc.transport.meter import Count
from threepc.transport.shaping import Shaper

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
    with pytest.raises(RunError, match=r"^the client ended the session: x{400}$"):
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
    with pytest.raises(NoAnswerError, match="the client at memory has not answered for 0 s: expected op 12 of attempt 0"):
        server.receive(12, LAYOUT, timeout=0)
    server.timeout = 0
    with pytest.raises(NoAnswerError, match="expected a control message"):
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
    expected = {(("client", "server"), "offline", 12): Count(53, 1), (("server", "client"), "online", 3): Count(14, 1)}
    assert client.meter.counts() == server.meter.counts() == expected


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
    with pytest.raises(NoAnswerError, match="has not answered for 5 s"):
        server.receive(12, LAYOUT, timeout=5)
    server.receive(12, LAYOUT)


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


def test_two_threads_send_at_once(monkeypatch):
    a, b = channels()
    send, second, entered = a.connection.send, threading.Thread(target=a.send, args=(1, PARTS, "offline")), threading.Event()

    def send_while_another_one_wants_to(frames):
        if second.ident is None:
            second.start()
            entered.wait(0.1)
        else:
            entered.set()
        send(frames)

    monkeypatch.setattr(a.connection, "send", send_while_another_one_wants_to)
    a.send(0, PARTS, "offline")
    second.join()
    for op in range(2):
        b.receive(op, LAYOUT)
