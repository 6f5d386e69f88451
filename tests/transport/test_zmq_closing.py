"""Sockets that close at the worst moment: while another thread is about to use them, or interrupted."""

import threading
import time

import pytest

from threepc.errors import RunError
from threepc.transport.turns import Inbox, Turns
from threepc.transport.zmq_sockets import LOST

PATIENCE = 60  # seconds; only a failing test waits that long


@pytest.mark.parametrize("use", ["end", "_check_sending"])
def test_the_listener_closes_while_a_connection_is_about_to_close_or_to_send(link, monkeypatch, use):
    client, server = link.pair()
    before = getattr(server, use)

    def as_the_listener_closes(*arguments):
        before(*arguments)
        monkeypatch.undo()
        link.listener.close()

    monkeypatch.setattr(server, use, as_the_listener_closes)
    if use == "end":
        server.close()
    else:
        with pytest.raises(RunError, match="closed"):
            server.send([b"too late"])
    client.close()


def test_a_waker_is_not_set_once_it_is_closed(monkeypatch):
    """Its descriptor might be another one's by then."""
    turns, inbox, closed = Turns(lambda _: False, ()), Inbox(), threading.Event()
    turns._enter(inbox, patient=False)
    wake = turns._waker.set

    def close():
        monkeypatch.undo()
        turns._leave(inbox, patient=False)
        turns.close()
        closed.set()

    closing = threading.Thread(target=close)

    def set_late():
        closing.start()
        closed.wait(0.1)
        wake()

    monkeypatch.setattr(turns._waker, "set", set_late)
    turns.wake()
    closing.join()


def test_an_interrupted_close_gives_the_sockets_back(link, monkeypatch):
    client, server = link.pair()

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "_say_goodbye", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.close()
    assert client._socket.closed and client._monitor.closed
    with pytest.raises(RunError, match=LOST[:20]):
        server.receive(PATIENCE)


def test_who_waits_hears_of_a_broken_wire_that_another_thread_has_noticed(tcp):
    client, server = tcp.pair()
    failures = []

    class Noticing:
        """A probe that finds too much on a connection, and then that it has broken."""

        def received(self, _):
            return 1 << 40

        def cut(self, _, is_current):
            client._broken = True
            return is_current()

    def receive():
        try:
            client.receive(PATIENCE)
        except RunError as error:
            failures.append(str(error))

    with client, server:
        thread = threading.Thread(target=receive)
        thread.start()
        while not client._waiting:
            time.sleep(0.001)
        client.check(Noticing())
        thread.join()
    assert len(failures) == 1 and LOST in failures[0]
