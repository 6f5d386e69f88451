"""From a config to a page, by the functions the command line calls."""

import pickle

import numpy as np
import pytest

from threepc.errors import InputError
from threepc.graph.relu_spec import load
from threepc.reduction import tasks
from threepc.reduction.paper import paper_networks


@pytest.fixture
def config(tmp_path, monkeypatch):
    (tmp_path / "tiny_network.py").write_text(
        "from torch import nn\n"
        "from threepc.card import ModelCard, Preprocessing\n\n\n"
        "def network():\n"
        "    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))\n"
        "    model.model_card = ModelCard('tiny', Preprocessing(size=(8, 8)))\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "tiny_network:network"


@pytest.fixture
def images(tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32))
    return [tmp_path / "images.npy"]


def test_from_config_to_page(tmp_path, config, images):
    measured = tasks.measure_distortion(config, None, tmp_path / "run", images=images, method="estimate", progress=False)
    assert measured.manifest["images"]["count"] == 3
    full = 4 * 36 + 3 * 16
    by_count, plot = tasks.solve_knapsack(tmp_path / "run", tmp_path / "half.json", drelus=full // 2)
    assert plot.exists() and load(tmp_path / "half.json").provenance["drelus"] == by_count.drelus <= full // 2
    rows = tasks.spec_show(tmp_path / "half.json", config)
    assert rows[-1]["drelus"] == by_count.drelus and rows[-1]["full"] == full
    bounds = tasks.solve_knapsack(tmp_path / "run", tmp_path / "b.json", ratio=1.0)[0]
    assert bounds.drelus == full
    wan, _ = tasks.solve_knapsack(tmp_path / "run", tmp_path / "wan.json", seconds=0.2008, network="wan")
    assert wan.unit == "seconds" and wan.least < wan.cost <= 0.2008 < wan.full
    page = tasks.make_report(tmp_path / "page.html", specs=[tmp_path / "half.json"], folder=tmp_path / "run", config=config)
    assert "tiny" in page.read_text()


def test_uniform_and_imported_specs(tmp_path, config):
    assert tasks.spec_uniform("3x2", config, tmp_path / "u.json").layers["1"].tolist() == [[3, 2]] * 4
    assert tasks.spec_uniform("identity", config, tmp_path / "u.json").layers["3"].tolist() == [[0, 1]] * 3
    (tmp_path / "p.pickle").write_bytes(
        pickle.dumps({layer["name"]: np.ones((layer["channels"], 2), int) for layer in paper_networks()["resnet18_cifar100"]})
    )
    found = tasks.spec_import(tmp_path / "p.pickle", "resnet18_cifar100", "configs/resnet18_cifar100.py", tmp_path / "i.json")
    assert load(tmp_path / "i.json").layers.keys() == found.layers.keys() and "backbone.layer1.0.relu/2" in found.layers


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda config, folder: tasks.spec_uniform("4by4", config, folder / "u.json"), "'4by4' is no patch size"),
        (lambda config, folder: tasks.solve_knapsack(folder, folder / "s.json", seconds=1.0), "needs the network it is for"),
        (lambda config, folder: tasks.measure_distortion(config, folder / "none.pth", folder / "run"), "none.pth does not exist"),
        (
            lambda config, folder: tasks.measure_distortion(config, None, folder / "run", images=[folder / "none.png"]),
            "none.png does not exist",
        ),
    ],
)
def test_bad_input(tmp_path, config, call, message):
    with pytest.raises(InputError, match=message):
        call(config, tmp_path)
