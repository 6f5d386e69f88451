"""Keys: who may read them, where they are put, and that nothing is overwritten or left half made."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.party import key_files
from threepc.party.deployment import load
from threepc.party.keygen import generate


@pytest.fixture
def directory(tmp_path):
    generate(tmp_path / "keys")
    return tmp_path / "keys"


def test_secret_keys_are_private_and_all_keys_differ(directory):
    keys = [f"{name}.{kind}" for name in ("client", "provider", "server") for kind in ("public", "secret")]
    assert sorted(path.name for path in directory.iterdir()) == sorted([*keys, "deployment.yaml"])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.glob("*.secret"))
    assert len({path.read_bytes() for path in directory.iterdir()}) == 7
    assert directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["deployment.yaml", "client.secret", "provider.public"])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} exists already and is not overwritten"):
        generate(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write keys to .*file: "):
        generate(tmp_path / "file")


def test_the_current_folder_is_not_taken_for_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="keygen: the name of the folder is empty: say where the keys go"):
        generate("")
    assert not list(tmp_path.iterdir())
    assert generate(".")


def test_a_name_that_is_too_long_for_the_file_system(tmp_path):
    with pytest.raises(InputError, match=f"cannot write keys to {tmp_path}/a*: File name too long: choose another directory"):
        generate(tmp_path / ("a" * 300))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a" * 65, "../alice", "a/b", ".hidden", "-x", "zoë", "a\nb", "a b"])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(InputError, match="is no name of a party: write 1 to 64 letters"):
        generate(tmp_path / "keys", ["server", name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["tcp://h:0", "192.0.2.1:7001", "ipc:///tmp/x", "tcp://{}:1"])
def test_addresses_that_are_none(tmp_path, address):
    with pytest.raises(InputError, match=r"keygen: the address of the provider: is .*: write tcp://HOST:PORT"):
        generate(tmp_path / "keys", addresses={"server": "tcp://192.0.2.1:7001", "provider": address})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to(tmp_path, mode):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(InputError, match=f"other users may write to {tmp_path}/keys, and exchange the keys in it: run 'chmod go-w"):
        generate(tmp_path / "keys")
    assert not list((tmp_path / "keys").iterdir())


@pytest.mark.parametrize("per_host", [False, True])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch, per_host):
    written = []

    def full(descriptor, mode):
        if len(written) == 6:
            os.close(descriptor)
            raise OSError(28, "No space left on device")
        written.append(descriptor)
        return os.fdopen(descriptor, mode)

    monkeypatch.setattr(key_files, "os", type("os", (), vars(os) | {"fdopen": staticmethod(full)}))
    with pytest.raises(InputError, match=r"cannot write keys to .*: No space left on device"):
        generate(tmp_path / "some" / "keys", per_host=per_host)
    assert len(written) == 6 and not list(tmp_path.iterdir())


def test_of_two_at_once_one_has_it_all(tmp_path):
    """Neither mixes its keys with the other's, and neither takes back what the other has written."""
    start, failures = threading.Barrier(2), []

    def run():
        start.wait()
        try:
            generate(tmp_path)
        except InputError as error:
            failures.append(str(error))

    tmp_path.chmod(0o700)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1 and "exists already and is not overwritten" in failures[0]
    deployment = load(tmp_path / "deployment.yaml")
    assert all(deployment.key_pair(name) for name in ("server", "provider", "client"))


def test_secrets_are_private_from_the_first_moment(tmp_path, monkeypatch):
    modes = {}
    fdopen = os.fdopen

    def noting(descriptor, mode):
        status = os.fstat(descriptor)
        assert status.st_size == 0
        modes[Path(f"/proc/self/fd/{descriptor}").readlink().name] = status.st_mode & 0o777
        return fdopen(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", noting)
    before = os.umask(0)
    try:
        generate(tmp_path / "keys")
    finally:
        os.umask(before)
    assert {name: mode for name, mode in modes.items() if mode != 0o644} == {
        f"{name}.secret": 0o600 for name in ("server", "provider", "client")
    }


def test_a_folder_for_each_host(tmp_path):
    addresses = {"server": "tcp://192.0.2.1:7001", "provider": "tcp://[2001:db8::2]:7002"}
    paths = generate(tmp_path / "keys", ["server", "provider", "alice", "bob"], addresses, per_host=True)
    listening = {"deployment.yaml", "server.public", "provider.public", "alice.public", "bob.public"}
    held = {
        "server": listening | {"server.secret"},
        "provider": listening | {"provider.secret"},
        "alice": {"deployment.yaml", "server.public", "provider.public", "alice.public", "alice.secret"},
        "bob": {"deployment.yaml", "server.public", "provider.public", "bob.public", "bob.secret"},
    }
    assert {str(path.relative_to(tmp_path / "keys")) for path in paths} == {f"{host}/{name}" for host in held for name in held[host]}
    deployments = {host: load(tmp_path / "keys" / host / "deployment.yaml") for host in held}
    for host, deployment in deployments.items():
        assert deployment.key_pair(host).is_consistent()
        assert (deployment.server.address, deployment.provider.address) == tuple(addresses.values())
        assert (deployment.server.listen, deployment.provider.listen) == ("tcp://0.0.0.0:7001", "tcp://[::]:7002")
        assert deployment.path.parent.stat().st_mode & 0o077 == 0
    assert deployments["server"].clients == deployments["provider"].clients
    assert deployments["server"].clients == deployments["alice"].clients | deployments["bob"].clients


@given(st.lists(st.sampled_from(["server", "provider", "client", "alice", "bob"]), min_size=1, max_size=6))
def test_any_parties(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("keys")
    generate(folder, names)
    assert {path.stem for path in folder.glob("*.secret")} == {path.stem for path in folder.glob("*.public")} == set(names)
