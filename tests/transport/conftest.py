"""Real listeners for the tests of ZeroMQ links: over ipc in a private directory, and over TCP with CURVE on loopback."""

import pytest

from threepc.transport.keys import KeyPair
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener

SERVER, CLIENT = KeyPair.new(), KeyPair.new()
PATIENCE = 60  # seconds; only a failing test waits that long


class Link:
    """A listener and how to reach it."""

    def __init__(self, listener: Listener, encrypted: bool):
        self.listener = listener
        self.encrypted = encrypted
        self.server_keys = SERVER
        self.client_keys = CLIENT

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


@pytest.fixture
def link_to():
    """Makes the Link of an ipc listener that a test has opened itself."""
    return lambda listener: Link(listener, encrypted=False)
