"""The VGG of Concrete ML's CIFAR-10 tutorial (CNV of FINN and Brevitas, its max pooling made average pooling) as an ordinary torch network.

Six convolutions without padding and three fully connected layers, batch norm after each but the last. The tutorial's weights and activations
have 2 bits, which its encryption needs; here weights are floats and activations are ReLUs.
"""

import torch
from torch import nn

from threepc.card import ModelCard, Preprocessing

CONVOLUTIONS = ((1, False), (1, True), (2, False), (2, True), (4, False), (4, False))
"""Channels of each as a multiple of the first one's, and whether pooling follows."""


def vgg(channels: int) -> nn.Sequential:
    """The network for images of 32 x 32 pixels and ten classes; the tutorial's has 64 channels."""
    layers: list[nn.Module] = []
    before = 3
    for times, pooled in CONVOLUTIONS:
        layers += [nn.Conv2d(before, times * channels, 3, bias=False), nn.BatchNorm2d(times * channels, eps=1e-4), nn.ReLU()]
        layers += [nn.AvgPool2d(2)] if pooled else []
        before = times * channels
    layers.append(nn.Flatten())
    for features in (8 * channels, 8 * channels):
        layers += [nn.Linear(before, features, bias=False), nn.BatchNorm1d(features, eps=1e-4), nn.ReLU()]
        before = features
    network = nn.Sequential(*layers, nn.Linear(before, 10, bias=False))
    pixels = Preprocessing((32, 32), (127.5,) * 3, (127.5,) * 3, resize="stretch")
    network.model_card = ModelCard("cifar_vgg", pixels, classes=tuple("0123456789"))
    return network


def network() -> nn.Module:
    """The tutorial's size: CONFIG `vgg:network`."""
    return vgg(64)


def narrow() -> nn.Module:
    """A sixteenth of its channels, to try things: CONFIG `vgg:narrow`."""
    return vgg(4)


def trained(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """The model after Adam under a one-cycle schedule, in evaluation mode. images (N, 3, 32, 32), labels (N,)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps = epochs * len(images.split(64))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for chosen in order.split(64):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()
