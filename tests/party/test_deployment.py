"""deployment.yaml: what is generated loads, and every mistake is named with file, key and fix."""

import os
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.party.deployment import Budgets, Timeouts, load
from threepc.party.keygen import generate
from threepc.transport.keys import KeyPair


@pytest.fixture
def directory(tmp_path):
    generate(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def edit(directory):
    """Change the parsed file with a function, write it back, and return its path."""
    path = directory / "deployment.yaml"

    def change(function):
        document = yaml.safe_load(path.read_text())
        function(document)
        path.write_text(yaml.safe_dump(document))
        return path

    return change


def setting(key, value):
    """A function that sets `key`, dotted, in the parsed file."""

    def change(document):
        *path, last = key.split(".")
        for name in path:
            document = document.setdefault(name, {})
        document[last] = value

    return change


def test_what_keygen_writes_loads(directory):
    deployment = load(directory / "deployment.yaml")
    assert deployment.server.address == deployment.server.listen == "tcp://127.0.0.1:7001"
    assert deployment.provider.address == "tcp://127.0.0.1:7002"
    assert (deployment.ring, deployment.frac_bits, deployment.drelu_window) == (48, None, None)
    assert (deployment.reveal, deployment.network) == ("logits", "none")
    assert (deployment.timeouts, deployment.budgets) == (Timeouts(), Budgets())
    known = {"server": deployment.server.public_key, "provider": deployment.provider.public_key, "client": deployment.clients["client"]}
    for name, public in known.items():
        pair = deployment.key_pair(name)
        assert pair.public == public and pair.is_consistent()
        assert pair.secret.decode() not in repr(deployment) + repr(pair)


def test_more_clients(tmp_path):
    generate(tmp_path, ["server", "provider", "client", "alice"])
    deployment = load(tmp_path / "deployment.yaml")
    assert list(deployment.clients) == ["client", "alice"]
    assert deployment.clients["alice"] == deployment.client_pair("alice").public
    names = [deployment.name_of(deployment.key_pair(name).public) for name in ("server", "provider", "client", "alice")]
    assert names == ["server", "provider", "client", "alice"] and deployment.name_of(KeyPair.new().public) is None


def test_everything_may_be_set(edit):
    def change(document):
        document |= {"ring": 32, "frac_bits": 12, "drelu_window": [4, 20], "reveal": "label", "network": "wan352", "links": "server=1G"}
        document["relu_messages"] = 2
        document["server"]["listen"] = "tcp://0.0.0.0:7001"
        document["timeouts"] = {"connect": 1.5}
        document["budgets"] = {"client": 0.5, "provider": 1000, "memory": 6000}

    deployment = load(edit(change))
    assert (deployment.ring, deployment.frac_bits, deployment.drelu_window) == (32, 12, (4, 20))
    assert (deployment.reveal, deployment.network, deployment.links, deployment.relu_messages) == ("label", "wan352", "server=1G", "2")
    assert deployment.server.listen == "tcp://0.0.0.0:7001" and deployment.server.address == "tcp://127.0.0.1:7001"
    assert deployment.timeouts == Timeouts(1.5, 120.0, 600.0) and deployment.budgets == Budgets(500_000, 10**9, 6 * 10**9)


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("ring", 47, "ring: is 47: choose one of 64, 48, 40, 32, 28, 24"),
        ("ring", "48", "ring: is '48': choose"),
        ("relu_messages", 3, "relu_messages: is 3: choose one of 4, 2, 6, auto, auto-online"),
        ("ring", 48.0, "ring: is 48.0: choose"),
        ("frac_bits", 24, "frac_bits: is 24: write a whole number from 1 to 16"),
        ("frac_bits", True, "frac_bits: is True: write"),
        ("frac_bits", 1.5, "frac_bits: is 1.5: write"),
        ("drelu_window", [16], "drelu_window: is [16]: write [LOW, HIGH] with 0 <= LOW < HIGH <= 46"),
        ("drelu_window", [20, 20], "drelu_window: is [20, 20]"),
        ("drelu_window", [0, 47], "drelu_window: is [0, 47]"),
        (
            "drelu_window",
            [2, 9],
            "drelu_window: drelu-window 2:9: nothing of it is left above the 16 bits that a truncation removes: choose",
        ),
        ("frac_bits", 17, "frac_bits: is 17: write a whole number from 1 to 16"),
        ("drelu_window", ["a", 3], "drelu_window: is"),
        ("reveal", "everything", "reveal: is 'everything': choose one of logits, label"),
        ("network", "dsl", "network: is 'dsl': choose one of none, lan, lan10, wan, wan352"),
        ("links", "server=fast", "links: is 'server=fast': 'server=fast' is not PARTY=RATE"),
        ("links", 1, "links: is 1: '?' is not PARTY=RATE"),
        ("timeouts.answer", 0, "timeouts.answer: is 0: write a positive number"),
        ("timeouts.answer", float("inf"), "timeouts.answer: is inf"),
        ("timeouts.answer", float("nan"), "timeouts.answer: is nan"),
        ("timeouts.answer", 604801, "timeouts.answer: is 604801: write a positive number, at most 604800"),
        ("timeouts.connect", "30 s", "timeouts.connect: is '30 s'"),
        ("timeouts.wait", 3, "timeouts.wait: is not a key of this file: remove it"),
        ("timeouts", 3, "timeouts must be a mapping"),
        ("budgets.client", -1, "budgets.client: is -1: write"),
        ("budgets.client", 1e308, "budgets.client: is 1e+308: write a positive number, at most 1000000"),
        ("budgets.server", 1, "budgets.server: is not a key"),
        ("queries.default", -1, "queries.default: is -1: write a whole number from 0 to"),
        ("queries.alice", "many", "queries.alice: is 'many': write a whole number from 0 to"),
        ("rings", 48, "rings: is not a key of this file: remove it or correct its name"),
        ("server", None, "server must be a mapping"),
        ("server.address", "10.0.0.1:7001", "server.address: is '10.0.0.1:7001': write tcp://HOST:PORT"),
        ("server.address", "ipc:///tmp/x", "server.address and provider.address: one is a Unix socket and the other is not: write tcp"),
        ("server.address", "ipc://relative", "server.address: is 'ipc://relative': write tcp"),
        ("server.listen", "ipc:///tmp/x", "server.listen: is 'ipc:///tmp/x': write tcp"),
        ("server.address", 7001, "server.address: is 7001: write"),
        ("server.address", "tcp://a..b!!:17001", "server.address: is 'tcp://a..b!!:17001': write tcp://HOST:PORT"),
        (
            "server.address",
            "tcp://müller.invalid:17001",
            "server.address: is 'tcp://müller.invalid:17001': write tcp://HOST:PORT, HOST a name in A",
        ),
        ("provider.address", "tcp://192.0.2.1:0", "provider.address: is 'tcp://192.0.2.1:0': write tcp://HOST:PORT"),
        ("server.address", "tcp://" + "x" * 5000, "server.address: is 'tcp://xxx"),
        ("server.listen", "tcp://*", "server.listen: is 'tcp://*': write"),
        ("provider.public_key", "a\0b", "provider.public_key: the key file"),
        ("provider.public_key", "nobody.public", "cannot be read: No such file or directory: 'threepc keygen DIR' makes keys"),
        ("provider.public_key", 3, "provider.public_key: is 3: write the name of a .public file"),
        ("provider.public_key", "deployment.yaml", "holds no key of 40 characters"),
        ("provider.public_key", "server.public", "two parties have the same public key"),
        ("clients", "client.public", "clients: must be a list of .public files"),
        ("clients", ["client.public", "nobody.public"], "clients[1]: the key file"),
        ("clients", ["client.public", "client.public"], "two parties have the same public key"),
    ],
)
def test_mistakes_are_named(edit, key, value, words):
    path = edit(setting(key, value))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["server", "provider", "clients", "server.address", "server.public_key"])
def test_missing_keys_are_named(edit, key):
    def change(document):
        *path, last = key.split(".")
        for name in path:
            document = document[name]
        del document[last]

    with pytest.raises(InputError, match=f"{key}: is missing: add it, or make a new file with 'threepc keygen DIR'"):
        load(edit(change))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "the file must be a mapping"),
        ("- a\n- b\n", "the file must be a mapping"),
        ("server: {\n", r"line 2: .*: correct the YAML"),
        ("ring: 48\nring: 64\n", "line 2: the key 'ring' occurs twice"),
        ("1: 2\n", "line 1: 1 is no key"),
        ("server: !!python/object/apply:os.system ['true']\n", "line 1: could not determine a constructor"),
        ("[" * 3000, "is not YAML|correct the YAML"),
        ("\0", "is not YAML"),
    ],
)
def test_what_is_no_deployment_is_refused(tmp_path, text, words):
    path = tmp_path / "deployment.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load(path)


@given(st.binary(max_size=200))
def test_arbitrary_files_are_refused_with_a_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "arbitrary.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"arbitrary.yaml: "):
        load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"deployment.yaml: cannot be read: No such file or directory: 'threepc keygen DIR' makes one"):
        load(tmp_path / "deployment.yaml")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_readable_secrets_are_refused(directory, mode):
    secret = directory / "client.secret"
    secret.chmod(mode)
    deployment = load(directory / "deployment.yaml")
    with pytest.raises(InputError, match=f"other users may read the secret key of client: run 'chmod 600 {secret}'"):
        deployment.key_pair("client")
    assert deployment.key_pair("server")


def test_a_missing_secret(directory):
    deployment = load(directory / "deployment.yaml")
    (directory / "server.secret").unlink()
    with pytest.raises(
        InputError, match=r"the secret key of server .*server.secret' cannot be read: No such file .*: 'threepc keygen DIR'"
    ):
        deployment.key_pair("server")


@pytest.mark.parametrize("content", ["", "%%%", "~" * 40, "x" * 41, "#" * 40])
def test_a_malformed_secret(directory, content):
    deployment = load(directory / "deployment.yaml")
    (directory / "server.secret").write_text(content)
    with pytest.raises(InputError, match=r"the secret key of server .* holds no key of 40 characters") as caught:
        deployment.key_pair("server")
    assert not content or content not in str(caught.value)


def test_a_secret_of_another_pair(directory):
    deployment = load(directory / "deployment.yaml")
    (directory / "server.secret").write_bytes(KeyPair.new().secret)
    with pytest.raises(InputError, match=r"server.secret does not belong to server.public beside it"):
        deployment.key_pair("server")


def test_a_party_that_the_deployment_does_not_know(directory):
    deployment = load(directory / "deployment.yaml")
    stranger = KeyPair.new()
    for name, key in (("stranger", "clients"), ("provider", "provider")):
        (directory / f"{name}.public").write_bytes(stranger.public)
        (directory / f"{name}.secret").write_bytes(stranger.secret)
        (directory / f"{name}.secret").chmod(0o600)
        with pytest.raises(InputError, match=f"does not list the key in {name}.public: add it under '{key}'"):
            deployment.key_pair(name)


@pytest.mark.parametrize(
    "line, words",
    [
        ("ring: 2020-13-45", "ring: is '2020-13-45': choose one of 64, 48, 40, 32, 28, 24"),
        ("ring: !!timestamp nonsense", "line .*: 'nonsense' is no tag:yaml.org,2002:timestamp: correct the YAML"),
        ("ring: !!int ''", "line .*: '' is no tag:yaml.org,2002:int"),
        ("ring: !!bool maybe", "line .*: 'maybe' is no tag:yaml.org,2002:bool"),
        ("ring: " + "9" * 5000, "line .*: '9+.*9+' is no tag:yaml.org,2002:int"),
        ("timeouts: {connect: 1e30}", "timeouts.connect: is 1e.30: write a positive number, at most 604800"),
        ("budgets: {client: 1e400}", "budgets.client: is inf: write"),
    ],
)
def test_values_as_they_are_written(directory, line, words):
    path = directory / "deployment.yaml"
    path.write_text(re.sub(f"(?m)^{line.split(':')[0]}:.*(\n  .*)*", line, path.read_text()))
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: {words}") as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_number_with_an_exponent_is_a_number(directory):
    path = directory / "deployment.yaml"
    path.write_text(path.read_text().replace("connect: 300 ", "connect: 3e1 ").replace("client: 256", "client: 2.5e+2"))
    deployment = load(path)
    assert deployment.timeouts.connect == 30.0 and deployment.budgets.client == 250_000_000


def test_an_alias_that_grows_is_cut_short(directory):
    """Nine lists of nine of the one before: written out, a gigabyte."""
    bomb = "x0: &x0 [lol]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 10))
    path = directory / "deployment.yaml"
    path.write_text(bomb + path.read_text().replace("clients:  ", "others:  ") + "\nclients: [*x9]\n")
    with pytest.raises(InputError, match=r"write the name of a .public file") as caught:
        load(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["deployment.yaml", "server.public", "server.secret"])
def test_what_is_no_regular_file_is_not_waited_for(directory, name):
    (directory / name).unlink()
    os.mkfifo(directory / name, 0o600)
    with pytest.raises(InputError, match=f"{name}.* cannot be read: it is not a regular file"):
        load(directory / "deployment.yaml").key_pair("server")


def test_a_file_that_is_far_too_long(directory):
    with (directory / "deployment.yaml").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"deployment.yaml: cannot be read: it is longer than 1048576 bytes"):
        load(directory / "deployment.yaml")


@pytest.mark.parametrize("name", ["server", "provider"])
def test_the_server_is_no_client(directory, name):
    deployment = load(directory / "deployment.yaml")
    assert deployment.key_pair(name)
    with pytest.raises(InputError, match=rf"deployment.yaml: the {name} is not a client: name one that 'clients' lists \(client\)"):
        deployment.client_pair(name)


def test_a_client_of_another_name(directory):
    """As in the folder that alice got, by whoever leaves --name out."""
    deployment = load(directory / "deployment.yaml")
    with pytest.raises(InputError, match=r"no alice.public beside it: name a client that 'clients' lists \(client\), with --name"):
        deployment.client_pair("alice")
    with pytest.raises(InputError, match=r"no a{80}.public beside it: name a client"):
        deployment.client_pair("a" * 300)


def test_a_secret_that_a_service_manager_hands_over(directory, tmp_path, monkeypatch):
    """systemd and Kubernetes put it into a folder of its own, where the service's group may read it; nobody else."""
    deployment = load(directory / "deployment.yaml")
    (tmp_path / "credentials").mkdir()
    secret = (directory / "server.secret").rename(tmp_path / "credentials" / "server.secret")
    with pytest.raises(InputError, match="cannot be read"):
        deployment.key_pair("server")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    secret.chmod(0o440)
    assert deployment.key_pair("server").is_consistent()
    assert deployment.key_pair("client").is_consistent()
    for mode in (0o444, 0o460):
        secret.chmod(mode)
        with pytest.raises(InputError, match="other users may read the secret key of server"):
            deployment.key_pair("server")
