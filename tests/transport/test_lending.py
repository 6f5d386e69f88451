"""Large frames go out from where they lie: whoever sends may forget them at once, and libzmq is waited for by nobody."""

import gc
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import zmq

from threepc.transport import lending
from threepc.transport.zmq_sockets import receive_frames, send_frames

PATIENCE = 60  # seconds; only a failing test waits that long


@pytest.fixture
def ends():
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        for end in (one, two):
            end.set_hwm(0)
        one.bind("inproc://lending")
        two.connect("inproc://lending")
        yield one, two


def is_gone(reference):
    deadline = time.monotonic() + PATIENCE
    while reference() is not None and time.monotonic() < deadline:
        lending.collect()
        gc.collect()  # an exception's traceback
        time.sleep(0.001)
    return reference() is None


def test_a_buffer_lives_as_long_as_libzmq_has_it(ends):
    one, two = ends
    array = np.arange(lending.LEAST, dtype=np.uint32)
    expected, reference = array.tobytes(), weakref.ref(array)
    send_frames(one, [b"first", array, array[:4], array[4:]], encrypted=False)
    del array
    lending.collect()
    assert reference() is not None
    received = receive_frames(two)
    assert [frame.bytes for frame in received] == [b"first", expected, expected[:16], expected[16:]]
    lending.collect()
    assert reference() is not None  # inproc hands over the buffer itself
    del received
    assert is_gone(reference)


def test_pieces_of_one_buffer_are_let_go_of_one_by_one(ends):
    one, two = ends
    array = np.zeros(5 << 20, np.uint8)
    reference = weakref.ref(array)
    send_frames(one, [array], encrypted=True)
    del array
    assert [len(frame) for frame in receive_frames(two)] == [1 << 20] * 5 + [0]
    assert is_gone(reference)


def test_more_buffers_than_there_are_places_for(ends):
    one, two = ends
    array = np.arange(lending.LEAST, dtype=np.uint8)
    for _ in range(lending.PLACES + 50):
        send_frames(one, [array], encrypted=False)
    for _ in range(lending.PLACES + 50):
        assert receive_frames(two)[0].bytes == array.tobytes()
    reference = weakref.ref(array)
    del array
    assert is_gone(reference)


def test_what_cannot_be_sent_is_let_go_of(ends):
    one, _ = ends
    array = np.zeros(lending.LEAST, np.uint8)
    reference = weakref.ref(array)
    with zmq.Context() as context, context.socket(zmq.PUSH) as nowhere, pytest.raises(zmq.ZMQError):
        send_frames(nowhere, [array], encrypted=False)
    one.close()
    with pytest.raises(zmq.ZMQError):
        send_frames(one, [array], encrypted=False)
    del array
    assert is_gone(reference)


def test_where_libzmq_is_hidden_pyzmq_sends(ends, monkeypatch):
    monkeypatch.setattr(lending, "_zmq_calls", None)
    one, two = ends
    array = np.arange(lending.LEAST, dtype=np.uint32)
    send_frames(one, [b"first", array], encrypted=False)
    assert [frame.bytes for frame in receive_frames(two)] == [b"first", array.tobytes()]


ENDING = """
import numpy as np, zmq, sys
from threepc.transport.zmq_sockets import send_frames
context = zmq.Context()
socket = context.socket(zmq.PAIR)
socket.set(zmq.LINGER, 0)
socket.connect(sys.argv[1])
for _ in range(200):
    send_frames(socket, [np.ones(1 << 18, np.uint8)], encrypted=False)
print("sent", flush=True)
"""


def test_a_process_ends_while_libzmq_still_sends(tmp_path):
    address = f"ipc://{tmp_path}/ending"
    with zmq.Context() as context, context.socket(zmq.PAIR) as end:
        end.bind(address)
        ended = subprocess.run([sys.executable, "-c", ENDING, address], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "sent\n", "")
