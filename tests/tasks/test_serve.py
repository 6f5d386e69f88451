"""A party is watched from its start: while it loads, its pages say so, and an address in use is told before anything is loaded."""

import http.client
import socket
import threading
import time

import pytest

from tests.end_to_end.processes import write_deployment
from tests.party.parties import small_model
from threepc.console import Display
from threepc.errors import InputError
from threepc.party import three_hosts
from threepc.party.deployment import load
from threepc.tasks import provide, serve
from threepc.tasks.models import ModelOptions
from threepc.tasks.observe import read_status
from threepc.tasks.provide import Steering, Watching
from threepc.tasks.serve import ServerOptions

ROLES = ("server", "provider")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Start:
    """Starts a party up to where it would serve until a signal, and looks at its pages on the way."""

    def __init__(self, role, path, port, monkeypatch):
        self.role, self.path, self.port, self.seen, self.task = role, path, port, [], {"server": serve, "provider": provide}[role]
        monkeypatch.setattr(self.task, "log_to_output", lambda _: None)
        monkeypatch.setattr(self.task, "serve_until_signal", self.end)
        if role == "server":
            monkeypatch.setattr(ModelOptions, "load", lambda *_: self.look("loads") or small_model())
        else:
            monkeypatch.setattr(provide, "warm_up", lambda *_, **__: self.look("loads"))

    def begin(self):
        watching = Watching(observe=str(self.port))
        if self.role == "server":
            serve.serve(ServerOptions(ModelOptions("any"), self.path, watching=watching), Display())
        else:
            provide.provide(self.path, 1, watching, Display())

    def look(self, moment):
        pages = []
        for name in ("/healthz", "/readyz"):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", name)
            answer = connection.getresponse()
            pages.append((answer.status, answer.read()))
        self.seen.append((moment, *pages, read_status(str(self.port))["role"]))

    def end(self, party, *_, steering=None):
        with party.served():
            while party.observation.state == "loading":
                time.sleep(0.01)
            self.look("serves")
        party.drain(0)
        self.look("stops")
        party.stop()


@pytest.mark.parametrize("role", ROLES)
def test_the_pages_are_there_while_a_party_loads(role, port, tmp_path, monkeypatch):
    start = Start(role, write_deployment(tmp_path / "keys"), port, monkeypatch)
    start.begin()
    assert start.seen == [
        ("loads", (200, b"ok\n"), (503, b"loading\n"), role),
        ("serves", (200, b"ok\n"), (200, b"ready\n"), role),
        ("stops", (200, b"ok\n"), (503, b"stopping\n"), role),
    ]


def test_an_address_in_use_is_told_before_the_model_is_loaded(port, tmp_path, monkeypatch):
    path = write_deployment(tmp_path / "keys")
    other = three_hosts.open_server(load(path), None)
    start = Start("server", path, port, monkeypatch)
    with pytest.raises(InputError, match=r"^cannot listen at tcp://127\.0\.0\.1:\d+: Address already in use"):
        start.begin()
    other.stop()
    assert start.seen == []


def test_a_party_that_has_been_quiet_gives_back_memory_once(tmp_path, monkeypatch):
    deployment, steering, given_back = load(write_deployment(tmp_path / "keys")), Steering(), threading.Semaphore(0)
    for name, value in {"QUIET_S": 0.02, "LOOKS_EVERY_S": 0.01, "give_back": given_back.release}.items():
        monkeypatch.setattr(provide, name, value)
    party = three_hosts.open_provider(deployment)
    serving = threading.Thread(target=provide.serve_until_signal, args=(party, deployment, 0.0), kwargs={"steering": steering})
    serving.start()
    try:
        assert given_back.acquire(timeout=60) and not given_back.acquire(timeout=0.1)
        with party.inferring():
            assert not given_back.acquire(timeout=0.1)
        assert given_back.acquire(timeout=60) and not given_back.acquire(timeout=0.1)
    finally:
        steering.end()
        serving.join()
        steering.close()


def test_a_party_whose_look_at_its_files_fails_stops_serving(tmp_path):
    deployment, steering = load(write_deployment(tmp_path / "keys")), Steering()
    party = three_hosts.open_provider(deployment)
    steering.look()

    def fail(_):
        raise OSError("no such luck")

    try:
        with pytest.raises(OSError, match="no such luck"):
            provide.serve_until_signal(party, deployment, 0.0, fail, steering)
        assert not [thread for thread in threading.enumerate() if thread.name == "serve"]
        three_hosts.open_provider(deployment).stop()  # the address is free again
    finally:
        party.stop()
        steering.close()
