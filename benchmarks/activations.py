"""`python -m benchmarks.activations`: what a network costs with other activations, as a multiple of the same network with ReLUs.

Six 3x3 convolutions of 64 channels on 56x56 maps, three processes on this machine, medians of nine inferences.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from torch import nn

from threepc.api import local

ROUNDS, LAYERS, CHANNELS, SIDE = 9, 6, 64, 56
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": nn.LeakyReLU,
    "PReLU": lambda: nn.PReLU(CHANNELS),
    "ReLU6": nn.ReLU6,
    "Hardswish": nn.Hardswish,
    "SiLU": nn.SiLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class Taken:
    """Of one inference: seconds, the median; bytes over all links, without the set-up."""

    seconds: float
    size: int


def measure(activation: Callable[[], nn.Module], ring: int) -> Taken:
    """The network with this activation."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for index in range(LAYERS):
        layers += [nn.Conv2d(CHANNELS if index else 3, CHANNELS, 3, padding=1), activation()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10)).eval()
    images, seconds = torch.randn(1, 3, SIDE, SIDE), []
    with warnings.catch_warnings(), local(model, images, ring=ring) as secure:
        warnings.simplefilter("ignore")
        secure(images)  # a session's first image is not what is compared
        for _ in range(ROUNDS):
            began = time.perf_counter()
            secure(images)
            seconds.append(time.perf_counter() - began)
        links = secure.report["links"]
    size = sum(part["bytes"] for link in links.values() for phase, part in link.items() if phase != "setup")
    return Taken(statistics.median(seconds), size)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--ring", "rings", multiple=True, type=int, default=(48, 32), show_default=True)
def command(rings: tuple[int, ...]) -> None:
    """Compare activations with ReLU, in seconds and bytes."""
    click.echo("| activation | " + " | ".join(f"{ring} bits: s | times | bytes, times" for ring in rings) + " |")
    click.echo("|---|" + "---:|" * 3 * len(rings))
    plain: dict[int, Taken] = {}
    for name, activation in ACTIVATIONS.items():
        cells = []
        for ring in rings:
            taken = measure(activation, ring)
            base = plain.setdefault(ring, taken)
            cells += [f"{taken.seconds:.3f}", f"{taken.seconds / base.seconds:.2f}", f"{taken.size / base.size:.2f}"]
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    command(prog_name="python -m benchmarks.activations")
