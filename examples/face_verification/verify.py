#!/usr/bin/env python
"""Face verification of which only the decision is revealed: SphereFace-20 on pairs of photos, secure against plaintext.

.venv/bin/python examples/face_verification/verify.py
"""

import sys
import time
from pathlib import Path

import click
import numpy as np
import torch
from sklearn.datasets import load_sample_images

import threepc

sys.path.append(str(Path(__file__).parent))
from sphereface import SIZE, Verification, centred, sphereface

OLD = ("the old demonstration, one after the other", 0.87), ("the old demonstration, asynchronous", 0.96), ("the same, insecure", 9.09)


def photos(people: int, seed: int) -> torch.Tensor:
    """Two takes of each of so many "people", (people, 2, 3, 112, 96), -1 to 1: crops of scikit-learn's two photos, moved and made noisy."""
    drawn = np.random.default_rng(seed)
    images = load_sample_images().images
    takes = np.empty((people, 2, *SIZE, 3))
    for person in range(people):
        image = images[person % len(images)]
        top, left = (drawn.integers(0, side - size - 4) for side, size in zip(image.shape, SIZE, strict=False))
        for take in range(2):
            down, right = drawn.integers(0, 4, 2)
            crop = image[top + down :, left + right :][: SIZE[0], : SIZE[1]]
            takes[person, take] = crop * drawn.uniform(0.9, 1.1) + drawn.normal(0, 4, crop.shape)
    return torch.from_numpy(np.clip(takes / 127.5 - 1, -1, 1)).float().permute(0, 1, 4, 2, 3)


def pairs(takes: torch.Tensor) -> torch.Tensor:
    """(2 people, 6, 112, 96): every person's two takes, and every person's first with the next one's second."""
    same, other = torch.cat([takes[:, 0], takes[:, 1]], 1), torch.cat([takes[:, 0], takes.roll(-1, 0)[:, 1]], 1)
    return torch.stack([same, other], 1).flatten(0, 1)


def cosines(network: torch.nn.Module, pairs: torch.Tensor) -> torch.Tensor:
    """In plaintext."""
    with torch.no_grad():
        return torch.nn.functional.cosine_similarity(network(pairs[:, :3]), network(pairs[:, 3:]))


@click.command()
@click.option("--channels", default=64, show_default=True, help="Of the first stage; SphereFace-20 has 64.")
@click.option("--people", default=3, show_default=True, help="Each gives a pair of one person and a pair of two.")
@click.option("--ring", default=48, show_default=True)
@click.option("--transport", default="ipc", show_default=True)
def main(channels: int, people: int, ring: int, transport: str) -> None:
    """Decide for every pair, in plaintext and securely, and say how many faces a second that is."""
    torch.manual_seed(0)
    known = photos(16, seed=1)
    network = centred(sphereface(channels).eval().requires_grad_(False), known.flatten(0, 1))
    calibration = pairs(known)
    cosine = cosines(network, calibration)
    threshold = float(cosine[::2].min() + cosine[1::2].max()) / 2
    print(f"random weights; threshold {threshold:.3f}: of known pairs the same have cosines of {cosine[::2].min():.3f} and more,")
    print(f"others of up to {cosine[1::2].max():.3f}")

    asked = pairs(photos(people, seed=2))
    began = time.perf_counter()
    plain = cosines(network, asked)
    plain_seconds = (time.perf_counter() - began) / len(asked)
    model = Verification(network, threshold)
    with threepc.local(model, asked[:1], ring=ring, transport=transport, reveal="label", calibration=calibration[:8]) as secure:
        began = time.perf_counter()
        decisions = torch.cat([secure(pair[None]) for pair in asked])
        seconds = (time.perf_counter() - began) / len(asked)
        sizes = secure.report["bytes"]
    print("\npair  cosine in plaintext  decision, all that is revealed")
    for index, (cosine, decision) in enumerate(zip(plain.tolist(), decisions.tolist(), strict=True)):
        print(f"{index:4}  {cosine:19.3f}  {model.model_card.classes[decision]}")
    agree = int((decisions == (plain >= threshold)).sum())
    print(
        f"\n{agree} of {len(asked)} decisions are those of plaintext; {sizes['total'] / 1e6:,.1f} MB a pair, {sizes['setup'] / 1e6:,.1f} MB once"
    )
    print(f"\n{'faces a second':50}")
    for name, rate in (*OLD, ("threepc, one pair after the other", 2 / seconds), ("PyTorch in plaintext", 2 / plain_seconds)):
        print(f"{name:50}{rate:6.2f}")
    if agree != len(asked):
        sys.exit("secure and plaintext decisions differ")


if __name__ == "__main__":
    main()
