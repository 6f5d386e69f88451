"""A network, images, and how a refusal is looked at."""

import cv2
import numpy as np
import pytest

from tests.standard_error import failure
from threepc.cli import main

FACTORIES = """
from torch import nn
from threepc.card import ModelCard, Preprocessing

def small():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net.model_card = ModelCard("small", Preprocessing((6, 7), (127.5,) * 3, (64.0,) * 3), classes=("cat, kitten", "dog"))
    return net

def unsupported():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.model_card = ModelCard("unsupported", Preprocessing((6, 7)))
    return net

class Sorts(nn.Module):
    def forward(self, x):
        return x.sort(1)[0].cumsum(2)

def sorts():
    net = nn.Sequential(Sorts(), Sorts())
    net.model_card = ModelCard("sorts", Preprocessing((6, 7)))
    return net

class Talks(nn.Module):
    def forward(self, x):
        print("here I am")
        return x

def talks():
    print("I am made")
    net = small()
    net.insert(1, Talks())
    return net

def fails():
    net = nn.Sequential(nn.Flatten(), nn.Linear(5, 5))
    net.model_card = ModelCard("fails", Preprocessing((6, 7)))
    return net
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A CONFIG in the current folder, with images beside it; the name of its module is new for each test."""
    name = f"factories_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    for image in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / image), np.arange(126, dtype=np.uint8).reshape(6, 7, 3))
    monkeypatch.chdir(tmp_path)
    return f"{name}:small"


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused; the line it says."""

    def run(*arguments: str, status: int = 2) -> str:
        assert main.status(list(arguments)) == status
        return failure(capsys.readouterr().err.splitlines())

    return run
