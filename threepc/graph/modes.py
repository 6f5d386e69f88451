"""A torch module evaluated as it is served: modes that are put back as they were, and in one line why it cannot be run or traced."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

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
        reason = f"{type(error).__name__}: {reason}{_unlike(model, images)}"
        raise InputError(f"the network itself fails on a tensor of shape {tuple(images.shape)}: {reason}") from error


def require_traceable(model: nn.Module, what: str) -> None:
    """Raises InputError for what is no module whose weights torch.export could take; `what` names it in the message."""
    if not isinstance(model, nn.Module):
        raise InputError(f"{what} must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(f"{what} is a TorchScript module, which torch.export does not trace: give the module that it was made from")
    tensors = [*model.parameters(), *model.buffers()]
    if any(map(nn.parameter.is_lazy, tensors)):
        raise InputError(f"{what} has lazy modules that have seen no input yet: call it once, so that its weights get a shape")
    if any(tensor.is_meta for tensor in tensors):
        raise InputError(f"{what} has weights on the device meta, which holds no numbers: make it on cpu")


def why_untraceable(error: Exception) -> str:
    """The first line of what torch.export raised; for a decision in Python that hangs on the image, where it is taken and what to do."""
    if isinstance(error, GuardOnDataDependentSymNode):
        found = re.search(r'The following call raised this error:\s+File "([^"\n]+)", line (\d+)', str(error))
        place = f" at line {found[2]} of {found[1]}" if found else ""
        return (
            f"its own code decides by the value of a tensor{place}, which nobody may see; leave the branch out, or compute both its sides"
        )
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unlike(model: nn.Module, images: torch.Tensor) -> str:
    """What to do about weights of another type or device than the images, as a module has that was trained so."""
    for tensor in model.parameters():
        if tensor.is_floating_point() and (tensor.dtype, tensor.device) != (images.dtype, images.device):
            return (
                f"; its weights are {tensor.dtype} on {tensor.device}, the tensor is not: call .to('{images.device}', {images.dtype}) on it"
            )
    return ""
