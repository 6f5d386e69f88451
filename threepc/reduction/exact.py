"""The exact distortion of replacing one ReLU channel: the mean squared difference of the network's output."""

from __future__ import annotations

import numpy as np
import torch

from threepc.reduction.replacement import distinct, replaced
from threepc.reduction.suffix import Suffix

# Elements of the largest activation of one evaluation: on a CPU what stays near the cores' caches, on a GPU what keeps it busy.
ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 28}


def channel_distortion(suffix: Suffix, channel: int, patches: np.ndarray) -> np.ndarray:
    """Sum over the suffix's images of the output's mean squared difference, for every patch (K, 2) put in `channel`: float64 (K,)."""
    relu = suffix.relu
    before, plain = (value[:, channel : channel + 1].contiguous() for value in (suffix.before, suffix.plain))
    values = replaced(before, patches, relu.attrs.get("max"))
    samples = len(before)
    first, group = distinct(values.flatten(2), plain.flatten(1))
    errors = torch.zeros(len(first) + 1, dtype=torch.float64)
    rows = max(1, ELEMENTS[suffix.network.device.type] // suffix.largest)
    flat, first = values.view(-1, 1, *relu.shape[1:]), first.to(before.device)
    for start in range(0, len(first), rows):
        chosen = first[start : start + rows]
        image = chosen % samples
        difference = suffix.evaluate(channel, flat[chosen], image) - suffix.output[image]
        errors[start : start + len(chosen)] = difference.double().square().flatten(1).mean(dim=1).cpu()
    return errors[group].sum(dim=1).numpy()
