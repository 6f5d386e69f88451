"""deployment.yaml is read again: when, what a party is told of it, and that a bad file changes nothing."""

import logging
import os
import signal
import subprocess
import sys

import pytest

from threepc.errors import RunError
from threepc.party.client_list import add, revoke, rotate
from threepc.party.deployment import load
from threepc.party.keygen import generate
from threepc.party.queries import Limits, QueryCounts, read_used
from threepc.party.session import log
from threepc.tasks import reload
from threepc.transport.keys import KeyPair


class Party:
    """Notes whom it is told to let in, by name."""

    role, address = "server", "tcp://192.0.2.1:7001"

    def __init__(self):
        self.told, self.queries = [], QueryCounts()

    def authorise(self, keys, name_of):
        self.told.append(sorted(map(name_of, keys)))


@pytest.fixture
def path(tmp_path):
    generate(tmp_path / "keys")
    return tmp_path / "keys" / "deployment.yaml"


@pytest.fixture
def party(caplog):
    caplog.set_level(logging.INFO, log.name)
    return Party()


def test_clients_come_and_go(path, party, caplog):
    watch = reload.Reload(load(path), party)
    watch.look()
    watch.look()
    assert party.told == [["client"]] and not caplog.messages
    add(path, "alice")
    watch.look()
    assert party.told[1:] == [["alice", "client"]] and caplog.messages == ["2 clients may connect: alice added"]
    revoke(path, "client")
    watch.look()
    assert party.told[2:] == [["alice"]] and caplog.messages[1:] == ["1 client may connect: client revoked"]
    rotate(path, "alice")
    watch.look()
    assert party.told[3:] == [["alice"]] and caplog.messages[2:] == ["1 client may connect: alice added, alice revoked"]
    watch.look()
    assert len(party.told) == 4


def test_the_provider_lets_the_server_in_too(path, party):
    party.role = "provider"
    reload.Reload(load(path), party).look()
    assert party.told == [["client", "server"]]


def test_who_asks_is_answered(path, party, caplog):
    watch = reload.Reload(load(path), party)
    watch.look(asked=True)
    watch.look(asked=True)
    assert caplog.messages == ["1 client may connect: no change"] * 2


@pytest.mark.parametrize("text", ["", "clients: [nobody.public]", None])
def test_a_bad_file_changes_nothing_and_a_good_one_counts_again(path, party, caplog, text):
    good = path.read_text()
    watch = reload.Reload(load(path), party)
    watch.look()
    path.unlink()
    if text is not None:
        path.write_text(text)
    watch.look()
    watch.look()
    (message,) = caplog.messages
    assert message.startswith(f"the clients stay as they were: {path}: ") and party.told == [["client"]]
    path.write_text(good)
    add(path, "alice")
    watch.look()
    assert party.told[1:] == [["alice", "client"]]


def test_a_key_that_is_overwritten_where_it_lies(path, party, caplog):
    """The folder stays as it was then; whose key it had been is out."""
    watch, key = reload.Reload(load(path), party), path.parent / "client.public"
    watch.look()
    key.write_bytes(KeyPair.new().public)
    os.utime(key, (1, 1))  # a time of its own, however coarse the file system's clock is
    watch.look()
    assert party.told == [["client"]] * 2 and caplog.messages == ["1 client may connect: client added, client revoked"]


def test_a_list_that_comes_before_its_key(path, party, caplog):
    """The two files of a new client are copied one after the other."""
    watch = reload.Reload(load(path), party)
    watch.look()
    add(path, "alice")
    key = (path.parent / "alice.public").rename(path.parent.parent / "alice.public")
    watch.look()
    assert len(party.told) == 1 and "alice.public' cannot be read" in caplog.messages[0]
    key.rename(path.parent / "alice.public")
    watch.look()
    assert party.told[1:] == [["alice", "client"]]


def test_what_needs_a_restart_is_said(path, party, caplog):
    watch = reload.Reload(load(path), party)
    path.write_text(path.read_text().replace("ring: 48 ", "ring: 64 "))
    watch.look()
    assert caplog.messages == [f"{path}: only clients and queries are read again: restart the server for the rest of it"]


PROGRAM = """
import signal, sys, threading
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # with nohup, tests have it ignored, and their children would
sys.path[:] = {path!r}
from threepc.party.deployment import load
from threepc.party.observation import Observation
from threepc.tasks.provide import log_to_output, serve_until_signal

class Party:
    role, address = "server", "tcp://192.0.2.1:7001"
    observation, ended = Observation("server"), threading.Event()
    def authorise(self, keys, name_of):
        pass
    def serve(self):
        self.ended.wait()
    def quiet_since(self):
        return 0.0
    def drain(self, seconds):
        return 0
    def stop(self):
        self.ended.set()

log_to_output()
serve_until_signal(Party(), load({file!r}), grace=30.0)
"""


def start(path, stdin):
    program = PROGRAM.format(path=sys.path, file=str(path))
    process = subprocess.Popen([sys.executable, "-c", program], stdin=stdin, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().endswith("the server listens at tcp://192.0.2.1:7001\n")
    return process


def test_a_signal_asks(path):
    """Without a terminal, as under a service manager: SIGHUP reads the file again, SIGTERM ends the party."""
    with start(path, subprocess.DEVNULL) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline().endswith("1 client may connect: no change\n")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_a_closed_terminal_ends_it(path):
    """Whoever starts a party in a terminal and closes that finds it ended, not running on."""
    ours, theirs = os.openpty()
    with start(path, theirs) as process:
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == ""
    assert process.returncode == -signal.SIGHUP
    os.close(ours)
    os.close(theirs)


def test_limits_of_queries_change_and_where_they_cannot_be_counted_clients_come_and_go_nevertheless(path, party, caplog):
    watch = reload.Reload(load(path), party)
    party.queries = QueryCounts(path.parent / "queries.json")
    watch.look()
    path.write_text(path.read_text() + "queries: {default: 2, client: 1}\n")
    watch.look()
    assert caplog.messages == ["the limits of queries have changed"]
    with pytest.raises(RunError, match="client has used 0 of its 1 images"), party.queries.charged("client", "m@0", 2):
        pass
    with party.queries.charged("alice", "m@0", 2):
        pass
    assert read_used(path.parent / "queries.json") == {"alice": {"m@0": 2}}
    assert load(path).queries == Limits(2, {"client": 1})
    party.queries = QueryCounts(path / "no folder" / "queries.json")
    path.write_text(path.read_text().replace("client: 1}", "client: 3}"))
    revoke(path, "client")
    watch.look()
    (warned,) = [message for message in caplog.messages if "stay as they were" in message]
    assert "the limits of queries stay as they were: cannot write" in warned
    assert party.told[-1] == [] and caplog.messages[-1].endswith("may connect: client revoked")
