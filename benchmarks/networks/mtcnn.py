"""MTCNN's three networks (Zhang et al., 2016) as facenet-pytorch has them, without the softmax that their clients apply themselves."""

from __future__ import annotations

import torch
from torch import nn

from threepc.images.card import ModelCard, Preprocessing


def _stage(inputs: int, outputs: int, kernel: int, pool: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]
    return [*layers, nn.MaxPool2d(pool, 2, ceil_mode=True)] if pool else layers


class Heads(nn.Module):
    """A trunk, and a head for each of the outputs: whether there is a face, its box, its landmarks."""

    def __init__(self, trunk: list[nn.Module], heads: list[nn.Module], name: str, side: int) -> None:
        super().__init__()
        self.trunk, self.heads = nn.Sequential(*trunk), nn.ModuleList(heads)
        self.model_card = ModelCard(name, Preprocessing((side, side), (127.5,) * 3, (128.0,) * 3, resize="stretch"))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs of images (N, 3, H, W)."""
        features = self.trunk(images)
        return tuple(head(features) for head in self.heads)


def proposal() -> nn.Module:
    """PNet, fully convolutional."""
    trunk = [*_stage(3, 10, 3, 2), *_stage(10, 16, 3, 0), *_stage(16, 32, 3, 0)]
    return Heads(trunk, [nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)], "mtcnn proposal", 48)


def refinement() -> nn.Module:
    """RNet, for candidates of 24 x 24 pixels."""
    trunk = [*_stage(3, 28, 3, 3), *_stage(28, 48, 3, 3), *_stage(48, 64, 2, 0), nn.Flatten(), nn.Linear(576, 128), nn.PReLU(128)]
    return Heads(trunk, [nn.Linear(128, 2), nn.Linear(128, 4)], "mtcnn refinement", 24)


def output() -> nn.Module:
    """ONet, for candidates of 48 x 48 pixels."""
    trunk = [*_stage(3, 32, 3, 3), *_stage(32, 64, 3, 3), *_stage(64, 64, 3, 2), *_stage(64, 128, 2, 0)]
    dense = [nn.Flatten(), nn.Linear(1152, 256), nn.PReLU(256)]
    return Heads([*trunk, *dense], [nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)], "mtcnn output", 48)
