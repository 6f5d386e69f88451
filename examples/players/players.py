#!/usr/bin/env python
"""The five players of older systems (model owner, data owner, three computing servers) as threepc's three processes, or in one.

    .venv/bin/python examples/players/players.py all         # three processes, from one deployment.yaml
    .venv/bin/python examples/players/players.py together    # the same in one process

Each of the three may be started alone, on a host of its own: model-owner, data-owner, helper.
"""

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from sklearn.datasets import load_digits

import threepc

if TYPE_CHECKING:
    import torch

HELD_OUT = 1500
"""The model owner trains with the digits before this one; the data owner asks for later ones."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, float32 (N, 1, 8, 8) from -1 to 1, and what they show."""
    data = load_digits()
    return (data.images / 8 - 1).astype(np.float32)[:, None], data.target


def trained() -> "torch.nn.Module":
    """The model owner's network, after some seconds of training."""
    import torch
    from torch import nn

    from threepc.card import ModelCard, Preprocessing

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    model.model_card = ModelCard("digits", Preprocessing((8, 8), (127.5,), (127.5,)), classes=tuple("0123456789"))
    images, labels = (torch.from_numpy(part)[:HELD_OUT] for part in digits())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(4):
        for chosen in torch.randperm(HELD_OUT).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return model.eval()


def asked(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The data owner's images, and what they show."""
    images, labels = digits()
    return images[HELD_OUT:][:count], labels[HELD_OUT:][:count]


def tell(scores: np.ndarray, labels: np.ndarray) -> None:
    """What the data owner makes of the scores (N, 10), which it alone learns."""
    for index, (row, label) in enumerate(zip(scores, labels, strict=True)):
        print(f"image {index}: says {row.argmax()}, shows {label}, score {row.max():.3f}")
    print(f"{int((scores.argmax(1) == labels).sum())} of {len(labels)} right", flush=True)


deployment_option = click.option("--deployment", type=click.Path(path_type=Path), default=Path("output/players"), show_default=True)
count_option = click.option("--images", default=10, show_default=True, help="How many the data owner has.")


@click.group()
def main() -> None:
    """Play one of the players, or all."""


@main.command()
@deployment_option
def model_owner(deployment: Path) -> None:
    """Hold the weights, and compute: threepc's server."""
    threepc.serve(trained(), deployment)


@main.command()
@deployment_option
def helper(deployment: Path) -> None:
    """Hold nothing, and compute: threepc's provider."""
    threepc.provide(deployment)


@main.command()
@deployment_option
@count_option
def data_owner(deployment: Path, images: int) -> None:
    """Hold the images, compute, and learn the scores: threepc's client."""
    mine, labels = asked(images)
    with threepc.Client(deployment) as client:
        tell(client.predict(mine), labels)


@main.command("all")
@deployment_option
@count_option
def processes(deployment: Path, images: int) -> None:
    """Start all three as processes of this host."""
    if not (deployment / "deployment.yaml").exists():
        subprocess.run([sys.executable, "-m", "threepc", "keygen", str(deployment)], check=True)
    start = lambda *words: subprocess.Popen([sys.executable, __file__, *words, "--deployment", str(deployment)])
    waiting = [start("model-owner"), start("helper")]
    try:
        status = start("data-owner", "--images", str(images)).wait()
    finally:
        for process in waiting:
            process.send_signal(signal.SIGTERM)
        ended = [process.wait() for process in waiting]
    sys.exit(status or max(map(abs, ended)))


@main.command()
@count_option
def together(images: int) -> None:
    """Play all in one process: to try and to debug, for nothing is private within a process."""
    import torch

    mine, labels = asked(images)
    with threepc.local(trained(), torch.from_numpy(digits()[0][:HELD_OUT:50]), transport="memory") as secure:
        tell(secure(torch.from_numpy(mine)).numpy(), labels)


if __name__ == "__main__":
    main()
