"""Networks, images and real processes for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.processes import Running
from threepc.party.warmup import warm_up
from threepc.plan.precision import Precision

FACTORIES = '''
from torch import nn
from threepc.card import ModelCard, Preprocessing, Sliding

def small():
    """A classifier of 8 x 10 images with every kind of step."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    net.model_card = ModelCard("small", Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3), classes=("ant", "bee", "cow", "dog"))
    return net

def segmenter():
    """Three classes for every pixel, at half the resolution."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    net.model_card = ModelCard("segmenter", Preprocessing((16, 16), (127.5,) * 3, (64.0,) * 3, resize="fit"),
                               classes=("sky", "road", "car"), segmentation=True)
    return net

def slider():
    """The same, by windows that slide over the image."""
    net = segmenter()
    net.model_card = ModelCard("slider", Preprocessing((16, 16), (127.5,) * 3, (64.0,) * 3, resize="fit"), segmentation=True,
                               sliding=Sliding((40, 24), (10, 12)))
    return net

class Heads(nn.Module):
    """Classes, and a map of boxes."""
    def __init__(self):
        super().__init__()
        self.body, self.fc, self.boxes = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 4), nn.Conv2d(6, 5, 1)
        self.model_card = ModelCard("heads", Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3), classes=("ant", "bee", "cow", "dog"))
    def forward(self, x):
        features = self.body(x).relu()
        return {"boxes": [self.boxes(features)], "kind": self.fc(nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))}

def heads():
    return Heads()

def unsupported():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
'''


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """Compiled once, before several processes would each do it."""
    warm_up(Precision.default(48))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with `factories.py` and two images, which commands run in."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "factories.py").write_text(FACTORIES)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 10, 3), np.uint8)
    for name, image in zip(("one.png", "two.png"), pixels):
        cv2.imwrite(str(folder / name), image)
    return folder


@pytest.fixture(scope="session")
def threepc(workplace) -> Iterator[Callable[..., Running]]:
    """Starts `threepc` commands; what still runs at the end is killed."""
    started = []

    def start(*arguments: object, folder: Path = workplace) -> Running:
        started.append(Running(list(map(str, arguments)), folder))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.end()
