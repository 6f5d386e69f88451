"""The CIFAR-10 VGG as its README says, narrow, hardly trained and on few images."""

import json

import torch
from click.testing import CliRunner

from tests.examples.programs import program


def test_it_trains_tunes_runs_and_compares(tmp_path, monkeypatch):
    run = program("cifar_vgg/run.py", monkeypatch)
    images, labels, held_images, held_labels = run.digits()
    assert images.shape == (1437, 3, 32, 32) and len(held_images) == len(held_labels) == 360
    monkeypatch.setattr(run, "digits", lambda: (images[:192], labels[:192], held_images[:43], held_labels[:43]))
    monkeypatch.setattr(run, "TUNED", 40)
    words = ["--network", "narrow", "--epochs", "2", "--images", "3", "--output", str(tmp_path)]
    done = CliRunner().invoke(run.main, words, catch_exceptions=False)
    assert done.exit_code == 0
    tuned, default, cheap = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("tuned", "default_run", "tuned_run"))
    assert tuned["images"] == 40 and tuned["best"]["lost"] == 0
    assert default["argmax_equal"] and default["images"] == cheap["images"] == 3
    assert cheap["bytes"]["total"] / 3 == sum(tuned["best"]["bytes"].values()) < default["bytes"]["total"] / 3
    *_, old, later, first, second = done.stdout.splitlines()
    assert "1,738" in old and " 40" in later and "default: 3 of 3 labels as in plaintext" in first and "tuned" in second


def test_the_network_is_the_tutorial_s(monkeypatch):
    """Its convolutions end at one pixel, and it has as many weights as the published one."""
    network = program("cifar_vgg/vgg.py", monkeypatch).network().eval()
    assert network[:-8](torch.zeros(1, 3, 32, 32)).shape == (1, 256, 1, 1)
    convolutions = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 256 * 256)
    assert sum(part.numel() for name, part in network.named_parameters() if part.dim() > 1) == convolutions + 256 * 512 + 512 * 512 + 5120
