"""Real sockets: ipc in a private directory, CURVE over TCP on loopback."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zmq

from threepc.errors import RunError
from threepc.transport.channel import Channel
from threepc.transport.connection import NoAnswerError
from threepc.transport.keys import KeyPair
from threepc.transport.turns import QUIET_S
from threepc.transport.wires import PIECE_BYTES, wire_bytes
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener
from threepc.transport.zmq_sockets import is_readable, read_only

SERVER, CLIENT = KeyPair.new(), KeyPair.new()  # of the tests that start a server of their own
PATIENCE = 60  # seconds; only a failing test waits that long


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


def test_frames_around_the_size_of_a_piece(link):
    """What is encrypted travels in pieces; frames of any size come back whole, wherever they are in a message."""
    client, server = link.pair()
    sizes = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES + 5]
    frames = [np.arange(size, dtype=np.uint32).astype(np.uint8) for size in sizes]
    with client, server:
        for one, two in ((client, server), (server, client)):
            two.allow(sum(sizes))
            for order in (frames, frames[::-1]):
                one.send([b"first", *order])
                _, *got = two.receive(PATIENCE)
                assert all(
                    np.array_equal(np.frombuffer(part, np.uint8), sent) and part.readonly for part, sent in zip(got, order, strict=True)
                )


@pytest.mark.parametrize("encrypted", (False, True))
def test_framing_is_counted_for_every_piece(encrypted):
    for length in (0, 100, 222, 223, 1000, PIECE_BYTES - 1):
        alone = wire_bytes([length], encrypted) - length
        assert alone == (2 if length + 33 * encrypted < 256 else 9) + 33 * encrypted
        assert wire_bytes([PIECE_BYTES + length], encrypted) - PIECE_BYTES - length == (alone + 42 if encrypted else 9)
    assert wire_bytes([5, 300], encrypted) == wire_bytes([5], encrypted) + wire_bytes([300], encrypted)


def test_a_last_piece_that_never_came_shortens_the_frame():
    whole = zmq.Frame(bytes(PIECE_BYTES))
    (view,) = read_only([whole], encrypted=True)
    assert view.nbytes == PIECE_BYTES and view.readonly


def test_the_peer_is_known_by_its_key(tcp):
    client, server = tcp.pair()
    with client, server:
        assert server.peer == tcp.client_keys.public and client.peer == tcp.server_keys.public
        assert server.where == "127.0.0.1" and client.where == tcp.listener.address


def test_ipc_peers_have_no_key(ipc):
    client, server = ipc.pair()
    with client, server:
        assert server.peer is None and client.peer is None
        assert (server.process, client.process, server.where) == (os.getpid(), None, f"process {os.getpid()}")


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


def test_who_waits_for_new_connections_hinders_nobody_and_misses_none(link):
    """Whether somebody else has the turn, has just had it, or nobody has had it for a while."""
    client, server = link.pair()
    with client, server:
        for pause in (0.0, QUIET_S + 0.1):
            time.sleep(pause)
            with ThreadPoolExecutor(1) as pool:
                accepting = pool.submit(link.listener.accept, PATIENCE)
                for i in range(20):
                    client.send([b"ask", bytes([i])])
                    assert texts(server.receive(PATIENCE)) == [b"ask", bytes([i])]
                with link.connect() as other, accepting.result() as there:
                    other.send([b"new"])
                    assert texts(there.receive(PATIENCE)) == [b"new"]
        assert link.listener.accept(0) is None


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
        assert client.meter.counts() == server.meter.counts()
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
            with pytest.raises(NoAnswerError, match=r"has not answered for 0.01 s"):
                connection.receive(0.01)
            with pytest.raises(NoAnswerError, match="has not answered for 0 s"):
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
        with pytest.raises(RunError, match=r"the server at .* closed the connection"):
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
import sys
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_dealer import connect
address, public, secret, server_key = sys.argv[1:]
keys = {} if not public else {"keys": KeyPair(public.encode(), secret.encode()), "server_key": server_key.encode()}
connection = connect(address, timeout=20, **keys)
connection.send([b"alive"])
connection.receive(20)
"""


def test_a_killed_client_is_noticed(link):
    arguments = [link.client_keys.public, link.client_keys.secret, link.server_keys.public] if link.encrypted else ["", "", ""]
    with subprocess.Popen([sys.executable, "-c", DYING, link.listener.address, *arguments]) as process:
        server = link.listener.accept(20)
        assert texts(server.receive(PATIENCE)) == [b"alive"]
        process.send_signal(signal.SIGKILL)
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        server.receive(PATIENCE)
    with pytest.raises(RunError, match="closed the connection"):
        server.send([b"anyone?"])


def receive_all(connection, messages):
    """Receive until that fails."""
    while True:
        messages.append(texts(connection.receive(PATIENCE)))


def arrived(router, lock):
    """Whether a greeting waits that nobody has read."""
    with lock:
        return is_readable(router)


def test_a_client_killed_before_it_was_accepted(link):
    arguments = [link.client_keys.public, link.client_keys.secret, link.server_keys.public] if link.encrypted else ["", "", ""]
    with subprocess.Popen([sys.executable, "-c", DYING, link.listener.address, *arguments]) as process:
        router, lock = link.listener._router, link.listener._lock
        while not arrived(router, lock):
            assert select.select([router.fd], [], [], 20)[0]
        process.send_signal(signal.SIGKILL)
    server = link.listener.accept(PATIENCE)
    received = []
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        receive_all(server, received)
    assert received in ([], [[b"alive"]])  # its message may still have been on its way


SERVING = """
import sys
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_listener import Listener
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
    with (
        subprocess.Popen([sys.executable, "-c", SERVING, address, *arguments], stdout=subprocess.PIPE, text=True) as process,
        connect(process.stdout.readline().strip(), timeout=PATIENCE, name="the server", **keys) as client,
    ):
        assert texts(client.receive(PATIENCE)) == [b"alive"]
        process.send_signal(signal.SIGKILL)
        with pytest.raises(RunError, match=r"the server at .* closed the connection unexpectedly"):
            client.receive(PATIENCE)
        with pytest.raises(RunError, match="closed the connection"):
            client.send([b"anyone?"])
