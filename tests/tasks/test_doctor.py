"""What the doctor finds, and that each thing that can be wrong is found, with its cure."""

import os
import socket
import threading

import pytest

from tests.end_to_end.processes import write_deployment
from threepc.console import Display
from threepc.kernels import options
from threepc.party.deployment import load
from threepc.party.three_hosts import open_provider, open_server
from threepc.tasks import doctor


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S", 1.0)
    return write_deployment(tmp_path / "keys")


def look(path=None, name="client"):
    """what -> finding; of several of a name the last."""
    return {finding.what: finding for finding in doctor.examine(path, name, Display())}


def test_this_host():
    found = look()
    assert {"Python", "packages", "extra [server]", "processor", "AES", "kernels", "memory", "disk", "allocator"} <= set(found)
    assert all(found[what].state == "ok" for what in ("Python", "packages", "extra [server]"))
    assert all(finding.todo for finding in found.values() if finding.state != "ok")


@pytest.mark.parametrize(
    "name, replacement, what, state, todo",
    [
        ("sys.version_info", (3, 10, 1), "Python", "wrong", "install Python 3.11 to 3.13"),
        ("instructions_agree", lambda: False, "AES", "wrong", "report this processor"),
        ("keystream.has_instructions", lambda: False, "AES", "so-so", "expect more processor time"),
        ("options.vector_bits", lambda: 128, "processor", "so-so", "expect a fraction"),
        ("options.cache_directory", lambda: None, "kernels", "wrong", "set THREEPC_CACHE"),
        ("DEFAULT_MEMORY", 10**15, "memory", "so-so", "lower budgets.memory"),
        ("glibc_version", lambda: "", "allocator", "so-so", "use a system with glibc"),
        ("_LEAST_DISK", 10**18, "disk", "so-so", "free some"),
        ("importlib.util.find_spec", lambda _: None, "extra [mmlab]", "ok", "pip install 'threepc[mmlab]'"),
        ("PACKAGES", ("numpy", "no-such-package"), "packages", "so-so", "pip install no-such-package"),
    ],
)
def test_what_is_amiss_here_is_found(monkeypatch, name, replacement, what, state, todo):
    monkeypatch.setattr(f"threepc.tasks.doctor.{name}", replacement)
    finding = look()[what]
    assert finding.state == state and finding.todo.startswith(todo)


def test_kernels_that_are_not_compiled_yet(monkeypatch, tmp_path):
    monkeypatch.setattr(options, "cache_directory", lambda: str(tmp_path))
    assert look()["kernels"].todo.startswith("run 'threepc compile'")


def test_nobody_answers(path):
    found = look(path)
    assert found["deployment"].state == "ok" and found["key of client"].state == "ok" and found["port of server"].found.endswith("is free")
    assert found["server"].state == found["provider"].state == "wrong" and "start 'threepc server' there" in found["server"].todo


def test_parties_that_answer(path):
    deployment = load(path)
    parties = [open_provider(deployment), open_server(deployment, None)]
    threads = [threading.Thread(target=party.serve) for party in parties]
    for thread in threads:
        thread.start()
    try:
        found = look(path)
        assert found["server"].state == found["provider"].state == "ok" and "speaks its protocol version" in found["server"].found
        assert "in use" in found["port of server"].found
        (path.parent / "client.secret").unlink()
        found = look(path)  # with the server's key, as on its host
        assert "server" not in found and found["provider"].state == "ok"
        assert [party.observation.plain()["sessions"] for party in parties] == [0, 0]
    finally:
        for party, thread in zip(parties, threads):
            party.stop()
            thread.join()


def test_a_bad_deployment(path, tmp_path):
    (path.parent / "client.secret").chmod(0o644)
    (path.parent / "stranger.secret").write_text("x")
    path.parent.chmod(0o777)
    found = look(path)
    assert found["key of client"].todo.startswith("run 'chmod 600 ")
    assert found["key of stranger"].state == "wrong"
    assert any(f.what == "keys" and f.todo.startswith("run 'chmod go-w ") for f in doctor.examine(path, "client", Display()))
    for secret in path.parent.glob("*.secret"):
        secret.unlink()
    found = look(path)
    assert found["keys"].todo.startswith("copy that of this host's party here") and "server" not in found and "port of server" not in found
    path.write_text("nonsense: 1\n")
    assert look(path)["deployment"].state == "wrong"
    assert look(tmp_path / "nowhere")["deployment"].todo == "'threepc keygen DIR' makes one"


def test_an_address_that_is_not_this_host_s(path):
    deployment = load(path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    finding = doctor._port("server", type(deployment.server)("tcp://192.0.2.1:7", f"tcp://192.0.2.1:{port}", b""))
    assert finding.state == "wrong" and finding.todo.startswith("correct 'listen'")
    assert os.strerror(99) in finding.found
