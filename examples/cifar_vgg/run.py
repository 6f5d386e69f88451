#!/usr/bin/env python
"""Trains the CIFAR-10 VGG of the homomorphic tutorial on digits, tunes its arithmetic, runs it securely, and compares the times.

    .venv/bin/python examples/cifar_vgg/run.py

Everything is written to output/cifar_vgg.
"""

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from sklearn.datasets import load_digits

from threepc.cli.main import status

sys.path.append(str(Path(__file__).parent))
import vgg  # beside this file, where `threepc` finds it too

TUNED = 300
"""Held-out images that the arithmetic is chosen with: as many as show a loss of 1 % with 95 % confidence, if none is lost."""

OLD = (("Concrete ML, a VGG whose first layer is in the clear (62 %)", 1738.0), ("Concrete ML, this VGG in 2 bits, 128 cores (86 %)", 40.0))


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(images, labels) to train with and (images, labels) held out: scikit-learn's digits, -1 to 1, stretched to CIFAR's (N, 3, 32, 32)."""
    data = load_digits()
    small = torch.from_numpy(data.images / 8 - 1).float()[:, None]
    images = torch.nn.functional.interpolate(small, (32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    labels, held_out = torch.from_numpy(data.target), torch.arange(len(data.target)) % 5 == 0
    return images[~held_out], labels[~held_out], images[held_out], labels[held_out]


def threepc(*words: object, folder: Path) -> None:
    """Run a command in a folder, as a shell would."""
    arguments = list(map(str, words))
    print(f"\n$ threepc {shlex.join(arguments)}", flush=True)
    with contextlib.chdir(folder):
        if status(arguments):
            sys.exit(f"threepc {arguments[0]} failed")


def read(path: Path) -> dict[str, Any]:
    """The JSON that a command wrote."""
    return json.loads(path.read_text())


def compare(reports: dict[str, dict[str, Any]]) -> None:
    """A line for each run, and for the old ones."""
    print(f"\n{'one 32x32 image':62}{'seconds':>9}{'MB':>8}")
    for name, seconds in OLD:
        print(f"{name:62}{seconds:9,.0f}")
    for name, found in reports.items():
        images, same = found["images"], round(found["argmax_agreement"] * found["images"])
        print(
            f"{f'{name}: {same} of {images} labels as in plaintext':62}{found['seconds']['total'] / images:9.3f}{found['bytes']['total'] / images / 1e6:8.2f}"
        )


@click.command()
@click.option("--network", type=click.Choice(["network", "narrow"]), default="network", help="narrow: a sixteenth of the channels.")
@click.option("--epochs", default=6, show_default=True)
@click.option("--images", default=10, show_default=True, help="Images of the secure runs.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("output/cifar_vgg"), show_default=True)
def main(network: str, epochs: int, images: int, output: Path) -> None:
    """Train, tune, run with the default arithmetic and with the tuned one."""
    torch.manual_seed(0)
    output.mkdir(parents=True, exist_ok=True)
    train_images, train_labels, held_images, held_labels = digits()
    model = vgg.trained(getattr(vgg, network)(), train_images, train_labels, epochs)
    with torch.no_grad():
        right = (model(held_images).argmax(1) == held_labels).float().mean()
    print(
        f"{sum(p.numel() for p in model.parameters()):,} weights; {right:.1%} of {len(held_images)} held-out digits are right in plaintext"
    )
    torch.save(model.state_dict(), output / "vgg.pth")
    for name, chosen in (("calibration", train_images[:32]), ("tune", held_images[:TUNED]), ("run", held_images[TUNED:][:images])):
        np.save(output / f"{name}.npy", chosen.numpy())

    config = f"vgg:{network}", "vgg.pth"
    calibrated = "--calibration", "calibration.npy"
    threepc("tune", *config, "--images", "tune.npy", "--loss", "1%", *calibrated, "--report", "tuned.json", folder=output)
    command = read(output / "tuned.json")["command"]
    default = ["threepc", "run", *config, *calibrated, "--input", "IMAGE"]
    reports = {}
    for name, (_, *words, _) in (("default", default), ("tuned", command)):
        threepc(*words, "run.npy", "--compare", "--report", f"{name}_run.json", folder=output)
        reports[f"threepc, {name}"] = read(output / f"{name}_run.json")
    compare(reports)


if __name__ == "__main__":
    main()
