"""Server, provider and two clients on one host, each a process, over Unix sockets: no keys, right answers, names and limits."""

import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import threepc as api
from threepc.cli.main import status
from threepc.images.card import Preprocessing
from threepc.images.read import load_images
from threepc.images.sliding import image_inputs, image_logits
from threepc.model.load import load_model
from threepc.party.deployment import ONE_USER


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="threepc-"))
    yield made / "parties"
    shutil.rmtree(made)


def test_two_clients_are_served_without_keys(threepc, workplace, folder, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    assert status(["keygen", str(folder), "--unix"]) == 0 and ONE_USER in capsys.readouterr().out
    path = folder / "deployment.yaml"
    path.write_text(path.read_text().replace("# queries:  ", "queries:    ").replace("#   local: 500", "  local: 5    "))
    parties = threepc("provider", "--deployment", folder), threepc("server", "factories:small", "--deployment", folder)
    for party in parties:
        party.wait_for(f"listens at ipc://{folder}/.*: {ONE_USER}")
    clients = [threepc("client", "--deployment", folder, "--input", "one.png", "two.png", "--output", folder / name) for name in "ab"]
    for client in clients:
        assert client.end() == 0, client.errors
        assert ONE_USER in client.lines
    module = load_model("factories:small").module
    with torch.no_grad():
        pixels = load_images(["one.png", "two.png"], Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3))
        plain = module(torch.from_numpy(pixels)).numpy()
    for name in "ab":
        np.testing.assert_allclose(np.load(folder / name / "logits.npy"), plain, atol=0.005 * np.abs(plain).max())
    with api.Client(folder) as client:
        np.testing.assert_allclose(client.predict("one.png")[0], plain[0], atol=0.005 * np.abs(plain).max())
        with pytest.raises(api.RunError, match="local has used 5 of its 5 images of small"):
            client.predict("one.png")
    with pytest.raises(api.InputError, match="leave the name 'alice' out"):
        api.Client(folder, "alice")
    for client in clients:
        assert f"client local at process {client.process.pid}" in parties[1].output
        assert f"client local at process {client.process.pid} with the server at process {parties[1].process.pid}" in parties[0].output
    again = threepc("provider", "--deployment", folder)
    assert again.end() == 2 and f"the address ipc://{folder}/provider is in use" in again.failure
    for party in parties:
        assert party.stop() == 0
    assert not [each for each in folder.iterdir() if each.is_socket()]


def test_windows_slide_over_an_image_at_the_client(threepc, workplace, folder, monkeypatch, tmp_path, capsys):
    """`threepc run` in this process's threads, the client's command and its Python class, of two served parties, say what plaintext says."""
    monkeypatch.chdir(workplace)
    cv2.imwrite("road.png", cv2.blur(np.random.default_rng(5).integers(0, 256, (30, 50, 3), np.uint8), (5, 5)))
    assert status(["keygen", str(folder), "--unix"]) == 0
    parties = threepc("provider", "--deployment", folder), threepc("server", "factories:slider", "--deployment", folder)
    of_road = "--input", "road.png", "--batch"
    alone = "run", "factories:slider", *of_road, "3", "--transport", "memory", "--output", str(tmp_path / "run")
    asked = "client", "--deployment", str(folder), *of_road, "2", "--output", str(tmp_path / "client"), "--resume", str(tmp_path / "kept")
    for command in (alone, asked):
        assert status(command) == 0
        assert "6 windows of 16x16 pixels slide over 1 image" in capsys.readouterr().out
        if command is alone:
            for party in parties:
                party.wait_for("listens at ipc://")
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 6
    loaded, image = load_model("factories:slider"), cv2.imread("road.png")
    with torch.no_grad():
        outputs = loaded.module(torch.from_numpy(image_inputs(image, loaded.card))).numpy()
    plain = image_logits(outputs, loaded.card, loaded.card.sliding, (30, 50))
    for name in ("run", "client"):
        assert (np.load(tmp_path / name / "road_classes.npy") == plain.argmax(0)).mean() > 0.99
    with api.Client(folder, in_flight=1, batch=4) as client:
        for found in (client.predict("road.png")[0], next(client.map(["road.png"])), client.predict(Image.fromarray(image[:, :, ::-1]))[0]):
            np.testing.assert_allclose(found, plain, atol=0.005 * np.abs(plain).max())
        assert client.predict(image_inputs(image, loaded.card)).shape == outputs.shape
        with pytest.raises(api.InputError, match="ask for one size at a time"):
            client.predict(["road.png", "one.png"])
        monkeypatch.setattr("threepc.images.sliding.MOST_LOGITS", plain.size - 1)
        monkeypatch.setattr(client, "_infer", None)  # nothing is asked for
        with pytest.raises(api.InputError, match=r"for 50x30 pixels are too many to hold"):
            client.predict("road.png")
    for party in parties:
        assert party.stop() == 0
