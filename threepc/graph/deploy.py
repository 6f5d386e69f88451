"""Networks that are trained with more branches than they need (RepVGG, MobileOne) in the form that they themselves deploy."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from threepc.graph.modes import evaluating

METHODS = ("switch_to_deploy", "reparameterize")
"""What such modules call the method that makes one convolution of their branches."""

TOLERANCE = 1e-3
"""Of the largest output: a network whose deployed form differs by more is imported as it is."""


def deployed(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of the network with its branches made one by its own methods, or the network itself where it has none or they change its outputs."""
    if not any(_outermost(model)):
        return model
    try:
        merged = copy.deepcopy(model)
        with evaluating(model), evaluating(merged):
            for module in list(_outermost(merged)):
                next(getattr(module, name) for name in METHODS if callable(getattr(module, name, None)))()
            merged.eval()
            images = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
            same = _close(model(images), merged(images))
    except Exception:  # noqa: BLE001 - foreign code; the network as it is computes the same
        return model
    return merged if same else model


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if any(callable(getattr(module, name, None)) for name in METHODS):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _close(expected: object, found: object) -> bool:
    if isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor):
        return expected.shape == found.shape and bool((expected - found).abs().max() <= TOLERANCE * expected.abs().max())
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(expected) == len(found) and all(map(_close, expected, found))
    return False
