"""Who waits is told for what, goes on when it can, and is forgotten when it has gone; who is idle makes place."""

import dataclasses
import threading
import time

import pytest

from tests.party.parties import Stranger, assert_close, images, serving, small_model
from threepc.errors import RunError
from threepc.party import server as server_module
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.provider import ProviderParty
from threepc.party.server import ServerParty
from threepc.party.session import Options
from threepc.prf import new_key

MODEL = small_model()
OPTIONS = Options(timeout=60.0)
PATIENCE = 60  # seconds; only a failing test waits that long


@pytest.fixture
def connector():
    return MemoryConnector()


class Told(list):
    """What a client is told; the first word of it lets others go on."""

    def __init__(self):
        super().__init__()
        self.heard = threading.Event()

    def options(self):
        return dataclasses.replace(OPTIONS, tell=self)

    def __call__(self, text):
        self.append(text)
        self.heard.set()


def wait_until(holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_clients_may_come_before_the_model(connector):
    party, provider, told = ServerParty(None, connector, OPTIONS), ProviderParty(connector, OPTIONS), Told()
    threads = [threading.Thread(target=provider.serve)]
    threads[0].start()

    def load():
        assert told.heard.wait(PATIENCE)
        assert party.observation.state == "loading"
        party.load(MODEL)

    with party.served():
        threads.append(threading.Thread(target=load))
        threads[1].start()
        with ClientSession(connector, told.options()) as session:
            assert_close(MODEL, images(), session.infer(images())[0])
    assert told == ["the server has this client wait: it is loading its model"] and party.observation.state == "ready"
    for each in (party, provider):
        each.stop()
    for thread in threads:
        thread.join()


def test_a_model_that_cannot_be_loaded_stops_the_server(connector):
    party, clients = ServerParty(None, connector, OPTIONS), []

    def load():
        with party.served():
            clients.append(Stranger(connector).greet("server", purpose="online"))
            assert clients[0].receive_control("waiting").fields == {"for": "it is loading its model"}
            raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        load()
    with pytest.raises(RunError, match=r"the server is being stopped|closed the connection"):
        clients[0].receive_control("model")


def test_a_full_server_has_clients_wait_in_a_queue(connector, monkeypatch):
    monkeypatch.setattr(server_module, "SESSIONS", 1)
    told, logits = Told(), []
    with serving(connector, MODEL, OPTIONS):

        def come():
            with ClientSession(connector, told.options()) as session:
                logits.append(session.infer(images())[0])

        with ClientSession(connector, OPTIONS) as first:
            thread = threading.Thread(target=come)
            thread.start()
            assert told.heard.wait(PATIENCE)
            assert_close(MODEL, images(), first.infer(images())[0])
            assert not logits
        thread.join()
    assert told == [
        "the server has this client wait: it serves 1 sessions already, or 16 of this client, and this one is number 1 in the queue"
    ]
    assert_close(MODEL, images(), logits[0])


def test_who_leaves_the_queue_is_forgotten(connector, monkeypatch):
    monkeypatch.setattr(server_module, "SESSIONS", 1)
    with serving(connector, MODEL, OPTIONS) as (server, _), ClientSession(connector, OPTIONS):
        client = Stranger(connector).greet("server", purpose="online")
        client.receive_control("waiting")
        assert server._places._waiting
        client.close()
        wait_until(lambda: not server._places._waiting)


def test_an_idle_session_ends(connector, caplog):
    options = dataclasses.replace(OPTIONS, idle=1.0)  # in which a client on a busy machine has asked for its inference
    with serving(connector, MODEL, options), ClientSession(connector, OPTIONS) as session:
        session.infer(images())
        wait_until(lambda: "session ended: the session was idle for 1 s" in caplog.text)
        with pytest.raises(RunError, match=r"ended the session: the session was idle for 1 s"):
            session.infer(images())


def test_a_hello_at_the_provider_expires_with_its_connection(connector, caplog):
    with serving(connector, None, OPTIONS) as (provider,):
        client = Stranger(connector)
        channel = client.greet("provider", [new_key()], fingerprint=MODEL.public.fingerprint)
        wait_until(lambda: provider._meetings)
        channel.close()
        wait_until(lambda: not provider._meetings)
    assert "went away before the server came" in caplog.text


def test_a_server_that_is_stopped_waits_for_no_provider(connector, monkeypatch):
    asked, answers, reached = threading.Event(), threading.Event(), []

    def reach(role, tell=None):
        asked.set()
        assert answers.wait(PATIENCE)
        reached.append(MemoryConnector().connect(role))
        return reached[0]

    with serving(connector, MODEL, OPTIONS, provider=False) as parties:
        stranger = Stranger(connector)
        online = stranger.greet("server", purpose="online")
        monkeypatch.setattr(connector, "connect", reach)
        try:
            assert asked.wait(PATIENCE)
            parties[0].stop()
            with pytest.raises(RunError, match="the server is being stopped"):
                online.receive_control("model")
        finally:
            answers.set()
    assert reached[0].has_ended
