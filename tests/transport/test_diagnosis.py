"""What a party says of a peer that it cannot reach: what is known, and no more."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from tests.transport.conftest import CLIENT, PATIENCE, SERVER
from threepc.errors import RunError
from threepc.transport import zmq_dealer, zmq_sockets
from threepc.transport.wires import WATCH_MS, Probe
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener


def reach(address, timeout=PATIENCE, tell=None):
    return connect(address, keys=CLIENT, server_key=SERVER.public, timeout=timeout, name="the server", tell=tell)


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def answering():
    """Listens, and answers each connection with a text; closes it then, or leaves it open."""
    opened = []

    def listen(text, hangs_up=True):
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                opened.append(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(text)
                    if hangs_up:
                        connection.recv(1000)
                        connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"

    yield listen
    for each in opened:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def test_nobody_listens(port):
    with pytest.raises(
        RunError, match=r"the server has not answered at tcp://.* for 0.2 s: its host refuses the connection: is it running there"
    ):
        reach(f"tcp://127.0.0.1:{port}", 0.2)


def test_a_name_that_nobody_has():
    with pytest.raises(RunError, match=r"has not answered at tcp://no-such-host.invalid:1 for 0.2 s: .*[Nn]ame"):
        reach("tcp://no-such-host.invalid:1", 0.2)


def test_a_peer_that_says_nothing(answering):
    address = answering(b"", hangs_up=False)
    with pytest.raises(RunError, match=r"has not answered at .* for 0.3 s: it accepts connections but says nothing: it has stopped"):
        reach(address, 0.3)


def test_a_peer_that_hangs_up(answering):
    with pytest.raises(RunError, match=r"^the server at tcp://.* hung up 5 times during the handshake: its log may say why$"):
        reach(answering(b""))


@pytest.mark.parametrize("hangs_up", [True, False])
@pytest.mark.parametrize("text", [b"220 mail.example.org ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n" * 10, bytes(100), b"\xff" * 100])
def test_another_program(answering, text, hangs_up):
    with pytest.raises(RunError, match="does not speak this protocol: another program listens there"):
        reach(answering(text, hangs_up), 1)


STOPPING = """
import sys, time
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_listener import Listener
address, public, secret, client = sys.argv[1:]
listener = Listener(address, keys=KeyPair(public.encode(), secret.encode()), authorised=[client.encode()])
print(listener.address, flush=True)
time.sleep(60)
"""


def test_a_stopped_process_is_not_said_to_have_another_key():
    command = [
        sys.executable,
        "-c",
        STOPPING,
        "tcp://127.0.0.1:0",
        *(key.decode() for key in (SERVER.public, SERVER.secret, CLIENT.public)),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        address = process.stdout.readline().strip()
        process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{process.pid}/task")
        wait_for(lambda: all(") T " in (thread / "stat").read_text() for thread in threads.iterdir()))
        try:
            with pytest.raises(RunError) as caught:
                reach(address, 1.0)
        finally:
            process.kill()
    assert "it accepts connections but says nothing" in str(caught.value) and "key" not in str(caught.value)


def test_somebody_is_told_for_whom_one_waits(port, monkeypatch):
    monkeypatch.setattr(zmq_dealer, "_PATIENCE_S", 0.1)
    address, told, heard = f"tcp://127.0.0.1:{port}", [], threading.Event()

    def tell(text):
        told.append(text)
        heard.set()

    def listen():
        heard.wait(PATIENCE)
        with Listener(address, keys=SERVER, authorised=[CLIENT.public]) as listener:
            listener.accept(PATIENCE).receive(PATIENCE)

    thread = threading.Thread(target=listen)
    thread.start()
    with reach(address, tell=tell) as client:
        client.send([b"here"])
    thread.join()
    assert told[0].startswith(f"waiting for the server at {address}, ") and "its host refuses the connection" in told[0]


def test_who_tells_may_end_the_wait(port, monkeypatch):
    monkeypatch.setattr(zmq_dealer, "_PATIENCE_S", 0.0)

    def leave(text):
        raise RunError("the client has gone")

    with pytest.raises(RunError, match="the client has gone"):
        reach(f"tcp://127.0.0.1:{port}", tell=leave)


def test_a_socket_that_cannot_be_made_leaves_nothing_behind(monkeypatch, tcp):
    def fail(*_):
        raise zmq.ZMQError(errno.EMFILE)

    before = open_files()
    for what in (zmq.Socket, "get_monitor_socket"), (zmq_dealer, "Waker"), (zmq_sockets, "new_socket"), (zmq_dealer, "_handshake"):
        with monkeypatch.context() as patched:
            patched.setattr(*what, fail)
            failures = []
            thread = threading.Thread(target=lambda failures=failures: failures.append(failure_of(tcp.listener.address)), daemon=True)
            thread.start()
            thread.join(PATIENCE)
            assert failures and "Too many open files" in failures[0]
    deadline = time.monotonic() + PATIENCE
    while open_files() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_files() <= before


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def failure_of(address):
    with pytest.raises(RunError) as caught:
        reach(address)
    return str(caught.value)


CROWDED = """
import resource, sys
from threepc.errors import RunError
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_dealer import connect
address, public, secret, server = sys.argv[1:]
keys = KeyPair(public.encode(), secret.encode())
made = refused = 0
for limit in range(10, 120):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
    try:
        connect(address, keys=keys, server_key=server.encode(), timeout=10).close()
        made += 1
    except RunError as error:
        assert "can open no more connections: Too many open files" in str(error), error
        refused += 1
print(made > 0, refused > 0)
"""


def test_a_process_with_too_many_files_open_is_refused_and_lives(tcp):
    command = [
        sys.executable,
        "-c",
        CROWDED,
        tcp.listener.address,
        *(key.decode() for key in (CLIENT.public, CLIENT.secret, SERVER.public)),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr


@pytest.mark.parametrize("reads", ("listener", "dealer"))
def test_who_leaves_too_much_unread_says_so(tcp, reads):
    dealer, accepted = tcp.pair()
    sender, reader = (dealer, accepted) if reads == "listener" else (accepted, dealer)
    allowed = 8 if reads == "listener" else 64  # who listens does not know yet whether a session comes of it
    with sender, reader:
        with contextlib.suppress(RunError):  # it may be cut off before the last of them
            for _ in range(allowed + 16):
                sender.send([bytes(1 << 20)])
        wait_for(lambda: reader.has_ended)
        with pytest.raises(RunError, match=rf"sent more than the {allowed} MiB that may wait to be read here$"):
            receive_to_the_end(reader)
        told = "ends the connection: more was sent than may wait to be read there" if reads == "listener" else "closed the connection"
        with pytest.raises(RunError, match=told):
            sender.receive(PATIENCE)


def receive_to_the_end(connection):
    while True:
        connection.receive(PATIENCE)


@pytest.mark.parametrize("reads", ("listener", "dealer"))
def test_as_much_as_is_allowed_may_stay_unread(tcp, reads):
    dealer, accepted = tcp.pair()
    sender, reader = (dealer, accepted) if reads == "listener" else (accepted, dealer)
    with sender, reader, contextlib.closing(Probe()) as probe:
        reader.allow(80 << 20)
        for _ in range(80):
            sender.send([bytes(1 << 20)])
        wait_for(lambda: probe.received(reader.wire.descriptor) > 80 << 20)
        time.sleep(3 * WATCH_MS / 1000)
        assert sum(len(reader.receive(PATIENCE)[0]) for _ in range(80)) == 80 << 20


def wait_for(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
