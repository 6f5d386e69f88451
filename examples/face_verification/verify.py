#!/usr/bin/env python
"""Face verification of which only the decision is revealed: SphereFace-20 on pairs of photos, secure against plaintext.

.venv/bin/python examples/face_verification/verify.py
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from sklearn.datasets import load_sample_images

import threepc

sys.path.append(str(Path(__file__).parent))
from sphereface import SIZE, Verification, centred, embeddings, sphereface

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
    """(2 people, 3, 224, 96), one above the other: every person's two takes, and every person's first with the next one's second."""
    same, other = torch.cat([takes[:, 0], takes[:, 1]], 2), torch.cat([takes[:, 0], takes.roll(-1, 0)[:, 1]], 2)
    return torch.stack([same, other], 1).flatten(0, 1)


def cosines(network: torch.nn.Module, pairs: torch.Tensor) -> torch.Tensor:
    """In plaintext."""
    with torch.no_grad():
        return torch.nn.functional.cosine_similarity(*embeddings(network, pairs))


def one_after_the_other(
    model: Verification, asked: torch.Tensor, known: torch.Tensor, ring: int
) -> tuple[list[int], float, dict[str, Any]]:
    """(decisions, seconds a pair, the report of the last one), in three processes."""
    with threepc.local(model, asked[:1], ring=ring, reveal="label", calibration=known, timeout=600) as secure:
        secure(asked[:1])
        began = time.perf_counter()
        decisions = [int(secure(pair[None])) for pair in asked]
        return decisions, (time.perf_counter() - began) / len(asked), secure.report


def deployed(model: Verification, asked: torch.Tensor, known: torch.Tensor, settings: dict[str, Any]) -> Iterator[tuple[list[int], float]]:
    """(decisions, seconds a pair), one after the other and then two at a time, of a deployment whose three parties are threads of this process.

    settings: of deployment.yaml, written over those that `threepc keygen` chooses.
    """
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        addresses = [f"tcp://127.0.0.1:{port}" for port in free_ports(2)]
        words = ["keygen", str(keys), "--server", addresses[0], "--provider", addresses[1]]
        subprocess.run([sys.executable, "-m", "threepc", *words], check=True, capture_output=True)
        chosen = yaml.safe_load((keys / "deployment.yaml").read_text()) | settings
        (keys / "deployment.yaml").write_text(yaml.safe_dump(chosen))
        with (
            threepc.provide(keys, background=True),
            threepc.serve(model, keys, example_input=asked[:1], calibration=known, background=True),
            threepc.Client(keys, in_flight=2, cache=False) as client,
        ):
            list(client.map(asked[:2].numpy()))  # both sessions are there
            for at_once in (1, 2):
                began = time.perf_counter()
                decisions = [int(decision) for decision in client.map(asked.numpy(), in_flight=at_once)]
                yield decisions, (time.perf_counter() - began) / len(asked)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@click.command()
@click.option("--channels", default=64, show_default=True, help="Of the first stage; SphereFace-20 has 64.")
@click.option("--people", default=3, show_default=True, help="Each gives a pair of one person and a pair of two.")
@click.option("--ring", default=48, show_default=True)
@click.option("--network", default="none", show_default=True, help="Simulate a slower network for the deployment: lan, wan, ...")
def main(channels: int, people: int, ring: int, network: str) -> None:
    """Decide for every pair, in plaintext and securely, and say how many faces a second that is."""
    torch.manual_seed(0)
    takes = photos(16, seed=1)
    embed = centred(sphereface(channels).eval().requires_grad_(False), takes.flatten(0, 1))
    known = pairs(takes)
    cosine = cosines(embed, known)
    threshold = float(cosine[::2].min() + cosine[1::2].max()) / 2
    print(f"random weights; threshold {threshold:.3f}: of known pairs the same have cosines of {cosine[::2].min():.3f} and more,")
    print(f"others of up to {cosine[1::2].max():.3f}")

    asked = pairs(photos(people, seed=2))
    began = time.perf_counter()
    plain = cosines(embed, asked)
    seconds = {"PyTorch in plaintext": (time.perf_counter() - began) / len(asked)}
    model = Verification(embed, threshold)
    decisions, seconds["threepc, three processes, one pair after the other"], report = one_after_the_other(model, asked, known[:8], ring)
    print("\npair  cosine in plaintext  decision, all that is revealed")
    for index, (cosine, decision) in enumerate(zip(plain.tolist(), decisions, strict=True)):
        print(f"{index:4}  {cosine:19.3f}  {('different', 'same')[decision]}")
    sizes, wanted = report["bytes"], (plain >= threshold).int().tolist()
    agree = sum(decision == right for decision, right in zip(decisions, wanted, strict=True))
    print(
        f"\n{agree} of {len(asked)} decisions are those of plaintext; {sizes['total'] / 1e6:,.1f} MB a pair, {sizes['setup'] / 1e6:,.1f} MB once"
    )
    ways = ("one pair after the other", "asynchronous, two pairs at a time")
    for way, (again, each) in zip(
        ways, deployed(model, asked, known[:8], {"ring": ring, "reveal": "label", "network": network}), strict=True
    ):
        agree = min(agree, sum(decision == right for decision, right in zip(again, wanted, strict=True)))
        seconds[f"threepc, a deployment in one process, {way}"] = each
    print(f"\n{'faces a second':75}")
    for name, rate in (*OLD, *((name, 2 / each) for name, each in seconds.items())):
        print(f"{name:75}{rate:6.2f}")
    if agree != len(asked):
        sys.exit("secure and plaintext decisions differ")


if __name__ == "__main__":
    main()
