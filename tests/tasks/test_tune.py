"""`threepc tune`: what it finds holds in a run of the command it gives, and what it says of few images is true."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.standard_error import failure
from threepc.cli import main
from threepc.cli.show_tuning import show
from threepc.console import Display
from threepc.errors import InputError
from threepc.model.assemble import Settings, assemble_loaded
from threepc.model.load import load_model
from threepc.tasks import tune as tuning
from threepc.tasks.tune import TuneOptions, largest_share, tune

FACTORY = '''
import torch
from torch import nn
from threepc.card import ModelCard, Preprocessing

def net():
    """A classifier of arrays of 8 x 8 numbers, with labels that hang on small differences."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    net.model_card = ModelCard("net", Preprocessing((8, 8), (127.5,) * 3, (64.0,) * 3))
    return net

def pixelwise():
    """A class for every pixel."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    net.model_card = ModelCard("pixelwise", Preprocessing((8, 8), (127.5,) * 3, (64.0,) * 3), segmentation=True, classes=("a", "b", "c"))
    return net
'''


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network in the current folder, and 40 inputs beside it."""
    name = f"tuned_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).uniform(-1.9, 1.9, (40, 3, 8, 8)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return f"{name}:net"


def tuned(config: str, **more) -> tuning.Tuning:
    return tune(TuneOptions(config, None, (Path("inputs.npy"),), **more), Display())


def test_the_best_is_the_cheapest_that_holds_and_is_cheaper_than_the_default(config):
    found = tuned(config, loss=0.05)
    default, best = found.tried[0], found.best
    assert (default.ring, default.fraction, default.window) == (48, 16, None) and default.lost == 0
    assert best.price < default.price and best.lost <= 2 and best.images == found.images == 40
    assert best.price == min(tried.price for tried in found.tried if tried.refused is None and tried.lost <= found.most)
    assert default.error < 1e-3 < best.error, "labels hold where logits do not"
    assert best.window is not None, "fewer bits than can matter are enough for some labels"
    assert any(tried.lost > found.most and tried.price < best.price for tried in found.tried), "the next cheaper one was tried"


def test_a_stricter_loss_costs_more(config):
    strict, loose = (tuned(config, loss=loss).best for loss in (0.0, 0.2))
    assert strict.lost == 0 and loose.price < strict.price


def test_the_command_it_gives_has_the_cost_and_the_labels_that_it_says(config, capsys, tmp_path):
    found = tuned(config, loss=0.05)
    words = [*found.command[1:-1], "inputs.npy"]
    assert found.command[:3] == ["threepc", "run", config]
    assert main.status(["simulate", *words[1:], "--seed", "0", "--batch", "8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["argmax_agreement"] == pytest.approx(1 - found.best.lost / 40)
    settings = Settings(found.best.ring, found.best.fraction, found.best.window)
    cost = assemble_loaded(load_model(config), settings).public.plan(1).cost
    assert (cost.total("offline"), cost.total("online"), cost.messages) == (found.best.offline, found.best.online, found.best.messages)


def test_on_a_slow_network_time_decides(config):
    found = tuned(config, loss=0.05, network="wan")
    assert found.best.seconds >= found.best.messages * 0.02 > 0
    assert found.best.seconds == min(tried.seconds for tried in found.tried if tried.refused is None and tried.lost <= found.most)


def test_pixels_count_by_their_share(config):
    found = tuned(config.replace(":net", ":pixelwise"), loss=0.01)
    assert not found.whole and found.share_at_most is None and 0 <= found.best.lost <= 0.4


def test_few_images_are_said_to_be_few(config, capsys):
    few = tuned(config, loss=0.05)
    show(few)
    said = capsys.readouterr().out
    assert f"holds on the 40 images given: {few.best.lost:.3g} of 40 labels lost" in said
    assert f"this shows a share of at most {few.share_at_most:.2g} (95% confidence); 59 images without a lost label would show 0.05" in said
    many = dataclasses.replace(few, images=2000, best=dataclasses.replace(few.best, lost=20, images=2000))
    show(many)
    assert "confidence" not in capsys.readouterr().out


@pytest.mark.parametrize(("lost", "images"), [(0, 1), (0, 10), (1, 10), (3, 40), (20, 2000), (39, 40)])
def test_the_bound_is_where_so_few_losses_have_a_chance_of_a_twentieth(lost, images):
    p = largest_share(lost, images)
    assert sum(math.comb(images, k) * p**k * (1 - p) ** (images - k) for k in range(lost + 1)) == pytest.approx(0.05)
    assert largest_share(images, images) == 1.0


def test_no_setting_at_all_is_told_apart_from_none_that_holds(config, monkeypatch, capsys):
    large = 1e9 * np.load("inputs.npy")
    np.save("large.npy", large)
    with pytest.raises(InputError, match=r"large\.npy"):
        tune(TuneOptions(config, None, (Path("large.npy"),)), Display())
    nothing_agrees = lambda _, outputs, *__: SimpleNamespace(
        agreement=np.zeros(len(outputs)), classes=np.zeros(len(outputs)), relative_error=0.5
    )
    monkeypatch.setattr(tuning, "compare", nothing_agrees)
    assert main.status(["tune", config, "--images", "inputs.npy", "--loss", "0"]) == 1
    assert "no setting loses at most 0 of the labels" in failure(capsys.readouterr().err.splitlines())


def test_json_is_all_that_standard_output_has(config, capsys):
    assert main.status(["tune", config, "--images", "inputs.npy", "--loss", "5%", "--json", "--report", "tuned.json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain == json.loads(Path("tuned.json").read_text())
    assert plain["best"] in plain["tried"] and plain["loss"] == 0.05 and plain["best"]["holds"] and plain["images"] == 40
    assert plain["images_needed"] == 59 and plain["share_at_most"] > 0.05


@pytest.mark.parametrize("share", ["100%", "-1%", "1", "nan", "one", "inf%"])
def test_a_share_that_is_none_is_refused(config, capsys, share):
    assert main.status(["tune", config, "--images", "inputs.npy", f"--loss={share}"]) == 2
    assert "is no share such as 1% or 0.01" in failure(capsys.readouterr().err.splitlines())
