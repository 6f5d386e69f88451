"""Clients are added, revoked and given new keys in a deployment.yaml that somebody has written by hand, comments and all."""

import threading

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.party import client_list
from threepc.party.client_list import add, revoke, rotate, with_clients
from threepc.party.deployment import load
from threepc.party.keygen import generate
from threepc.transport.keys import KeyPair


@pytest.fixture
def path(tmp_path):
    generate(tmp_path / "keys")
    return tmp_path / "keys" / "deployment.yaml"


def everything(folder):
    """The content of each file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_client_comes(path):
    before = path.read_text()
    made = add(path, "alice")
    folder = path.parent / "alice"
    assert path.read_text() == before.replace("  - client.public\n", "  - client.public\n  - alice.public\n")
    assert {file.name for file in folder.iterdir()} == {
        "deployment.yaml",
        "server.public",
        "provider.public",
        "alice.public",
        "alice.secret",
    }
    assert set(made) == {path, path.parent / "alice.public", *folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700 and (folder / "alice.secret").stat().st_mode & 0o777 == 0o600
    theirs, ours = load(folder / "deployment.yaml"), load(path)
    assert theirs.client_pair("alice").public == ours.clients["alice"] and list(theirs.clients) == ["alice"]
    assert theirs.server == ours.server and theirs.provider == ours.provider
    assert not (path.parent / "alice.secret").exists()


def test_a_client_brings_its_own_key(path):
    pair = KeyPair.new()
    (path.parent / "alice.public").write_bytes(pair.public)
    assert add(path, "alice") == [path]
    assert load(path).clients["alice"] == pair.public and not (path.parent / "alice").exists()


def test_a_client_goes_and_may_come_again(path):
    text = path.read_text()
    add(path, "alice")
    first = load(path).clients["alice"]
    assert revoke(path, "alice") == [path, path.parent / "alice.public"]
    assert path.read_text() == text and not (path.parent / "alice.public").exists()
    with pytest.raises(InputError, match=r"holds keys of another alice: choose another name, or move alice and alice.secret away"):
        add(path, "alice")
    (path.parent / "alice").rename(path.parent / "old")
    add(path, "alice")
    assert load(path).clients["alice"] != first


def test_the_last_client_goes(path):
    revoke(path, "client")
    assert load(path).clients == {}
    assert "clients: []   " in path.read_text()
    add(path, "alice")
    assert list(load(path).clients) == ["alice"]


@pytest.mark.parametrize("flat", [True, False])
def test_new_keys(path, flat):
    name = "client" if flat else "alice"
    if not flat:
        add(path, name)
    folder = path.parent if flat else path.parent / name
    before, text = load(path).clients[name], path.read_text()
    rotate(path, name)
    after = load(path)
    assert after.clients[name] != before and path.read_text() == text
    assert load(folder / "deployment.yaml").client_pair(name).public == after.clients[name]
    assert load(path.parent / name / "deployment.yaml").client_pair(name).public == after.clients[name]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.parent.rglob("*.secret"))


@pytest.mark.parametrize(
    "action, name, words",
    [
        (add, "client", "clients: client is there already: choose another name, or 'threepc clients rotate client'"),
        (add, "server", "holds keys of another server: choose another name"),
        (add, "../alice", "is no name of a party"),
        (add, "a" * 300, "is no name of a party"),
        (revoke, "bob", "clients: 'bob' is not there: name one of client"),
        (rotate, "bob", "clients: 'bob' is not there: name one of client"),
        (revoke, "server", "clients: 'server' is not there: name one of client"),
    ],
)
def test_what_is_refused_changes_nothing(path, action, name, words):
    before = everything(path.parent)
    with pytest.raises(InputError, match=words) as caught:
        action(path, name)
    assert "\n" not in str(caught.value) and everything(path.parent) == before


@pytest.mark.parametrize("action", [add, revoke])
def test_a_key_that_two_would_have(path, action):
    (path.parent / "alice.public").write_bytes((path.parent / "client.public").read_bytes())
    before = everything(path.parent)
    with pytest.raises(InputError, match="two parties have the same public key"):
        add(path, "alice")
    assert everything(path.parent) == before


def test_a_failure_leaves_everything_as_it_was(path, monkeypatch):
    def full(*_):
        raise InputError("no space left on device")

    monkeypatch.setattr(client_list, "write_atomically", full)
    before = everything(path.parent)
    with pytest.raises(InputError, match="no space left"):
        add(path, "alice")
    assert everything(path.parent) == before and not (path.parent / "alice").exists()


@pytest.mark.parametrize(
    "text",
    [
        "clients:\n  - {items}\n",
        "clients: # who\n- {items}\nring: 48\n",
        "clients:\n    - {items} # the first\n\n# after\nring: 48\n",
        "ring: 48\nclients: [{items}]  # who\nreveal: logits",
        "clients: [\n  {items},\n]\n",
        "clients:\n  - {items}",
        "clients:\r\n  - {items}\r\nring: 48\r\n",
        'clients:\n  - "{items}"\n  # the end\nring: 48\n',
    ],
)
@given(st.lists(st.sampled_from(["a.public", "b.public", "c.public"]), max_size=3, unique=True).map(sorted))
def test_lists_as_they_may_be_written(text, files):
    text = text.format(items="a.public")
    document = yaml.safe_load(text)
    once = with_clients(text, files)
    assert yaml.safe_load(once) == document | {"clients": files}
    assert yaml.safe_load(with_clients(once, ["a.public"])) == document
    comments = [line[line.index("#") :] for line in text.splitlines() if "#" in line]
    assert all(comment in once for comment in comments if "a.public" in files or comment != "# the first")


def test_a_list_that_only_a_person_can_edit(path):
    path.write_text(path.read_text().replace("  - client.public", "  -\n    client.public"))
    before = everything(path.parent)
    assert list(load(path).clients) == ["client"]
    with pytest.raises(InputError, match=r"clients: is written in a way that only a person can edit: write one line '- NAME.public' each"):
        add(path, "alice")
    assert everything(path.parent) == before


def test_two_at_once_lose_nothing(path):
    names = [f"client{number}" for number in range(8)]
    threads = [threading.Thread(target=add, args=(path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load(path).clients) == ["client", *names]


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "real.yaml").write_text(path.read_text())
    path.unlink()
    path.symlink_to(tmp_path / "real.yaml")
    add(path, "alice")
    assert path.is_symlink() and list(load(path).clients) == ["client", "alice"]


def test_keys_in_folders_of_their_own(path):
    (path.parent / "parties").mkdir()
    (path.parent / "server.public").rename(path.parent / "parties" / "server.public")
    path.write_text(path.read_text().replace("key: server.public", "key: parties/server.public"))
    add(path, "alice")
    assert load(path.parent / "alice" / "deployment.yaml").client_pair("alice")
    (path.parent / "parties" / "server.public").rename(path.parent.parent / "server.public")
    path.write_text(path.read_text().replace("key: parties/server.public", "key: ../server.public"))
    with pytest.raises(InputError, match=r"server.public_key: is outside of .*: move the key there"):
        add(path, "bob")
