"""Server, provider and clients of a deployment: CURVE over TCP on loopback, a process for each party, some clients within this process."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import threepc as api
from tests.end_to_end.processes import write_deployment
from tests.standard_error import failure
from threepc.cli.main import status
from threepc.images.card import Preprocessing
from threepc.images.read import load_images
from threepc.model.load import load_model
from threepc.party.deployment import load
from threepc.party.keygen import generate


@pytest.fixture(scope="module")
def deployment(threepc, tmp_path_factory):
    """A deployment.yaml whose server and provider run, and these."""
    path = write_deployment(tmp_path_factory.mktemp("deployment") / "keys")
    parties = {
        name: threepc(name, *words, "--deployment", path, "--trace", path.parent / f"{name}.json")
        for name, words in (("provider", []), ("server", ["factories:small"]))
    }
    for running in parties.values():
        running.wait_for("listens at tcp://127.0.0.1:")
    yield path, parties
    for running, number in zip(parties.values(), (signal.SIGINT, signal.SIGTERM)):
        running.process.send_signal(number)
    for running in parties.values():
        assert running.end() == 0
        assert not any(line.startswith("threepc: ") for line in running.errors)
    for name in parties:
        (role,) = timelines(path.parent / f"{name}.json")
        assert role == name


def timelines(path: Path) -> set[str]:
    """Whose timelines a trace holds, steps and all."""
    events = json.loads(path.read_text())["traceEvents"]
    assert any(event.get("cat") == "layer" for event in events)
    return {event["args"]["name"] for event in events if event["name"] == "process_name"}


@pytest.fixture
def here(workplace, monkeypatch) -> Path:
    """The workplace as this process's folder."""
    monkeypatch.chdir(workplace)
    return workplace


def test_a_client_gets_what_plaintext_gives(deployment, threepc, here, tmp_path):
    path, parties = deployment
    report = tmp_path / "report.json"
    done = threepc(
        "client",
        "--deployment",
        path,
        "--input",
        "one.png",
        "two.png",
        "--batch",
        2,
        "--report",
        report,
        "--output",
        tmp_path,
        "--trace",
        tmp_path / "t.json",
    )
    assert done.end() == 0, done.errors
    module = load_model("factories:small").module
    images = np.stack([cv2.imread(name)[:, :, ::-1].transpose(2, 0, 1) for name in ("one.png", "two.png")])
    plain = module(torch.from_numpy((images - 127.5) / 64).float()).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), plain, atol=0.005 * np.abs(plain).max())
    written = json.loads(report.read_text())
    assert [entry["label"] for entry in written["results"]] == plain.argmax(axis=1).tolist()
    assert written["model"] == "small" and written["messages_online"] > 0
    assert timelines(tmp_path / "t.json") == {"client"}
    parties["server"].wait_for(r"session [0-9a-f]{8}: 2 image\(s\) in")
    parties["provider"].wait_for(r"session [0-9a-f]{8}: dealt for 2 image\(s\) in")


def test_the_python_client_keeps_a_session(deployment, here):
    path, _ = deployment
    with api.Client(path) as client:
        first = client.predict("one.png")
        both = client.predict(["one.png", Path("two.png")])
        ready = client.predict(np.zeros((1, 3, 8, 10), np.float32))
        assert client.card.classes == ("ant", "bee", "cow", "dog") and client.report["images"] == 1
    assert first.shape == (1, 4) and both.shape == (2, 4) and ready.shape == (1, 4)
    np.testing.assert_allclose(both[0], first[0], atol=0.005 * np.abs(first).max())


def test_a_bad_call_leaves_the_session_and_threads_share_it(deployment, here):
    names = ["one.png", "two.png"] * 2
    with api.Client(deployment[0]) as client:
        expected = [client.predict(name) for name in names[:2]]
        kept = client._pool.first
        for images, reason in (
            (np.full((1, 3, 8, 10), np.nan, np.float32), "not a finite number"),
            (np.full((1, 3, 8, 10), 1e30, np.float32), "holds values up to 1e\\+30"),
            (np.zeros((0, 3, 8, 10), np.float32), "an inference takes 1 to"),
            (np.zeros((8, 10, 3), np.uint8), r"of uint8 pixels \(H, W, 3\): PIL.Image.fromarray"),
            ([], "no image given"),
            ("missing.png", "missing.png does not exist"),
        ):
            with pytest.raises(api.InputError, match=reason):
                client.predict(images)
            assert client.predict("two.png").shape == (1, 4) and client._pool.first is kept
        with ThreadPoolExecutor(4) as pool:
            for found, index in zip(pool.map(client.predict, names), (0, 1, 0, 1), strict=True):
                np.testing.assert_allclose(found, expected[index], atol=0.005 * np.abs(expected[index]).max())
        assert client._pool.first is kept


def ask(*words: object) -> int:
    """The exit status of a client that is no process of its own, which would take seconds to begin."""
    return status(["client", *map(str, words)])


def test_several_in_flight_send_the_weights_once(deployment, here, tmp_path, capsys):
    path, _ = deployment
    words = ["--deployment", path, "--input", *["one.png", "two.png"] * 3, "--no-cache"]
    reports = []
    for number in (1, 3):
        file = tmp_path / f"{number}.json"
        assert ask(*words, "--in-flight", number, "--report", file, "--output", tmp_path / str(number)) == 0
        reports.append(json.loads(file.read_text()))
    one, three = reports
    assert (one["in_flight"], three["in_flight"]) == (1, 3) and one["bytes"] == three["bytes"]
    assert [entry["label"] for entry in one["results"]] == [entry["label"] for entry in three["results"]]
    np.testing.assert_allclose(*(np.load(tmp_path / str(number) / "logits.npy") for number in (1, 3)), atol=0.01)
    capsys.readouterr()
    assert ask(*words, "--in-flight", 2, "--trace", tmp_path / "t.json") == 2
    assert "--trace: only with one inference in flight" in failure(capsys.readouterr().err.splitlines())


def test_prepared_ahead_the_same_bytes_travel(deployment, here, tmp_path):
    path, parties = deployment
    words = ["--deployment", path, "--input", *["one.png", "two.png"] * 2]
    reports = []
    for number in (0, 3):
        file = tmp_path / f"{number}.json"
        assert ask(*words, "--precompute", number, "--report", file) == 0
        reports.append(json.loads(file.read_text()))
    plain, prepared = reports
    assert "precomputed" not in plain and prepared["precomputed"] == 3
    assert {key: plain["bytes"][key] for key in ("offline", "online")} == {key: prepared["bytes"][key] for key in ("offline", "online")}
    for _ in range(4):
        parties["provider"].wait_for(r"dealt for 1 image\(s\) in")
    assert ask(*words, "--precompute", 4, "--batch", 1000) == 0


def test_the_python_client_asks_for_several_at_once(deployment, here):
    names = ["one.png", "two.png"] * 3
    with api.Client(deployment[0], in_flight=2) as client:
        single = [client.predict(name)[0] for name in names[:2]]
        for index, found in enumerate(client.map(names, batch=2)):
            np.testing.assert_allclose(found, single[index % 2], atol=0.005 * np.abs(single[index % 2]).max())


def test_the_python_client_opens_a_session_by_itself(deployment, here):
    client = api.Client(deployment[0])
    with pytest.raises(api.InputError, match=r"ready inputs as a numpy array \(N, 3, 8, 10\), not an ndarray of shape \(1, 3, 8, 8\)"):
        client.predict(np.zeros((1, 3, 8, 8), np.float32))
    assert client.predict("two.png").shape == (1, 4)


def test_a_client_needs_no_torch(deployment, workplace):
    program = f"""
import sys
from threepc.cli.main import status
assert status(["client", "--deployment", {str(deployment[0])!r}, "--input", "one.png"]) == 0
assert not {{"torch", "mmcv", "matplotlib"}} & set(sys.modules), "torch, mmcv or matplotlib was imported"
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=workplace, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "image, reason",
    [
        ("missing.png", "missing.png does not exist"),
        ("nan.npy", "nan.npy holds NaN"),
        ("far.npy", "far.npy: size 20000 does not fit a ring of 48 bits with 16 fractional bits"),
        ("wide.png", "wide.png has 11x8 pixels, but the model takes exactly 10x8"),
    ],
)
def test_bad_images_are_refused(deployment, here, capsys, image, reason):
    np.save(here / "nan.npy", np.full((3, 8, 10), np.nan, np.float32))
    np.save(here / "far.npy", np.full((3, 8, 10), 2e4, np.float32))
    cv2.imwrite(str(here / "wide.png"), np.zeros((8, 11, 3), np.uint8))
    assert status(["client", "--deployment", str(deployment[0]), "--input", image]) == 2
    assert reason in failure(capsys.readouterr().err.splitlines())


def test_an_address_in_use(deployment, here, capsys):
    for command in (["provider"], ["server", "factories:small"]):
        assert status([*command, "--deployment", str(deployment[0])]) == 2
        line = failure(capsys.readouterr().err.splitlines())
        assert "cannot listen at tcp://127.0.0.1:" in line and "in use" in line


def test_clients_come_and_go_without_a_restart(threepc, here, tmp_path):
    path = write_deployment(tmp_path / "keys")
    parties = threepc("provider", "--deployment", path), threepc("server", "factories:small", "--deployment", path)

    def change(action: str, name: str, seen: str) -> None:
        assert status(["clients", action, name, "--deployment", str(path)]) == 0
        for party in parties:
            party.wait_for(seen)

    for party in parties:
        party.wait_for("listens at tcp://127.0.0.1:")
    of_alice = "--deployment", path.parent / "alice", "--name", "alice", "--input", "one.png"
    with api.Client(path) as client:
        assert client.predict("one.png").shape == (1, 4)
        parties[1].wait_for(r"session [0-9a-f]{8}: client client at 127")
        change("add", "alice", "2 clients may connect: alice added")
        assert ask(*of_alice) == 0
        parties[0].wait_for(r"session [0-9a-f]{8}: client alice at .* with the server at 127")
        assert client.predict("one.png").shape == (1, 4)  # in the same session
        change("revoke", "client", "1 client may connect: client revoked")
        with pytest.raises(api.RunError, match="accepts this party's public key no longer"):
            client.predict("one.png")
    assert ask(*of_alice) == 0
    for party in parties:
        assert party.stop() == 0


def test_a_network_of_several_outputs_is_served(threepc, here, tmp_path, capsys):
    path = write_deployment(tmp_path / "keys", ("reveal: logits ", "reveal: kind=label "))
    parties = threepc("provider", "--deployment", path), threepc("server", "factories:heads", "--deployment", path)
    for party in parties:
        party.wait_for("listens at tcp://127.0.0.1:")
    with torch.no_grad():
        expected = load_model("factories:heads").module(
            torch.from_numpy(load_images(["one.png"], Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3)))
        )
    with api.Client(path) as client:
        found = client.predict("one.png")
    assert list(found) == ["boxes", "kind"] and found["kind"].tolist() == expected["kind"].argmax(1).tolist()
    np.testing.assert_allclose(found["boxes"][0], expected["boxes"][0], atol=0.005 * float(expected["boxes"][0].abs().max()))
    capsys.readouterr()
    assert ask("--deployment", path, "--input", "one.png", "--output", tmp_path / "out", "--resume", tmp_path / "kept") == 0
    assert "5x3x4 numbers" in capsys.readouterr().out and np.load(tmp_path / "out" / "kind_labels.npy").shape == (1,)
    np.testing.assert_allclose(np.load(tmp_path / "out" / "boxes.0.npy"), found["boxes"][0], atol=1e-3)
    for party in parties:
        assert party.stop() == 0


def test_a_stranger_is_turned_away(deployment, here, tmp_path, capsys):
    keys = client_folder(deployment[0].parent, tmp_path)
    generate(tmp_path / "own", ["client"])
    for name in ("client.public", "client.secret"):
        (tmp_path / "own" / name).replace(keys / name)
    assert ask("--deployment", keys, "--input", "one.png") == 1
    assert "does not accept this party's public key" in failure(capsys.readouterr().err.splitlines())


def test_a_server_with_another_key_is_not_believed(deployment, here, tmp_path):
    keys = client_folder(deployment[0].parent, tmp_path)
    generate(tmp_path / "other", ["server"])
    (tmp_path / "other" / "server.public").replace(keys / "server.public")
    with pytest.raises(api.RunError, match=r"the server at tcp://.* cannot read what is encrypted for its public key here"):
        api.Client(keys).predict("one.png")


def test_a_client_cannot_pass_for_the_server(deployment, here):
    """The provider knows the server by its key, and deals to nobody else in its name."""
    from threepc.party.three_hosts import connector_of
    from threepc.transport.channel import PROTOCOL_VERSION, Channel

    path, parties = deployment
    channel = Channel(connector_of(load(path), "client").connect("provider"), ("server", "provider"), timeout=20)
    with channel:
        channel.send_control(
            "hello", {"version": PROTOCOL_VERSION, "role": "server", "session": "00" * 8, "model": {}}, [bytes(16), bytes(16)]
        )
        with pytest.raises(api.RunError, match="calls itself the server, but its key is not that of a server"):
            channel.receive_control("ready")
    parties["provider"].wait_for("session ended: a party calls itself the server")


@pytest.mark.parametrize(
    "change, reason",
    [
        (("ring: 48", "ring: 64"), "disagree on ring: the server says 48"),
        (("# frac_bits: 16", "frac_bits: 14"), "disagree on frac_bits: the server says 16"),
        (("reveal: logits ", "reveal: label "), "disagree on reveal: the server says logits"),
        (("# drelu_window: [16, 46]", "drelu_window: [18, 40]"), "disagree on drelu_window: the server says None"),
        (("# queries:", "links: server=1M,client=1G\n# queries:"), "disagree on links: by those of"),
    ],
)
def test_a_client_that_disagrees(deployment, here, tmp_path, change, reason):
    path = client_folder(deployment[0].parent, tmp_path) / "deployment.yaml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(api.RunError, match=reason) as error:
        api.Client(path).predict("one.png")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "change, key",
    [
        (("ring: 48", "ring: 47"), "ring: is 47"),
        (("reveal: logits ", "unveil: logits "), "unveil: is not a key"),
        (("public_key: server.public", "public_key: nobody.public"), "server.public_key"),
        (("# drelu_window: [16, 46]", "drelu_window: [2, 9]"), "drelu_window: drelu-window 2:9: nothing of it is left"),
    ],
)
def test_a_malformed_deployment_file(here, tmp_path, capsys, change, key):
    path = write_deployment(tmp_path / "keys", change)
    for command in (["client", "--input", "one.png"], ["provider"], ["server", "factories:small"]):
        assert status([*command, "--deployment", str(path)]) == 2
        assert key in failure(capsys.readouterr().err.splitlines())


def test_parties_that_never_appear(threepc, here, tmp_path):
    path = write_deployment(tmp_path / "keys", ("connect: 20", "connect: 1"))
    with pytest.raises(api.RunError, match=r"the server has not answered at tcp://127\.0\.0\.1:"):
        api.Client(path).predict("one.png")
    server = threepc("server", "factories:small", "--deployment", path)
    server.wait_for("listens at")
    with pytest.raises(api.RunError, match=r"the provider has not answered at tcp://127\.0\.0\.1:"):
        api.Client(path).predict("one.png")
    assert server.stop() == 0


def test_parties_that_die_in_the_middle(threepc, tmp_path):
    path = write_deployment(tmp_path / "keys")
    provider, server = threepc("provider", "--deployment", path), threepc("server", "factories:small", "--deployment", path)

    def busy_client():
        client = threepc("client", "--deployment", path, "--input", *["one.png"] * 3000)  # for a minute and more
        server.wait_for(r"session [0-9a-f]{8}: client client at")  # of this session, behind what is left of the one before
        server.wait_for(r"1 image\(s\) in")
        return client

    busy_client().process.kill()
    server.wait_for("session ended: the client client at .* closed the connection unexpectedly")
    client = busy_client()
    provider.process.kill()
    assert client.end() == 1 and "the provider at tcp://127.0.0.1:" in client.failure
    provider = threepc("provider", "--deployment", path)
    client = busy_client()
    server.process.kill()
    assert client.end() == 1 and "the server at tcp://127.0.0.1:" in client.failure
    assert provider.stop() == 0


def client_folder(source: Path, parent: Path) -> Path:
    """What a client's host has of a deployment."""
    folder = parent / "keys"
    folder.mkdir()
    for name in ("deployment.yaml", "server.public", "provider.public", "client.public", "client.secret"):
        (folder / name).write_bytes((source / name).read_bytes())
        (folder / name).chmod(0o600)
    return folder
