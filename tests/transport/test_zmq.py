"""Real sockets: ipc in a private directory, CURVE over TCP on loopback, and everything that must be refused."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from threepc.errors import InputError, RunError
from threepc.transport import Channel, KeyPair, Listener, NoAnswer, connect
from threepc.transport.zmq_sockets import is_readable

SERVER, CLIENT, STRANGER = KeyPair.new(), KeyPair.new(), KeyPair.new()
PATIENCE = 10  # seconds; only a failing test waits that long


class Link:
    """A listener and how to reach it."""

    def __init__(self, listener: Listener, encrypted: bool):
        self.listener = listener
        self.encrypted = encrypted

    def connect(self, **settings):
        keys = {"keys": CLIENT, "server_key": SERVER.public} if self.encrypted else {}
        return connect(self.listener.address, **{"timeout": PATIENCE, "name": "the server", **keys, **settings})

    def pair(self):
        connected = self.connect()
        return connected, self.listener.accept(PATIENCE)


@pytest.fixture
def private(tmp_path):
    directory = tmp_path / "sockets"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture(params=["ipc", "tcp"])
def link(request, private):
    if request.param == "ipc":
        listener = Listener(f"ipc://{private}/server")
    else:
        listener = Listener("tcp://127.0.0.1:0", keys=SERVER, authorised=[CLIENT.public])
    with listener:
        yield Link(listener, request.param == "tcp")


@pytest.fixture
def tcp():
    with Listener("tcp://127.0.0.1:0", keys=SERVER, authorised=[CLIENT.public]) as listener:
        yield Link(listener, True)


@pytest.fixture
def ipc(private):
    with Listener(f"ipc://{private}/server") as listener:
        yield Link(listener, False)


def texts(frames) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def test_messages_both_ways(link):
    client, server = link.pair()
    with client, server:
        big = np.arange(300_000, dtype=np.uint64)
        client.send([b"one", b"", big.reshape(3, -1)])
        first, empty, array = server.receive(PATIENCE)
        assert first == b"one" and empty.nbytes == 0 and array.readonly
        assert (np.frombuffer(array, np.uint64) == big).all()
        for i in range(100):
            server.send([b"reply", bytes([i])])
        assert [texts(client.receive(PATIENCE)) for _ in range(100)] == [[b"reply", bytes([i])] for i in range(100)]


def test_the_peer_is_known_by_its_key(tcp):
    client, server = tcp.pair()
    with client, server:
        assert server.peer == CLIENT.public and client.peer == SERVER.public
        assert server.where == "127.0.0.1" and client.where == tcp.listener.address


def test_ipc_peers_have_no_key(ipc):
    client, server = ipc.pair()
    with client, server:
        assert server.peer is None and client.peer is None


def test_connections_do_not_mix(link):
    ends = [link.pair() for _ in range(4)]
    for number, (client, _) in enumerate(ends):
        client.send([b"from", bytes([number])])
    for number, (_, server) in reversed(list(enumerate(ends))):
        assert texts(server.receive(PATIENCE)) == [b"from", bytes([number])]
        server.send([b"to", bytes([number])])
    for number, (client, _) in enumerate(ends):
        assert texts(client.receive(PATIENCE)) == [b"to", bytes([number])]
        client.close()


def test_many_threads_take_turns(link):
    """Echo threads of several connections wait at once, so that the turn at the socket passes from one to the other."""

    def echo(connection):
        with connection:
            for _ in range(100):
                connection.send(connection.receive(PATIENCE))
            connection.receive(PATIENCE)

    def ask(connection, number, failures):
        with connection:
            for i in range(100):
                message = [b"ask", bytes([number, i])]
                connection.send(message)
                if texts(connection.receive(PATIENCE)) != message:
                    failures.append(number)
            connection.send([b"done"])

    failures = []
    ends = [link.pair() for _ in range(3)]
    threads = [threading.Thread(target=echo, args=(server,)) for _, server in ends]
    threads += [threading.Thread(target=ask, args=(client, number, failures)) for number, (client, _) in enumerate(ends)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_one_thread_sends_while_another_receives(link):
    client, server = link.pair()
    with client, server:
        got = {}
        count = 500

        def collect(name, connection):
            got[name] = [texts(connection.receive(PATIENCE))[0] for _ in range(count)]

        threads = [threading.Thread(target=collect, args=item) for item in (("client", client), ("server", server))]
        for thread in threads:
            thread.start()
        for i in range(count):
            client.send([b"c%d" % i])
            server.send([b"s%d" % i])
        for thread in threads:
            thread.join()
        assert got == {"client": [b"s%d" % i for i in range(count)], "server": [b"c%d" % i for i in range(count)]}


def test_channels_over_zmq(link):
    one, two = link.pair()
    with Channel(one, ("client", "server"), timeout=PATIENCE) as client, Channel(two, ("server", "client"), timeout=PATIENCE) as server:
        # Odd sizes leave the frames behind them unaligned in libzmq's receive buffer.
        for size in (1, 3, 7, 100, 1001, 70_001):
            layout = [(np.uint8, (size,)), (np.uint64, (size,)), (np.uint32, (0, 4))]
            parts = [np.arange(np.prod(shape), dtype=int).astype(dtype).reshape(shape) for dtype, shape in layout]
            client.send(size, parts, "online")
            for sent, got in zip(parts, server.receive(size, layout), strict=True):
                assert got.flags.aligned and (got == sent).all()
        assert client.meter.as_report() == server.meter.as_report()
        server.abort("enough")
        with pytest.raises(RunError, match="the server ended the session: enough"):
            client.receive(1, [])


def test_an_abort_outlives_its_sender(link):
    one, two = link.pair()
    with Channel(one, ("client", "server"), timeout=PATIENCE) as client:
        with Channel(two, ("server", "client")) as server:
            for i in range(50):
                server.send(i, [np.arange(1000, dtype=np.uint64)], "offline")
            server.abort("the budget is spent")
        for i in range(50):
            client.receive(i, [(np.uint64, (1000,))])
        with pytest.raises(RunError, match="the server ended the session: the budget is spent"):
            client.receive(50, [])


def test_a_failed_send_tells_why_the_peer_left(link):
    one, two = link.pair()
    with Channel(one, ("client", "server")) as client:
        with Channel(two, ("server", "client")) as server:
            server.send(1, [np.arange(10, dtype=np.uint64)], "offline")
            server.abort("another model")
        with pytest.raises(RunError, match="the server ended the session: another model"):
            send_for_ever(client)


def test_a_failed_send_on_the_listening_side_tells_why_too(link):
    one, two = link.pair()
    with Channel(two, ("server", "client")) as server:
        with Channel(one, ("client", "server")) as client:
            client.abort("another model")
        with pytest.raises(RunError, match="the client ended the session: another model"):
            send_for_ever(server)


def send_for_ever(channel):
    """Send until that fails; the peer is on its way out and there is nothing else to wait for."""
    pause = threading.Event()
    for _ in range(PATIENCE * 1000):
        channel.send(1, [], "online")
        pause.wait(0.001)


def test_silence_is_reported(link):
    client, server = link.pair()
    with client, server:
        for connection in (client, server):
            with pytest.raises(NoAnswer, match="has not answered for 0.01 s"):
                connection.receive(0.01)
            with pytest.raises(NoAnswer, match="has not answered for 0 s"):
                connection.receive(0)
        client.send([b"late"])
        assert texts(server.receive(PATIENCE)) == [b"late"]


@pytest.mark.parametrize("closing", ["client", "server"])
def test_what_was_sent_before_a_close_arrives(link, closing):
    ends = dict(zip(("client", "server"), link.pair()))
    leaving = ends.pop(closing)
    (staying,) = ends.values()
    for i in range(200):
        leaving.send([b"%d" % i, bytes(1000)])
    leaving.close()
    leaving.close()
    with staying:
        assert [texts(staying.receive(PATIENCE))[0] for i in range(200)] == [b"%d" % i for i in range(200)]
        for _ in range(2):
            with pytest.raises(RunError, match="closed the connection"):
                staying.receive(PATIENCE)
        with pytest.raises(RunError, match="closed the connection"):
            staying.send([b"too late"])
    with pytest.raises(RunError, match="closed on this side"):
        leaving.send([b"x"])
    with pytest.raises(RunError, match="closed on this side"):
        leaving.receive(PATIENCE)


def test_closing_the_listener_ends_everything(link):
    client, server = link.pair()
    server.send([b"last"])
    link.listener.close()
    link.listener.close()
    with client:
        assert texts(client.receive(PATIENCE)) == [b"last"]
        with pytest.raises(RunError, match="the server at .* closed the connection"):
            client.receive(PATIENCE)
    with pytest.raises(RunError, match="closed on this side"):
        server.receive(PATIENCE)
    with pytest.raises(RunError, match="no longer listens"):
        link.listener.accept(PATIENCE)


@pytest.mark.parametrize("which", ["client", "server", "accept"])
def test_a_close_wakes_whoever_waits(link, which):
    client, server = link.pair()
    waiting = {"client": client.receive, "server": server.receive, "accept": link.listener.accept}[which]
    failures = []

    def wait():
        try:
            waiting(None)
        except RunError as error:
            failures.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    {"client": client, "server": server, "accept": link.listener}[which].close()
    thread.join(PATIENCE)
    assert not thread.is_alive() and len(failures) == 1
    client.close()


def test_accept_gives_up_after_its_time(link):
    assert link.listener.accept(0) is None
    assert link.listener.accept(0.01) is None


def test_clients_may_come_first(private):
    address = f"ipc://{private}/server"
    connections = []
    thread = threading.Thread(target=lambda: connections.append(connect(address, timeout=PATIENCE)))
    thread.start()
    with Listener(address) as listener:
        server = listener.accept(PATIENCE)
        thread.join()
        connections[0].send([b"here"])
        assert texts(server.receive(PATIENCE)) == [b"here"]
        connections[0].close()


DYING = """
import sys, os
from threepc.transport import KeyPair, Listener, connect
address, public, secret, server_key = sys.argv[1:]
keys = {} if not public else {"keys": KeyPair(public.encode(), secret.encode()), "server_key": server_key.encode()}
connection = connect(address, timeout=20, **keys)
connection.send([b"alive"])
connection.receive(20)
"""


def test_a_killed_client_is_noticed(link):
    arguments = [CLIENT.public, CLIENT.secret, SERVER.public] if link.encrypted else ["", "", ""]
    with subprocess.Popen([sys.executable, "-c", DYING, link.listener.address, *arguments]) as process:
        server = link.listener.accept(20)
        assert texts(server.receive(PATIENCE)) == [b"alive"]
        process.send_signal(signal.SIGKILL)
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        server.receive(PATIENCE)
    with pytest.raises(RunError, match="closed the connection"):
        server.send([b"anyone?"])


def arrived(router, lock):
    """Whether a greeting waits that nobody has read."""
    with lock:
        return is_readable(router)


def test_a_client_killed_before_it_was_accepted(link):
    arguments = [CLIENT.public, CLIENT.secret, SERVER.public] if link.encrypted else ["", "", ""]
    with subprocess.Popen([sys.executable, "-c", DYING, link.listener.address, *arguments]) as process:
        router, lock = link.listener._router, link.listener._lock
        while not arrived(router, lock):
            assert select.select([router.fd], [], [], 20)[0]
        process.send_signal(signal.SIGKILL)
    server = link.listener.accept(PATIENCE)
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        assert texts(server.receive(PATIENCE)) == [b"alive"]  # unless that was still on its way
        server.receive(PATIENCE)


SERVING = """
import sys
from threepc.transport import KeyPair, Listener
address, public, secret, client_key = sys.argv[1:]
keys = {} if not public else {"keys": KeyPair(public.encode(), secret.encode()), "authorised": [client_key.encode()]}
listener = Listener(address, **keys)
print(listener.address, flush=True)
connection = listener.accept(20)
connection.send([b"alive"])
connection.receive(20)
"""


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_killed_server_is_noticed(private, encrypted):
    address = "tcp://127.0.0.1:0" if encrypted else f"ipc://{private}/server"
    arguments = [SERVER.public, SERVER.secret, CLIENT.public] if encrypted else ["", "", ""]
    keys = {"keys": CLIENT, "server_key": SERVER.public} if encrypted else {}
    with subprocess.Popen([sys.executable, "-c", SERVING, address, *arguments], stdout=subprocess.PIPE, text=True) as process:
        with connect(process.stdout.readline().strip(), timeout=PATIENCE, name="the server", **keys) as client:
            assert texts(client.receive(PATIENCE)) == [b"alive"]
            process.send_signal(signal.SIGKILL)
            with pytest.raises(RunError, match="the server at .* closed the connection unexpectedly"):
                client.receive(PATIENCE)
            with pytest.raises(RunError, match="closed the connection"):
                client.send([b"anyone?"])


def test_nobody_listens(private):
    with pytest.raises(RunError, match="the server has not answered at ipc://.* for 0.1 s: is it running"):
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
        with pytest.raises(RunError, match="does not speak this protocol|hung up during the handshake"):
            connect(f"tcp://127.0.0.1:{port}", keys=CLIENT, server_key=SERVER.public, timeout=PATIENCE)
    finally:
        context.destroy(0)


def test_a_wrong_server_key(tcp):
    with pytest.raises(RunError, match="the server at tcp://.* hung up during the handshake: its public key here is probably not the one"):
        tcp.connect(server_key=STRANGER.public)
    assert tcp.listener.accept(0) is None


def test_an_unauthorised_client(tcp):
    with pytest.raises(RunError, match="the server at tcp://.* does not accept this party's public key: add it to .* deployment.yaml"):
        tcp.connect(keys=STRANGER)
    assert tcp.listener.accept(0) is None
    client, server = tcp.pair()  # the listener goes on
    client.close()


def test_a_public_key_without_its_secret(tcp):
    with pytest.raises(RunError, match="hung up during the handshake|does not accept"):
        tcp.connect(keys=KeyPair(CLIENT.public, STRANGER.secret))


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


@pytest.mark.parametrize(
    "address", ["", "localhost:7000", "tcp://host", "tcp://host:99999", "tcp://*:7000", "ipc://relative", "inproc://x", "udp://h:1"]
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
    client, server = link.pair()  # and the first listener still has it
    client.close()


def test_an_address_of_another_host():
    with pytest.raises(InputError, match="cannot listen at tcp://192.0.2.1:7000"):
        Listener("tcp://192.0.2.1:7000", keys=SERVER)


def test_a_left_over_socket_file_is_no_obstacle(private):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{private}/server")
    with Listener(f"ipc://{private}/server") as listener:
        Link(listener, False).pair()[0].close()


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


@contextmanager
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


def test_too_many_connections_are_turned_away(private):
    with Listener(f"ipc://{private}/server", max_connections=2) as listener:
        link = Link(listener, False)
        with link.pair()[0], link.pair()[0], link.connect() as third, somebody_waiting(listener):
            with pytest.raises(RunError, match="the server at .* has too many connections: try again later"):
                third.receive(PATIENCE)


def test_too_many_waiting_connections_are_turned_away(private):
    with Listener(f"ipc://{private}/server", max_pending=1) as listener:
        link = Link(listener, False)
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
