"""Services that run for long: models that come and go, clients that go on where they were, a server that dies and comes back."""

import json
import re

import numpy as np
import pytest
import torch

import threepc as api
from tests.end_to_end.processes import write_deployment
from threepc.model.load import load_model

MODELS = """models:
  - {config: "factories:small", name: ant}
  - {config: "factories:small", name: bee}
"""


@pytest.fixture
def here(workplace, monkeypatch):
    """The workplace as this process's folder."""
    monkeypatch.chdir(workplace)
    return workplace


def test_a_model_is_withdrawn_and_its_session_goes_on(threepc, here, tmp_path):
    path, models = write_deployment(tmp_path / "keys"), tmp_path / "models.yaml"
    models.write_text(MODELS)
    provider, server = threepc("provider", "--deployment", path), threepc("server", "--models", models, "--deployment", path)
    server.wait_for("the server listens at")
    with api.Client(path, model="ant") as ant:
        before = ant.predict("one.png")
        models.write_text(MODELS.replace("ant", "cow"))
        server.wait_for("model ant@[0-9a-f]{12}: withdrawn; its sessions go on")
        server.wait_for("model cow@[0-9a-f]{12}: offered")
        np.testing.assert_allclose(ant.predict("one.png"), before, atol=0.005 * np.abs(before).max())
        with pytest.raises(api.RunError, match=r"this server has no model 'ant': it has cow@[0-9a-f]{12}, bee@[0-9a-f]{12}$"):
            api.Client(path, model="ant").predict("one.png")
    done = threepc("client", "--deployment", path, "--input", "two.png")
    assert done.end() == 0, done.errors
    assert re.search(r"model cow@[0-9a-f]{12}, the server's first or only one", done.output)
    assert server.stop() == provider.stop() == 0


def test_a_server_that_dies_and_comes_back(threepc, here, tmp_path):
    """Outputs that were kept are not asked for again, a client with retries goes on by itself, and what was asked for stays counted."""
    path, kept, pixels = write_deployment(tmp_path / "keys", ("# network: wan ", "network: wan ")), tmp_path / "kept", tmp_path / "many.npy"
    path.write_text(path.read_text() + "queries: {default: 8}\n")
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 10)).clip(-1.5, 1.5).astype(np.float32)
    np.save(pixels, images)
    serve = lambda: threepc("server", "factories:small", "--deployment", path)
    ask = lambda *more: threepc("client", "--deployment", path, "--input", pixels, "--resume", kept, *more)
    provider, server = threepc("provider", "--deployment", path), serve()
    first = ask()
    for _ in range(2):
        server.wait_for(r"session [0-9a-f]{8}: 1 image\(s\) in")
    server.process.kill()
    assert first.end() == 1
    assert "the server at tcp://127.0.0.1:" in first.failure
    done = len(list(kept.glob("*.npy")))
    assert 1 <= done <= 3

    server, second = serve(), ask("--retries", 3, "--output", tmp_path)
    server.wait_for(r"session [0-9a-f]{8}: 1 image\(s\) in")
    server.process.kill()
    server = serve()
    assert second.end() == 0, second.errors
    server.wait_for(r"session [0-9a-f]{8}: 1 image\(s\) in")  # in a new session
    assert f"{done} of 6 images were done before, and lie in {kept}" in second.output
    plain = load_model("factories:small").module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), plain, atol=0.005 * np.abs(plain).max())

    (used,) = json.loads((path.parent / "queries.json").read_text())["used"]["client"].values()
    assert 6 <= used <= 8  # what was under way when the server was killed counts
    np.save(pixels, images + 0.1)
    third = ask("--batch", 3, "--retries", 3)
    assert third.end() == 1
    assert re.search(rf"client has used {used} of its 8 images of small@[0-9a-f]{{12}}, and 3 more are too many", third.failure)
    assert server.stop() == provider.stop() == 0
