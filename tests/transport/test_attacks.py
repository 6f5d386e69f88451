"""What strangers, and listed clients, may not do to a listener: fill its memory, or keep others out."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.transport.conftest import CLIENT, PATIENCE, SERVER
from threepc.errors import RunError
from threepc.transport.keys import KeyPair
from threepc.transport.wires import CONTROL_BYTES
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener

ATTACKER = KeyPair.new()
PROGRAM = Path(__file__).with_name("attacks.py")
MEBIBYTE = 1 << 20


@pytest.fixture
def listener():
    """Two keys are listed, the attacker's and another one's. Somebody always accepts, as a party does, and answers each message."""
    with Listener("tcp://127.0.0.1:0", keys=SERVER, authorised=[CLIENT.public, ATTACKER.public]) as listening:
        listening.accepted = []
        thread = threading.Thread(target=serve, args=(listening, listening.accepted))
        thread.start()
        yield listening
        listening.close()
        thread.join()


VICTIM = """
import resource, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_listener import Listener
public, secret, *clients = (text.encode() for text in sys.argv[1:])

def echo(connection):
    while True:
        connection.send(connection.receive())

with Listener("tcp://127.0.0.1:0", keys=KeyPair(public, secret), authorised=clients) as listener:
    print(listener.address, flush=True)
    while True:
        threading.Thread(target=echo, args=(listener.accept(),), daemon=True).start()
"""


@dataclass
class Victim:
    address: str


@pytest.fixture
def crowded():
    """The same in a process that may open 256 files, and 1024 when it asks."""
    keys = SERVER.public, SERVER.secret, CLIENT.public, ATTACKER.public
    command = [sys.executable, "-c", VICTIM, *(key.decode() for key in keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}) as process:
        yield Victim(process.stdout.readline().strip())
        process.kill()


def serve(listening, accepted):
    with contextlib.suppress(RunError):
        while True:
            accepted.append(listening.accept())
            if accepted[-1].peer == CLIENT.public:
                threading.Thread(target=echo, args=(accepted[-1],), daemon=True).start()


def echo(connection):
    with contextlib.suppress(RunError):
        while True:
            connection.send(connection.receive())


@contextlib.contextmanager
def attacked(listening, name):
    """While the attack goes on."""
    keys = ATTACKER.public, ATTACKER.secret, SERVER.public
    command = [sys.executable, PROGRAM, name, listening.address, *(key.decode() for key in keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}) as process:
        try:
            assert process.stdout.readline() == "under way\n"
            yield
        finally:
            process.kill()


def another(listening):
    return connect(listening.address, keys=CLIENT, server_key=SERVER.public, timeout=PATIENCE, name="the server")


def resident():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def grown(before, seconds, over=lambda: True):
    """By how much the resident set has grown at most until `over`, and so many seconds longer; at once when that is far too much."""
    longest, most, until = time.monotonic() + 6 * PATIENCE, 0, None
    while most < 512 * MEBIBYTE and (until is None or time.monotonic() < until):
        assert time.monotonic() < longest
        if until is None and over():
            until = time.monotonic() + seconds
        most = max(most, resident() - before)
        time.sleep(0.02)
    return most


@pytest.mark.parametrize("name, allowed", [("stuff", 50), ("creep", 300)])
def test_memory_is_not_filled_without_a_key(listener, name, allowed):
    before = resident()
    with attacked(listener, name), another(listener) as client:
        assert grown(before, 2) < allowed * MEBIBYTE
        client.send([b"still served"])
        assert client.receive(PATIENCE)[0] == b"still served"


@pytest.mark.parametrize("name, allowed", [("flood", 100), ("endless", 100), ("crumbs", 60), ("trickle", 20)])
def test_memory_is_not_filled_with_what_nobody_reads(listener, name, allowed):
    """Until the attacker is turned away, and after, when it goes on: `allowed` is for what arrives between two looks, and what keeps it."""
    before = resident()
    with attacked(listener, name), another(listener) as client:
        turned_away = lambda: any(each.peer == ATTACKER.public and each.has_ended for each in listener.accepted)
        assert grown(before, 2, turned_away) < CONTROL_BYTES + allowed * MEBIBYTE
        client.send([b"still served"])
        assert client.receive(PATIENCE)[0] == b"still served"


@pytest.mark.parametrize("name", ["half_open", "silent", "greedy"])
def test_nobody_is_kept_out(listener, name):
    with another(listener) as earlier, attacked(listener, name):
        for _ in range(5):
            with another(listener) as client:
                for connection in (earlier, client):
                    connection.send([b"still served"])
                    assert connection.receive(PATIENCE)[0] == b"still served"


def test_more_connections_than_files_may_be_open(crowded):
    with another(crowded) as earlier, attacked(crowded, "half_open"):
        for _ in range(5):
            with another(crowded) as client:
                for connection in (earlier, client):
                    connection.send([b"still served"])
                    assert connection.receive(PATIENCE)[0] == b"still served"
