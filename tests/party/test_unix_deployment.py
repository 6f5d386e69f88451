"""Parties of one host without keys: what keygen writes for them, what else may stand there, who may ask, and how often."""

import dataclasses
import json
import logging
import re
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from tests.party.parties import StillRunsError, assert_close, images, small_model
from threepc.cli.main import status
from threepc.console import Display
from threepc.errors import InputError, RunError
from threepc.party.deployment import ONE_USER, load
from threepc.party.keygen import generate, generate_unix
from threepc.party.places import Places
from threepc.party.queries import read_used
from threepc.party.session import log
from threepc.party.three_hosts import open_client, open_provider, open_server
from threepc.tasks import doctor, reload

MODEL = small_model()


@pytest.fixture
def folder():
    """A new one, of mode 0700, whose path leaves room for a socket's name."""
    made = Path(tempfile.mkdtemp(prefix="threepc-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def path(folder):
    (written,) = generate_unix(folder / "parties")
    return written


def edited(path: Path, **changes: object) -> Path:
    """`changes` of dotted keys, with __ for the dot."""
    document = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    path.write_text(yaml.safe_dump(document, allow_unicode=True))
    return path


def test_what_keygen_writes_loads_and_holds_no_key(path):
    deployment = load(path)
    assert deployment.is_unix and [each.name for each in path.parent.iterdir()] == ["deployment.yaml"]
    assert deployment.server.address == deployment.server.listen == f"ipc://{path.parent}/server"
    assert deployment.provider.address == f"ipc://{path.parent}/provider" and path.parent.stat().st_mode & 0o777 == 0o700
    assert not deployment.clients and not deployment.authorised("server") and not deployment.authorised("provider")
    assert all(deployment.key_pair(name) is None for name in ("server", "provider", "client", "local"))
    assert deployment.name_of(None) == "local" and "keep nothing secret from each other" in path.read_text()


@pytest.mark.parametrize("name", ["a b", "zoë", "it's", 'a "b"', "# no: comment", "{server}"])
def test_folders_of_any_name(folder, name):
    (path,) = generate_unix(folder / name)
    assert load(path).server.address == f"ipc://{folder}/{name}/server"


def test_a_link_to_a_folder_is_followed(folder):
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to("real")
    (path,) = generate_unix(folder / "link")
    assert load(path).server.address == f"ipc://{folder}/real/server"


@pytest.mark.parametrize(
    "name, mode, reason",
    [
        ("open", 0o755, "other users may enter .*/open: run 'chmod 700 .*/open'"),
        ("open", 0o777, "other users may write to .*/open"),
        ("long" * 30, None, "is longer than 107 bytes: choose a shorter directory"),
        ("a\nb", None, "write tcp://HOST:PORT"),
        ("a\udc80b", None, "write tcp://HOST:PORT"),
    ],
)
def test_folders_that_do_not_do(folder, name, mode, reason):
    if mode is not None:
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    with pytest.raises(InputError, match=reason) as caught:
        generate_unix(folder / name)
    assert "\n" not in str(caught.value) and not list(folder.rglob("deployment.yaml")) and (mode or not list(folder.iterdir()))


def test_the_command_says_aloud_what_it_makes(folder, capsys):
    assert status(["keygen", str(folder / "parties"), "--unix"]) == 0
    said = capsys.readouterr().out
    assert ONE_USER in said and f"--deployment {folder}/parties" in said
    for words in (["--party", "alice"], ["--server", "tcp://192.0.2.1:7001"], ["--provider", "tcp://192.0.2.1:7002"], ["--per-host"]):
        assert status(["keygen", str(folder / "other"), "--unix", *words]) == 2
        assert "leave out --party, --server, --provider, --per-host" in capsys.readouterr().err
    assert status(["keygen", "", "--unix"]) == 2 and "the name of the folder is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"clients": ["client.public"]}, "clients: is nothing that parties on Unix sockets have: remove it"),
        ({"clients": []}, "clients: is nothing that parties on Unix sockets have"),
        ({"server__public_key": "server.public"}, "server.public_key: is nothing that parties on Unix sockets have"),
        ({"provider__listen": "tcp://0.0.0.0:7002"}, "provider.listen: is nothing that parties on Unix sockets have"),
        ({"provider__address": "tcp://127.0.0.1:7002"}, "server.address and provider.address: one is a Unix socket and the other is not"),
        ({"server__address": "ipc://server"}, "server.address: is 'ipc://server': write tcp://HOST:PORT, .*, or ipc:///PATH"),
        (
            {"server__address": "ipc:///no/such/folder/server"},
            "server.address: the directory of ipc:///no/such/folder/server cannot be used",
        ),
        ({"server__address": "ipc:///" + "x" * 200}, "server.address: the path of ipc:///x* is longer than 107 bytes"),
        ({"queries__alice": 5}, "queries.alice: clients over Unix sockets have no names: write default, or local"),
        ({"server__key": 5}, "server.key: is not a key of this file"),
    ],
)
def test_mistakes_are_named(path, changes, words):
    with pytest.raises(InputError, match=f"^{re.escape(str(edited(path, **changes)))}: {words}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_was_opened_later(path):
    path.parent.chmod(0o750)
    with pytest.raises(InputError, match=r"deployment.yaml: server.address: other users may enter .*: run 'chmod 700"):
        load(path)


def test_a_client_of_a_name_is_refused(path):
    for name in ("alice", "server"):
        with pytest.raises(InputError, match=f"clients over Unix sockets have neither keys nor names: leave the name '{name}' out"):
            load(path).client_pair(name)


def test_nobody_is_added_or_revoked_and_what_was_asked_is_listed(path, capsys):
    for action in ("add", "revoke", "rotate"):
        assert status(["clients", action, "alice", "--deployment", str(path)]) == 2
        assert "clients over Unix sockets have no keys: whoever runs as this user may connect" in capsys.readouterr().err
    edited(path, queries__local=10)
    (path.parent / "queries.json").write_text('{"version": 1, "used": {"local": {"small": 3}}}')
    assert status(["clients", "list", "--deployment", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["local  has no key: whoever runs as this user", "       3 of 10 images of small"]
    assert status(["clients", "list", "--deployment", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "local", "public_key": None, "limit": 10, "images": {"small": 3}}]


@pytest.fixture
def parties(path, monkeypatch):
    """Server and provider of a deployment with a limit, as threads, and the deployment."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    deployment = load(edited(path, queries__local=4, timeouts__answer=20))
    running = [open_provider(deployment), open_server(deployment, MODEL)]
    threads = [threading.Thread(target=party.serve) for party in running]
    for thread in threads:
        thread.start()
    yield deployment, running
    for party, thread in zip(running, threads, strict=True):
        party.stop()
        thread.join()


def test_all_clients_together_have_one_budget_and_the_name_local(parties, caplog):
    deployment, _ = parties
    caplog.set_level(logging.INFO, log.name)
    with open_client(deployment, cache=False) as one, open_client(deployment, "local", cache=False) as other:
        for session in (one, other):
            assert_close(MODEL, images(2), session.infer(images(2))[0])
        assert read_used(deployment.path.parent / "queries.json") == {"local": {MODEL.public.called: 4}}
        with pytest.raises(RunError, match="local has used 4 of its 4 images of small"):
            one.infer(images(1))
    assert sum(bool(re.fullmatch(r"session [0-9a-f]{8}: client local at process \d+", line)) for line in caplog.messages) == 2
    assert any(re.search(r"client local at process \d+ with the server at process \d+", line) for line in caplog.messages)


def test_a_process_holds_its_part_of_the_places_and_leaves_the_others_theirs(parties):
    """Of clients that have no keys each process counts as one."""
    deployment, (_, server) = parties
    server._places = Places(3, of_one=1)

    def go(text):
        raise StillRunsError(text)

    with open_client(deployment, cache=False):
        with pytest.raises(StillRunsError, match="this one is number 1 in the queue"):
            open_client(deployment, tell=go, cache=False)
        with server._places.taken(1, go, every=0.01):
            pass


def test_the_doctor_says_that_nothing_is_secret(parties, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S", 2.0)
    deployment, _ = parties
    found = {finding.what: finding for finding in doctor.examine(deployment.path, "client", Display())}
    assert found["keys"].state == "so-so" and ONE_USER in found["keys"].found and "--per-host" in found["keys"].todo
    assert found["server"].state == found["provider"].state == "ok" and "any client of this user" in found["deployment"].found
    assert "in use: by the server" in found["socket of server"].found


def test_the_doctor_looks_where_sockets_would_be(path, monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_S", 0.1)
    (path.parent / "server").write_text("mine")
    found = {finding.what: finding for finding in doctor.examine(path, "client", Display())}
    assert found["socket of server"].state == "wrong" and found["socket of server"].todo == "choose another path"
    assert found["socket of provider"].found.endswith("is free, and no other user may enter its folder")
    path.parent.chmod(0o755)
    found = {finding.what: finding for finding in doctor.examine(path, "client", Display())}
    assert found["deployment"].state == "wrong" and "other users may enter" in found["deployment"].found


class Party:
    """Notes how often it is told whom to let in."""

    role = "server"

    def __init__(self):
        self.told, self.queries = [], self
        self.limits = []

    def authorise(self, keys, name_of):
        self.told.append((set(keys), name_of(None)))

    def limit(self, limits):
        self.limits.append(limits.of("local"))


def test_a_running_party_reads_its_limits_again_and_changes_its_kind_never(path, folder, caplog):
    caplog.set_level(logging.INFO, log.name)
    party = Party()
    watch = reload.Reload(load(path), party)
    watch.look(asked=True)
    assert caplog.messages == ["every process of this user may connect: no change"] and party.told == [(set(), "local")]
    edited(path, queries__default=7)
    watch.look()
    assert party.limits == [7] and caplog.messages[1:] == ["the limits of queries have changed"]
    generate(folder / "keys")
    for each in (folder / "keys").iterdir():
        shutil.copy(each, path.parent)
    watch.look()
    assert "Unix sockets took the place of keys, or keys theirs: restart the server" in caplog.messages[-1] and len(party.told) == 2


def test_a_network_may_be_simulated(path):
    assert dataclasses.replace(load(edited(path, network="lan", ring=32)), queries=None).network == "lan"
