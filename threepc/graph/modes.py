"""Modes of a torch module that are put back as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While it lasts, `model` is in evaluation mode and no gradients are kept; then each of its modules is in its own mode again."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()  # returns None in MMLab's networks
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
