"""What a party that serves shows: pages on loopback, JSON lines, counts that match what happened; a stop that lets inferences end."""

import http.client
import json
import logging
import socket
import threading

import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.cli.main import status as run_command
from threepc.errors import InputError, RunError
from threepc.party import inference
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.observation import Observation
from threepc.party.session import Options
from threepc.tasks.observe import JsonLines, read_status, split_address, watched

MODEL = small_model()
OPTIONS = Options(timeout=60.0)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def page(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_counts_are_what_happened(port):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as parties:
        server, provider = (party.observation for party in parties)
        with watched(server, str(port)), ClientSession(connector, OPTIONS) as session:
            for count in (1, 3):
                assert_close(MODEL, images(count), session.infer(images(count))[0])
            told = read_status(str(port))
            assert (told["role"], told["state"], told["active"]) == ("server", "ready", 1)
    for observed in (server, provider):
        counts = observed.counts()
        assert (counts.sessions, counts.active, counts.inferences, counts.images) == (1, 0, 2, 4)
        assert not counts.failures
    declared = MODEL.public.plan(1).cost.offline["provider->server"] + MODEL.public.plan(3).cost.offline["provider->server"]
    assert server.counts().bytes["provider->server", "offline"] == declared
    assert provider.counts().bytes["provider->server", "offline"] == declared


def test_failures_are_counted_by_kind(caplog):
    connector = MemoryConnector()
    with serving(connector, MODEL, OPTIONS) as parties:
        session = ClientSession(connector, OPTIONS)
        session._online.abort("enough")
        session._provider.close()
        session.close()
    server, provider = (party.observation.counts().failures for party in parties)
    assert server == {"ended by peer": 1}
    assert provider == {"lost": 1}
    assert "session ended: the client ended the session: enough" in caplog.text


def test_pages(port):
    observation = Observation("provider")
    with watched(observation, f"127.0.0.1:{port}"):
        assert page(port, "/healthz") == (200, "ok\n")
        assert page(port, "/readyz") == (503, "loading\n")
        observation.state = "ready"
        assert page(port, "/readyz") == (200, "ready\n")
        with observation.session(bytes(8), "client ada", "tcp://192.0.2.7:40000"):
            observation.inferred(bytes(8), 2, 0.25, {"provider->server": {"offline": [1000, 1]}})
            status, text = page(port, "/metrics")
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert status == 200
        assert lines["threepc_ready"] == lines["threepc_sessions_active"] == lines["threepc_sessions_total"] == "1.0"
        assert lines["threepc_images_total"] == "2.0"
        assert lines['threepc_bytes_total{link="provider->server",phase="offline"}'] == "1000.0"
        assert float(lines["process_resident_memory_bytes"]) > 1e6
        assert "ada" not in text
        assert page(port, "/secret")[0] == 404
    with pytest.raises(RunError, match="no server or provider is observed at"):
        read_status(str(port))


def test_threepc_status(port, capsys):
    observation = Observation("server")
    observation.failed(RunError("the client has not answered for 5 s", "silent"))
    with watched(observation, str(port)):
        assert run_command(["status", str(port)]) == 0
        shown = capsys.readouterr().out
        assert "the server is loading" in shown
        assert "failures silent" in shown
        assert run_command(["status", str(port), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["failures"] == {"silent": 1}
    assert run_command(["status", str(port)]) == 1
    assert run_command(["status", "nowhere"]) == 2


@pytest.mark.parametrize("address", ("", "host", "1.2.3.4:", ":0", "127.0.0.1:65536", "127.0.0.1:-1"))
def test_addresses_that_are_none(address):
    with pytest.raises(InputError, match=r"--observe .*: write \[HOST:\]PORT"):
        split_address(address)


def test_an_address_in_use_is_named(port):
    refused = pytest.raises(InputError, match=f"--observe {port}: cannot listen there")
    with watched(Observation("server"), str(port)), refused, watched(Observation("server"), str(port)):
        pass


def test_loopback_unless_told():
    assert split_address("9100") == ("127.0.0.1", 9100)
    assert split_address("0.0.0.0:9100") == ("0.0.0.0", 9100)


def test_lines_of_json(caplog):
    observation = Observation("server")
    with caplog.at_level(logging.INFO, "threepc"), observation.session(b"\x01" * 8, "client ada", "tcp://192.0.2.7:40000"):
        observation.inferred(b"\x01" * 8, 1, 0.5, {"client->server": {"online": [10, 1], "offline": [5, 1]}})
        observation.failed(RunError("the client\nis gone", "lost"))
    began, inferred, failed, ended = (json.loads(JsonLines().format(record)) for record in caplog.records)
    assert (began["event"], began["session"], began["client"]) == ("session began", "01" * 4, "client ada")
    assert (inferred["images"], inferred["seconds"], inferred["bytes"]) == (1, 0.5, 15)
    assert (failed["level"], failed["kind"], failed["reason"]) == ("warning", "lost", "the client\nis gone")
    assert ended["event"] == "session ended"


def test_a_stop_lets_what_runs_end_and_begins_nothing(monkeypatch):
    connector, running, go_on = MemoryConnector(), threading.Event(), threading.Event()
    original = inference.serve

    def slow(*arguments):
        running.set()
        assert go_on.wait(60)
        return original(*arguments)

    monkeypatch.setattr(inference, "serve", slow)
    with serving(connector, MODEL, OPTIONS) as parties:
        server = parties[0]
        session, answers, left = ClientSession(connector, OPTIONS), [], []
        asking = threading.Thread(target=lambda: answers.append(session.infer(images())[0]))
        asking.start()
        assert running.wait(60)
        assert server.drain(0.01) == 1, "it still runs"
        stopping = threading.Thread(target=lambda: left.append(server.drain(20)))
        stopping.start()
        with pytest.raises(RunError, match="the server is being stopped"):
            ClientSession(connector, OPTIONS)
        go_on.set()
        for thread in (asking, stopping):
            thread.join(60)
        assert left == [0]
        assert_close(MODEL, images(), answers[0])
        with pytest.raises(RunError, match="the server is being stopped"):
            session.infer(images())
        assert server.observation.state == "stopping"
