"""Sessions that end while something else goes on: another thread closes them, or an interrupt comes; nothing is left open or waited for."""

import contextlib
import threading
from collections import deque

import pytest

from tests.party.parties import Stranger, images, serving, small_model
from threepc.errors import RunError
from threepc.party import inference
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.one_host import ThreeProcesses, ThreeThreads
from threepc.party.session import Options

MODEL = small_model()
OPTIONS = Options(timeout=60.0, ahead=2)


@pytest.fixture
def connector():
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS):
        yield connector


def test_a_session_that_is_closed_as_an_inference_takes_what_is_prepared_says_so(connector):
    session = ClientSession(connector, OPTIONS)

    class ClosedMeanwhile(deque):
        def popleft(self):
            session.close()
            return super().popleft()

    session.prepare_ahead(wait=True)
    session._ready = ClosedMeanwhile(session._ready)
    with pytest.raises(RunError, match="closed"):
        session.infer(images())


def test_a_session_that_is_closed_while_it_prepares_says_so(connector, monkeypatch):
    session = ClientSession(connector, OPTIONS)
    wait_for = session._wait_for

    def close_behind(ahead):
        wait_for(ahead)
        session.close()

    monkeypatch.setattr(session, "_wait_for", close_behind)
    with pytest.raises(RunError, match="closed"):
        session.prepare_ahead(wait=True)


def test_what_is_prepared_while_a_session_is_closed_says_so_and_not_that_its_key_is_gone(connector, monkeypatch):
    session, gone = ClientSession(connector, OPTIONS), threading.Event()
    prepare = inference.prepare

    def slowly(role, *arguments):
        assert gone.wait(20)
        return prepare(role, *arguments)

    monkeypatch.setattr(inference, "prepare", slowly)
    session.prepare_ahead()
    ahead = session._ready[0]
    session.close()
    gone.set()
    with pytest.raises(RunError, match=r"^this session was closed$"):
        ahead.join()


@pytest.mark.parametrize("error", [None, RunError("gone")])
def test_an_interrupt_while_a_session_ends_leaves_no_connection_open(connector, monkeypatch, error):
    session = ClientSession(connector, OPTIONS)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session._online, "abort" if error else "send_control", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session._end(error)
    assert all(channel.connection.has_ended for channel in session._channels) and session.has_ended


def test_a_client_cannot_put_off_being_idle(connector):
    """What has simulated links settle is answered over these alone: asked again and again, it would keep a place for ever."""
    with ClientSession(connector, Options(timeout=60.0)) as session:
        session._online.send_control("settle", {})
        with pytest.raises(RunError, match="'settle' where 'infer' or 'bye' was expected"):
            session.infer(images())


def opened(stranger):
    """A session's first connection at the server, which now waits for the second."""
    online = stranger.greet("server", purpose="online")
    online.receive_control("model")
    online.send_control("opened", {})
    return online


def test_second_connections_that_nobody_takes_any_more_are_closed(connector):
    stranger = Stranger(connector)
    online = stranger.greet("server", purpose="online")
    online.receive_control("model")
    offline = [stranger.greet("server", purpose="offline") for _ in range(2)]
    online.close()
    for channel in offline:
        with pytest.raises(RunError, match=r"closed the connection|ended the session"):
            channel.receive_control("anything")


def test_a_server_that_is_stopped_waits_for_no_second_connection():
    connector = MemoryConnector()
    with serving(connector, MODEL, Options(timeout=60.0)) as (server, _):
        online = opened(Stranger(connector))
        server.stop()
        with pytest.raises(RunError, match="the server is being stopped"):
            online.receive_control("ready")


def test_a_server_waits_for_no_second_connection_of_a_client_that_has_gone():
    connector = MemoryConnector()
    with serving(connector, MODEL, Options(timeout=60.0)):  # which waits a shorter time for sessions to end
        opened(Stranger(connector)).close()


def test_a_connection_that_a_stopped_party_has_not_accepted_ends():
    connector = MemoryConnector()
    listener = connector.listen("server")
    waiting = connector.connect("server")
    listener.close()
    with pytest.raises(RunError, match="closed the connection"):
        waiting.receive(20.0)
    with pytest.raises(RunError, match="no longer listens"):
        listener.accept()


def test_an_interrupt_while_three_processes_end_leaves_none_and_no_directory(tmp_path, monkeypatch):
    parties, ended = object.__new__(ThreeProcesses), []
    parties._ended, parties._processes, parties._channels, parties.timelines = "", {}, {}, []
    parties._directory, parties._open = tmp_path, contextlib.ExitStack()
    parties._open.callback(ended.append, "directory")

    def end(role):
        ended.append(role)
        if role == "client":
            raise KeyboardInterrupt

    monkeypatch.setattr(parties, "_end", end)
    with pytest.raises(KeyboardInterrupt):
        parties.close()
    assert ended == ["client", "server", "provider", "directory"]


def test_an_interrupt_while_three_threads_start_leaves_none(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        if thread.name == "ProviderParty":
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ThreeThreads(MODEL)
    assert not [thread for thread in threading.enumerate() if thread.name == "ServerParty"]
