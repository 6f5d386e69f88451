"""Hosts that vanish: the connection stays open, and nothing comes any more."""

import contextlib
import socket
import threading

import numpy as np
import pytest

from tests.transport.conftest import PATIENCE, SERVER
from threepc.errors import RunError
from threepc.transport import zmq_sockets
from threepc.transport.keys import KeyPair
from threepc.transport.zmq_dealer import connect
from threepc.transport.zmq_listener import Listener

CLIENT = KeyPair.new()
SOON_S = 25
"""Less than the patience in use; only a failing test waits that long."""


class Proxy:
    """Forwards between a client and a listener until it is told to stop; both its connections stay open."""

    def __init__(self, address):
        self.forwarding = True
        self._target = address.removeprefix("tcp://").rsplit(":", 1)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._open = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        near, _ = self._server.accept()
        far = socket.create_connection((self._target[0], int(self._target[1])))
        self._open += [near, far]
        for one, two in ((near, far), (far, near)):
            threading.Thread(target=self._forward, args=(one, two), daemon=True).start()

    def _forward(self, one, two):
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if not self.forwarding:
                    return
                two.sendall(data)

    def close(self):
        for each in self._open:
            each.close()


@pytest.fixture
def ends(monkeypatch):
    """A client, its connection at the listener, and the proxy between; patience with hosts is a second here."""
    monkeypatch.setattr(zmq_sockets, "HEARTBEAT_MS", 200)
    monkeypatch.setattr(zmq_sockets, "HEARTBEAT_TIMEOUT_MS", 1000)
    with Listener("tcp://127.0.0.1:0", keys=SERVER, authorised=[CLIENT.public]) as listener:
        proxy = Proxy(listener.address)
        with connect(proxy.address, keys=CLIENT, server_key=SERVER.public, timeout=PATIENCE, name="the server") as client:
            server = listener.accept(PATIENCE)
            client.send([b"here"])
            assert server.receive(PATIENCE)[0] == b"here"
            yield client, server, proxy
        proxy.close()


@pytest.mark.parametrize("who", [0, 1])
def test_a_host_that_vanishes_is_noticed_by_who_waits(ends, who):
    ends[2].forwarding = False
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        ends[who].receive(SOON_S)


@pytest.mark.parametrize("who", [0, 1])
def test_a_host_that_vanishes_is_noticed_by_who_sends(ends, who):
    """Also where so much is on its way that no question after the other host gets through."""
    ends[2].forwarding = False
    for _ in range(32):
        ends[who].send([b"much", np.zeros(1 << 20, np.uint8)])
    with pytest.raises(RunError, match="closed the connection unexpectedly"):
        ends[who].receive(SOON_S)


def test_patience_with_a_host_has_a_stated_limit():
    """What docs and README promise."""
    assert zmq_sockets.HEARTBEAT_MS + zmq_sockets.HEARTBEAT_TIMEOUT_MS <= 35_000
