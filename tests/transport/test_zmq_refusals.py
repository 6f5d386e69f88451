"""What ZeroMQ links must refuse: wrong keys, strangers, open directories, addresses in use, too many connections."""

import contextlib
import os
import queue
import socket
import sys
import threading

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from threepc.errors import InputError, RunError
from threepc.transport import zmq_sockets
from threepc.transport.addresses import is_tcp
from threepc.transport.keys import KeyPair, is_key
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener

SERVER, CLIENT, STRANGER = KeyPair.new(), KeyPair.new(), KeyPair.new()
PATIENCE = 60  # seconds; only a failing test waits that long


def test_nobody_listens(private):
    with pytest.raises(RunError, match=r"the server has not answered at ipc://.* for 0.1 s: is it running"):
        connect(f"ipc://{private}/nobody", timeout=0.1, name="the server")


def test_a_listener_that_never_shakes_hands():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RunError, match="has not answered at"):
            connect(address, keys=CLIENT, server_key=SERVER.public, timeout=0.2)


def test_a_listener_of_another_kind():
    context = zmq.Context()
    plain = context.socket(zmq.ROUTER)
    port = plain.bind_to_random_port("tcp://127.0.0.1")
    try:
        with pytest.raises(RunError, match="does not speak this protocol: another program listens there"):
            connect(f"tcp://127.0.0.1:{port}", keys=CLIENT, server_key=SERVER.public, timeout=PATIENCE)
    finally:
        context.destroy(0)


def test_a_wrong_server_key(tcp):
    refusals = queue.SimpleQueue()
    tcp.listener.on_refusal = refusals.put
    with pytest.raises(
        RunError, match=r"the server at tcp://.* cannot read what is encrypted for its public key here, so that is not the one it has"
    ):
        tcp.connect(server_key=STRANGER.public)
    assert refusals.get(timeout=PATIENCE) == "somebody has another public key for this party than its own, and is turned away"
    assert tcp.listener.accept(0) is None


def test_an_unauthorised_client(tcp):
    refusals = queue.SimpleQueue()
    tcp.listener.on_refusal = refusals.put
    with pytest.raises(RunError, match=r"the server at tcp://.* does not accept this party's public key: add it to .* deployment.yaml"):
        tcp.connect(keys=STRANGER)
    assert refusals.get(timeout=PATIENCE) == f"a key that is not listed is turned away: {STRANGER.public.decode()} of 127.0.0.1"
    assert tcp.listener.accept(0) is None
    client, _ = tcp.pair()  # the listener goes on
    client.close()


def test_a_public_key_without_its_secret(tcp):
    with pytest.raises(RunError, match=r"cannot read what is encrypted|does not accept"):
        tcp.connect(keys=KeyPair(tcp.client_keys.public, STRANGER.secret))


def test_plaintext_does_not_get_in(tcp):
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    failures = (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)  # whichever side hangs up first
    monitor = plain.get_monitor_socket(sum(failures) | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    try:
        plain.connect(tcp.listener.address)
        plain.send(b"")
        assert monitor.poll(PATIENCE * 1000)
        assert int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder) in failures
        assert tcp.listener.accept(0) is None
    finally:
        plain.disable_monitor()
        context.destroy(0)


@pytest.mark.parametrize("keys", [None, KeyPair(b"short", b"short"), KeyPair(CLIENT.public, b"")])
def test_tcp_without_keys_is_refused(keys):
    with pytest.raises(InputError, match="needs a key pair, as TCP is always encrypted: 'threepc keygen DIR'"):
        Listener("tcp://127.0.0.1:0", keys=keys)
    with pytest.raises(InputError, match="needs a key pair"):
        connect("tcp://127.0.0.1:1", keys=keys, server_key=SERVER.public)


@pytest.mark.parametrize("server_key", [None, b"", b"~" * 40])
def test_tcp_without_the_servers_key_is_refused(server_key):
    with pytest.raises(InputError, match="cannot be recognised without its public key"):
        connect("tcp://127.0.0.1:1", keys=CLIENT, server_key=server_key)


def test_malformed_authorised_keys_are_refused():
    with pytest.raises(InputError, match="no CURVE key"):
        Listener("tcp://127.0.0.1:0", keys=SERVER, authorised=[CLIENT.public, b"nonsense"])


def test_authorised_keys_change_while_it_listens(tcp):
    client, server = tcp.pair()
    with pytest.raises(RunError, match="does not accept this party's public key"):
        tcp.connect(keys=STRANGER)
    tcp.listener.set_authorised([STRANGER.public])
    with client, pytest.raises(RunError, match=r"the server at .* accepts this party's public key no longer"):
        client.receive(PATIENCE)
    with pytest.raises(RunError, match="is authorised no longer"):
        server.receive(PATIENCE)
    with pytest.raises(RunError, match="does not accept this party's public key"):
        tcp.connect()
    with tcp.connect(keys=STRANGER) as stranger, tcp.listener.accept(PATIENCE) as welcomed:
        with pytest.raises(InputError, match="no CURVE key"):
            tcp.listener.set_authorised([b"nonsense"])
        welcomed.send([b"as before"])
        assert stranger.receive(PATIENCE)[0].tobytes() == b"as before"


def test_a_key_revoked_before_its_connection_is_accepted(tcp):
    """Its handshake is over, its greeting perhaps not read yet: it is turned away all the same."""
    client = tcp.connect()
    tcp.listener.set_authorised([])
    assert tcp.listener.accept(0.2) is None
    with client, pytest.raises(RunError, match="accepts this party's public key no longer"):
        client.receive(PATIENCE)


def test_a_message_under_another_key_is_none_of_the_connection(tcp, monkeypatch):
    """As where a peer has gone, and another one takes the name that it had at the socket before its loss is known."""
    client, server = tcp.pair()
    monkeypatch.setattr(zmq_sockets, "user_id", lambda _: STRANGER.public)
    client.send([b"of somebody else"])
    with client, server:
        for _ in range(3):
            with pytest.raises(RunError, match="was taken over by another key"):
                server.receive(PATIENCE)
            server.deliver([memoryview(b"after the end")])


def test_who_was_told_goodbye_is_heard_no_more(tcp):
    """It may be slow to hang up, or never do; a second greeting would be another connection."""
    client, server = tcp.pair()
    server.close()
    zmq_sockets.send_frames(client._socket, zmq_sockets.HELLO, True)
    with client, tcp.pair()[0]:  # whose greeting comes behind that
        assert tcp.listener.accept(0) is None


def test_a_goodbye_cannot_disturb_a_terminal(link):
    client, server = link.pair()
    zmq_sockets.send_frames(client._socket, [b"", b"left \x1b[2J" + b"x" * 1000], link.encrypted)
    with client, server, pytest.raises(RunError, match=r" left  \[2Jx{100,200}$"):
        server.receive(PATIENCE)


def test_a_message_of_too_many_frames_is_cut_short(monkeypatch):
    monkeypatch.setattr(zmq_sockets, "FRAMES_LIMIT", 3)
    with zmq.Context() as context, context.socket(zmq.PAIR) as here, context.socket(zmq.PAIR) as there:
        here.bind("inproc://frames")
        there.connect("inproc://frames")
        for count in (3, 9):
            there.send_multipart([bytes([i]) for i in range(count)])
            assert [frame.bytes[0] for frame in zmq_sockets.receive_frames(here)] == [0, 1, count - 1]


@pytest.mark.parametrize(
    "address", ["tcp://host:0", "tcp://a_b.c-d.:7000", "tcp://10.0.0.1:1", "tcp://xn--mller-kva.invalid:7000", "tcp://[2001:db8::1]:65535"]
)
def test_hosts_as_they_may_be_written(address):
    assert is_tcp(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:7000",
        "tcp://host",
        "tcp://host:99999",
        "tcp://*:7000",
        "ipc://relative",
        "ipc:///a\nb",
        "ipc:///a\0b",
        "ipc:///a\udc80b",
        "inproc://x",
        "udp://h:1",
        "tcp://a..b!!:7000",
        "tcp://müller.invalid:7000",
        "tcp://-a:7000",
        "tcp://a.-b:7000",
        f"tcp://{'a' * 64}:7000",
        f"tcp://{'.'.join(['a' * 63] * 4)}:7000",
        "tcp://256.0.0.1:7000",
        "tcp://1.2.3:7000",
        "tcp://[1::2::3]:7000",
        "tcp://٣:7000",
        "tcp://host:٧",
        "tcp://host:7000\n",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(InputError, match="is no address: write tcp://HOST:PORT"):
        Listener(address, keys=SERVER)
    with pytest.raises(InputError, match="is no address"):
        connect(address, keys=CLIENT, server_key=SERVER.public)


def test_an_address_in_use_is_named(link):
    address = link.listener.address
    with pytest.raises(InputError, match=f"{address}.* in use|in use.*{address}"):
        Listener(address, keys=SERVER)
    client, _ = link.pair()  # and the first listener still has it
    client.close()


def test_an_address_of_another_host():
    with pytest.raises(InputError, match=r"cannot listen at tcp://192.0.2.1:7000"):
        Listener("tcp://192.0.2.1:7000", keys=SERVER)


def test_a_left_over_socket_file_is_no_obstacle(private, link_to):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{private}/server")
    with Listener(f"ipc://{private}/server") as listener:
        link_to(listener).pair()[0].close()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770])
def test_open_directories_are_refused(private, mode):
    private.chmod(mode)
    for use in (Listener, connect):
        with pytest.raises(InputError, match=f"other users may enter .*: run 'chmod 700 {private}'"):
            use(f"ipc://{private}/server")


def test_missing_and_strange_directories_are_refused(private, tmp_path):
    with pytest.raises(InputError, match="No such file or directory: create it with mode 0700"):
        Listener(f"ipc://{private}/missing/server")
    (private / "link").symlink_to(private)
    with pytest.raises(InputError, match="is not a directory"):
        Listener(f"ipc://{private}/link/server")
    with pytest.raises(InputError, match="longer than 107 bytes"):
        Listener(f"ipc://{private}/{'x' * 120}")


def test_directories_of_other_users_are_refused(private, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: private.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        Listener(f"ipc://{private}/server")


def test_a_process_of_another_user_is_turned_away(ipc, monkeypatch):
    """As where somebody has opened the directory after the listener began."""
    monkeypatch.setattr(zmq_sockets, "widen", lambda _: (1, os.geteuid() + 1))
    with ipc.connect() as stranger, somebody_waiting(ipc.listener), pytest.raises(RunError, match="serves its own user alone"):
        stranger.receive(PATIENCE)


@pytest.mark.parametrize("make", [lambda path: path.write_text("mine"), lambda path: path.symlink_to("nowhere"), lambda path: path.mkdir()])
def test_what_is_no_socket_is_not_replaced(private, make):
    make(private / "server")
    with pytest.raises(InputError, match=f"{private}/server is no socket, and is not replaced by one: choose another path"):
        Listener(f"ipc://{private}/server")
    assert os.path.lexists(private / "server")


def test_the_socket_goes_with_its_listener(private, link_to):
    with Listener(f"ipc://{private}/server") as listener:
        link_to(listener).pair()[0].close()
        assert (private / "server").is_socket()
    assert not list(private.iterdir())


@contextlib.contextmanager
def somebody_waiting(listener):
    """A listener works while some thread waits for it."""

    def wait():
        with pytest.raises(RunError, match="no longer listens"):
            listener.accept()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        thread.join()


def test_too_many_connections_are_turned_away(private, link_to):
    with Listener(f"ipc://{private}/server", max_connections=2) as listener:
        link = link_to(listener)
        with (
            link.pair()[0],
            link.pair()[0],
            link.connect() as third,
            somebody_waiting(listener),
            pytest.raises(RunError, match=r"the server at .* has too many connections: try again later"),
        ):
            third.receive(PATIENCE)


def test_too_many_connections_of_a_key_are_turned_away_but_for_a_listening_partys():
    keys = {"authorised": [CLIENT.public, STRANGER.public], "unlimited": [STRANGER.public]}
    with Listener("tcp://127.0.0.1:0", keys=SERVER, max_of_a_key=2, **keys) as listener, contextlib.ExitStack() as ending:

        def come(own):
            return ending.enter_context(connect(listener.address, keys=own, server_key=SERVER.public, timeout=PATIENCE, name="the server"))

        for own in (CLIENT, STRANGER, STRANGER, CLIENT, STRANGER):
            come(own)
            assert ending.enter_context(listener.accept(PATIENCE)).peer == own.public
        third = come(CLIENT)
        refused = pytest.raises(
            RunError, match=r"the server at .* has 2 connections of this party's key already: end one, or try again later"
        )
        with somebody_waiting(listener), refused:
            third.receive(PATIENCE)


def test_too_many_waiting_connections_are_turned_away(private, link_to):
    with Listener(f"ipc://{private}/server", max_pending=1) as listener:
        link = link_to(listener)
        client, server = link.pair()
        fates = []

        def come():
            with link.connect() as connection:
                try:
                    connection.receive(PATIENCE)
                except RunError as error:
                    fates.append(str(error).split(" has ")[-1])
                    client.send([b"one has left"])

        threads = [threading.Thread(target=come) for _ in range(2)]
        for thread in threads:
            thread.start()
        server.receive(PATIENCE)
        listener.accept(PATIENCE).close()
        for thread in threads:
            thread.join()
        client.close()
        assert fates[0] == "too many connections: try again later" and fates[1].endswith("closed the connection")


def test_strangers_who_do_not_greet_are_turned_away(ipc):
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    try:
        with somebody_waiting(ipc.listener):
            stranger.connect(ipc.listener.address)
            stranger.send_multipart([b"GET", b"/"])
            assert stranger.poll(PATIENCE * 1000)
            assert stranger.recv_multipart() == [b"", b"did not understand the greeting"]
    finally:
        context.destroy(0)


def test_keys_never_show():
    assert CLIENT.secret.decode() not in repr(CLIENT)
    assert CLIENT.is_consistent() and not KeyPair(CLIENT.public, SERVER.secret).is_consistent()


@pytest.mark.parametrize("text", [b"#" * 40, b"%%%%%" * 8, b"", b"x" * 41, b"\xff" * 40, b"~" * 40])
def test_what_is_no_key(text):
    assert not is_key(text)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=40, max_size=40))
def test_keys_are_what_z85_reads_back(data, noise):
    assert is_key(z85.encode(data))
    assert not is_key(noise) or z85.encode(z85.decode(noise)) == noise
