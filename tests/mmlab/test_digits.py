"""The demo: what is committed is what the training script makes, and the network is as good as the README says."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

from threepc.images.read import load_images, load_labels, read_image
from threepc.mmlab import digits
from threepc.model.load import load_model

DEMO = Path(__file__).parents[2] / "examples" / "digits"
CONFIG, CHECKPOINT = str(DEMO / "resnet18_digits.py"), DEMO / "resnet18_digits.pth"


def test_the_held_out_images_are_apart_from_the_others():
    held_out, labels = digits.digits(held_out=True)
    others, other_labels = digits.digits(held_out=False)
    assert held_out.shape == (360, 32, 32, 3) and others.shape == (1437, 32, 32, 3) and held_out.dtype == np.uint8
    assert set(labels) == set(other_labels) == set(range(10))
    assert not {image.tobytes() for image in held_out} & {image.tobytes() for image in others}


def test_the_network_reads_97_of_100_held_out_digits():
    model = load_model(CONFIG, CHECKPOINT)
    images, labels = digits.digits(held_out=True)
    preprocessing = model.preprocessing
    inputs = (images.transpose(0, 3, 1, 2) - preprocessing.mean[0]) / preprocessing.std[0]
    logits = torch.cat([model.module(part) for part in torch.from_numpy(inputs.astype(np.float32)).split(90)])
    assert (logits.argmax(1).numpy() == labels).mean() >= 0.97
    assert model.example_shape == (1, 3, 32, 32) and not model.random_weights
    assert CHECKPOINT.stat().st_size <= 4e6


def test_the_committed_images_are_the_first_held_out_one_of_each_digit():
    images, labels = digits.digits(held_out=True)
    for digit in range(10):
        committed = read_image(DEMO / "images" / f"digit_{digit}.png")
        np.testing.assert_array_equal(committed, images[np.flatnonzero(labels == digit)[0]])


def test_the_committed_images_are_read_correctly():
    model = load_model(CONFIG, CHECKPOINT)
    paths = sorted((DEMO / "images").glob("*.png"))
    predicted = model.module(torch.from_numpy(load_images(paths, model.preprocessing))).argmax(1).tolist()
    assert predicted == load_labels(DEMO / "labels.json", paths, model.card) == list(range(10))


def test_the_training_script_writes_checkpoint_images_and_labels(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("train_digits", DEMO / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    (tmp_path / "resnet18_digits.py").write_text((DEMO / "resnet18_digits.py").read_text())
    monkeypatch.setattr(train, "HERE", tmp_path)
    everything = digits.digits
    monkeypatch.setattr(digits, "digits", lambda held_out: tuple(part[:100] for part in everything(held_out)))
    result = CliRunner().invoke(train.main, ["--epochs", "2"], catch_exceptions=False)
    assert result.exit_code == 0 and "held-out accuracy" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"resnet18_digits.py", "resnet18_digits.pth", "images", "labels.json"}
    assert json.loads((tmp_path / "labels.json").read_text()) == json.loads((DEMO / "labels.json").read_text())
    assert load_model(str(tmp_path / "resnet18_digits.py"), tmp_path / "resnet18_digits.pth").card.classes == tuple("0123456789")
