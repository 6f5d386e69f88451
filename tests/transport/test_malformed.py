"""Messages that were changed on their way are refused by name, whatever has changed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.channels import LAYOUT, PARTS, channels
from threepc.errors import RunError
from threepc.transport.channel import Channel
from threepc.transport.framing import HEADER_BYTES

PHASE_BYTE = 7  # of a header; receivers compare every other byte with what they expect


def tampered(change) -> Channel:
    """The receiving channel of one good message whose frames went through `change`."""
    client, server = channels()
    client.send(12, PARTS, "online")
    frames = server.connection.receive(1)
    client.connection.send(change([bytearray(frame) for frame in frames]))
    return server


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

    with pytest.raises(RunError, match=f"but the client at memory sent the unknown phase {phase}$"):
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
        (
            lambda frames: [frames[0][:4] + b"\x63\0" + frames[0][6:], *frames[1:]],
            r"protocol version 99, this is version \d+: install the same",
        ),
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
