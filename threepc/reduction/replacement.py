"""What each candidate patch size makes of a ReLU, and which of these results are one and the same."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from threepc.graph.block_relu import patch_decisions
from threepc.graph.relu_spec import IDENTITY, ZERO

# The golden ratio in 64 bits, as multiplicative hashing takes it.
_ODD = np.int64(-7046029254386353131)


def replaced(x: torch.Tensor, patches: np.ndarray, maximum: float | None) -> torch.Tensor:
    """Block ReLU (or its clipped form) of x (S, C, H, W) with every one of the K patches, all channels alike: (K, S, C, H, W)."""
    out = torch.empty((len(patches), *x.shape), dtype=x.dtype, device=x.device)
    for index, (height, width) in enumerate(patches.tolist()):
        if (height, width) == ZERO:
            out[index] = 0
        elif (height, width) == IDENTITY:
            out[index] = x
        else:
            torch.mul(x, patch_decisions(x, height, width), out=out[index])
            if maximum is not None:
                above = x - maximum
                out[index] -= above * patch_decisions(above, height, width)
    return out


def distinct(values: torch.Tensor, plain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Group results that are equal, image by image.

    `values` (K, S, P) float32, one result per candidate and image; `plain` (S, P) the unchanged one. Returns `first`, the
    positions in K * S of one representative for each distinct changed result, and `group` (K, S) int64: the index into
    `first`, or len(first) where the result is the unchanged one.
    """
    count, samples, _ = values.shape
    keys = torch.cat([_hash(values), _hash(plain)[None]]).cpu().numpy()
    # Results of different images are different, whatever they hold.
    keys += np.arange(samples, dtype=np.int64) * _ODD
    _, first, group = np.unique(keys.reshape(-1), return_index=True, return_inverse=True)
    group = group.reshape(-1)
    # A group that holds an unchanged result needs no evaluation; the others are numbered anew.
    changed = np.ones(len(first), dtype=bool)
    changed[group[count * samples :]] = False
    number = np.where(changed, np.cumsum(changed) - 1, changed.sum())
    return torch.from_numpy(first[changed]), torch.from_numpy(number[group[: count * samples]].reshape(count, samples))


def _hash(values: torch.Tensor) -> torch.Tensor:
    # A 64-bit multiply-add hash of the float32 bit patterns; -0 is brought to 0 first. Two different results of one image
    # meet with probability about 2^-64.
    pixels = values.shape[-1]
    odd = np.frombuffer(hashlib.shake_256(b"threepc distinct").digest(8 * pixels), dtype=np.int64) | 1
    bits = (values + 0.0).contiguous().view(torch.int32).long()
    return (bits * torch.from_numpy(odd.copy()).to(values.device)).sum(dim=-1)
