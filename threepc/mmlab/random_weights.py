"""Seeded random weights, for trying a network whose checkpoint is not at hand."""

from typing import Any

import torch
from torch import nn

from threepc.errors import InputError
from threepc.mmlab.compat import quiet

# A residual branch whose last batch norm starts at zero, as MMLab's do, contributes nothing: here it starts at this instead, small
# enough that sixteen blocks keep the activations within one order of magnitude.
RESIDUAL_GAMMA = 0.5
CALIBRATION_IMAGES = 8
CALIBRATION_SIDE = 96


def initialise(model: Any, forward: nn.Module, seed: int, shape: tuple[int, int, int], any_size: bool) -> None:
    """Weights as MMLab starts a training with, and batch norms that know the statistics of random images.

    Without the latter, activations fade layer by layer (MobileNetV2's logits to 1e-9), and a comparison with such a network shows
    nothing.

    model: has MMLab's `init_weights`. forward: calls it. seed: the same one gives the same weights; torch's own state is untouched.
    shape: (C, H, W) of the network's input. any_size: it takes other sizes too, so that a smaller one will do here.
    """
    with torch.random.fork_rng(devices=[]), quiet("mmcv"):  # mmcv reports every parameter's initialisation
        torch.manual_seed(seed)
        model.init_weights()
        settle(forward, shape, any_size)


def settle(module: nn.Module, shape: tuple[int, int, int], any_size: bool) -> None:
    """Give the batch norms of a network with random weights the statistics of random images, drawn from torch's generator as it stands.

    shape: (C, H, W) of the network's input. any_size: it takes other sizes too, so that a smaller one will do here.
    Raises InputError with what the network's own code raised.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    if not norms:
        return
    channels, height, width = shape
    small = min(height, CALIBRATION_SIDE), min(width, CALIBRATION_SIDE)
    with torch.no_grad():
        for norm in norms:
            if not norm.weight.any():
                nn.init.constant_(norm.weight, RESIDUAL_GAMMA)
        try:
            _calibrate(norms, module.eval(), _random_images(channels, *(small if any_size else (height, width))))
        except Exception:  # noqa: BLE001 - a network of one size all the same says so in whatever way
            try:
                _calibrate(norms, module.eval(), _random_images(channels, height, width))
            except Exception as error:  # foreign code runs here
                line = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise InputError(f"the network cannot take images of {height}x{width} (height x width), it raised {line}") from error


def _calibrate(norms: list[nn.BatchNorm2d], forward: nn.Module, images: torch.Tensor) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the plain average, here of one batch
    try:
        forward(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _random_images(channels: int, height: int, width: int) -> torch.Tensor:
    """Normalised images of coarse random patches, of different brightness and contrast, so that even their global averages vary."""
    count = CALIBRATION_IMAGES
    patches = torch.randn(count, channels, 8, 8) * torch.rand(count, 1, 1, 1) + torch.randn(count, channels, 1, 1)
    return nn.functional.interpolate(patches, size=(height, width)) + 0.1 * torch.randn(count, channels, height, width)
