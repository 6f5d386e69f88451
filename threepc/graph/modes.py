"""Modes of a torch module that are put back as they were."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from threepc.errors import InputError


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


def outputs_of(model: nn.Module, images: torch.Tensor) -> Any:
    """What the network gives in evaluation mode. Raises InputError, in one line, with what its own code raised."""
    try:
        with evaluating(model):
            return model(images)
    except Exception as error:  # foreign code runs here
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        reason = " ".join(str(error).split()) or f"at line {line} of {frame.f_code.co_filename}"
        raise InputError(
            f"the network itself fails on a tensor of shape {tuple(images.shape)}: {type(error).__name__}: {reason}"
        ) from error
