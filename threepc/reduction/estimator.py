"""A fast estimate of every distortion: how far the change of a ReLU moves the output to first order.

The squared length of J d, where d is the change of the ReLU's output and J the Jacobian of the network's output, is the
Gauss-Newton form of the distortion. Few rows v J with signs v estimate it without J (Hutchinson): E[(v J d)^2] = |J d|^2. One
backward pass gives such a row for all ReLUs at once, and one product of matrices then serves all candidates.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from threepc.reduction.replacement import replaced
from threepc.reduction.suffix import TorchGraph

# Outputs up to this many are taken one by one, exactly; more are projected onto this many sign vectors.
PROJECTIONS = 16
_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}


def estimated_distortion(network: TorchGraph, images: torch.Tensor, patches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sum over images of the estimated mean squared difference of the output: for each ReLU in `patches` float64 (channels, K).

    `images` (S, C, H, W) float32 on the network's device.
    """
    graph = network.graph
    relus = [graph[name] for name in patches]
    inputs = {node.inputs[0] for node in relus}
    with torch.enable_grad():
        values = network.forward(images.detach().requires_grad_(), inputs | set(patches) | {graph.output.name})
    output, plain = values[graph.output.name], [values[name] for name in patches]
    directions = _projections(output)
    held = sum(value.numel() for value in plain)
    step = max(1, _ELEMENTS[images.device.type] * 16 // held)
    scale = 1 / math.prod(output.shape[1:]) / (1 if len(directions) == math.prod(output.shape[1:]) else len(directions))
    sums = {node.name: np.zeros((node.shape[0], len(patches[node.name]))) for node in relus}
    for start in range(0, len(directions), step):
        rows = [
            torch.autograd.grad(output, plain, direction.expand_as(output), retain_graph=True, allow_unused=True)
            for direction in directions[start : start + step]
        ]
        for index, node in enumerate(relus):
            gradients = [row[index] for row in rows if row[index] is not None]
            before = values[node.inputs[0]].detach()
            sums[node.name] += _layer(before, plain[index].detach(), gradients, patches[node.name], node.attrs.get("max")) * scale
    return sums


def _layer(
    before: torch.Tensor, plain: torch.Tensor, gradients: list[torch.Tensor], patches: np.ndarray, maximum: float | None
) -> np.ndarray:
    channels = before.shape[1]
    if not gradients:
        return np.zeros((channels, len(patches)))
    step = max(1, _ELEMENTS[before.device.type] // (len(patches) * before[:, :1].numel()))
    parts = []
    for start in range(0, channels, step):
        some = slice(start, start + step)
        change = (replaced(before[:, some].contiguous(), patches, maximum) - plain[:, some]).flatten(3)
        gradient = torch.stack([row[:, some] for row in gradients]).flatten(3)
        moved = torch.einsum("pscx,kscx->sckp", gradient, change)
        parts.append(moved.double().square().sum(dim=(0, 3)).cpu())
    return torch.cat(parts).numpy()


def _projections(output: torch.Tensor) -> list[torch.Tensor]:
    """Unit vectors where the output is small, else sign vectors; fixed, since an estimate should be repeatable."""
    shape, size = output.shape[1:], math.prod(output.shape[1:])
    if size <= PROJECTIONS:
        return list(torch.eye(size, device=output.device).reshape(size, *shape))
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"threepc projections").digest(-(-size * PROJECTIONS // 8)), dtype=np.uint8))
    signs = torch.from_numpy(bits[: size * PROJECTIONS].astype(np.float32) * 2 - 1)
    return list(signs.reshape(PROJECTIONS, *shape).to(output.device))
