"""How much room the values of a network have: real numbers against what ring, gates and sign windows hold, step by step.

Ranges are measured on the server's own images, and are the server's: no other party learns them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from threepc.errors import InputError
from threepc.graph.activations import kinks
from threepc.graph.clear import walk
from threepc.graph.ir import Graph, Node, Weights
from threepc.graph.relu_spec import IDENTITY, ZERO, Sizes
from threepc.plan.bounds import Bound, bounds
from threepc.plan.pieces import pieces
from threepc.plan.precision import FRACTION
from threepc.plan.schedule import Plan


@dataclass(frozen=True)
class Ranges:
    """Largest absolute values, by node name: of each node's output, and of the sums on which each ReLU decides.

    A plain ReLU's sums are its inputs; a clip and a bend decide on their inputs less each kink, the steps of a smooth activation on its inputs
    shifted. weights: the root mean square of each layer's.
    """

    values: dict[str, float]
    sums: dict[str, float]
    weights: dict[str, float]

    def of(self, bound: Bound) -> float:
        """The largest of what a bound is for."""
        return (self.sums if bound.decided else self.values)[bound.node]


def observe(
    graph: Graph, weights: Weights, images: torch.Tensor | np.ndarray, sizes: Sizes | None = None
) -> Iterator[tuple[str, bool, torch.Tensor]]:
    """(node, whether these are sums that it decides on, real numbers) for images (N, C, H, W), two at a time, in float32.

    sizes: patches of block ReLUs, by name.
    """
    readers: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    smooth: dict[str, list[tuple[str, float]]] = {}
    for node in graph.nodes:
        if at := kinks(node.kind, node.attrs):
            readers.setdefault(node.inputs[0], []).append((node.name, at))
        elif node.kind == "smooth":
            smooth.setdefault(node.inputs[0], []).append((node.name, _reach(node)))
    for pair in torch.split(torch.as_tensor(images), 2):
        for node, value in walk(graph, weights, pair, sizes, torch.float32):
            if "resize" not in node.attrs:
                yield node.name, False, value
            for name, at in readers.get(node.name, ()):
                for kink in at:
                    for sums in _sums(value - kink if kink else value, (sizes or {}).get(name)):
                        yield name, True, sums
            for name, reach in smooth.get(node.name, ()):
                yield name, True, value.abs() + reach


def _reach(node: Node) -> float:
    """How far a smooth activation's steps may take its argument, beside doubling it: where its table starts and ends."""
    table = pieces(node.attrs["function"], node.attrs["parameter"], max(FRACTION.values()))
    return table.span + abs(table.start)


def _sums(value: torch.Tensor, sizes: tuple[tuple[int, int], ...] | None) -> Iterator[torch.Tensor]:
    if sizes is None:
        yield value
        return
    for size in set(sizes) - {IDENTITY, ZERO}:
        chosen = value[:, [i for i, s in enumerate(sizes) if s == size]]
        yield functional.avg_pool2d(chosen, size, ceil_mode=True, divisor_override=1)


def measure(graph: Graph, weights: Weights, images: torch.Tensor | np.ndarray, sizes: Sizes | None = None) -> Ranges:
    """Run the network in the clear and note the ranges of all that `observe` sees, and of the biases.

    Raises InputError, naming the layer, where values are not finite.
    """
    ranges = Ranges({}, {}, {})
    for name, decided, numbers in observe(graph, weights, images, sizes):
        noted, largest = ranges.sums if decided else ranges.values, float(numbers.abs().max())
        if not math.isfinite(largest):
            raise InputError(f"calibration: {name} gives values that are not finite numbers")
        noted[name] = max(noted.get(name, 0.0), largest)
    for node in graph.nodes:
        if at := kinks(node.kind, node.attrs):  # where no patch decides, and where a bound is larger than all that it meets
            ranges.sums[node.name] = max(ranges.sums.get(node.name, 0.0), *map(abs, at), at[-1] - at[0])
    for name, part in weights.items():
        ranges.values[name] = max(ranges.values[name], float(np.abs(part["bias"]).max(initial=0.0)))
        ranges.weights[name] = float(np.sqrt(np.mean(np.square(part["weight"]))))
    return ranges


def room(plan: Plan, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """By step: its largest absolute value, a real number, and the bits between it and what the step holds; infinite for values of zero."""
    rooms: dict[str, tuple[float, float]] = {}
    for bound in bounds(plan):
        largest = ranges.of(bound)
        left = bound.exponent - math.log2(largest) if largest else math.inf
        rooms[bound.step] = min(rooms.get(bound.step, (largest, math.inf)), (largest, left), key=lambda found: found[1])
    return rooms


def count_outside(plan: Plan, weights: Weights, images: np.ndarray, sizes: Sizes | None = None) -> dict[str, int]:
    """By step: how many real numbers of images (N, C, H, W) lie where the step cannot hold them; only steps that have some, in their order.

    A value that is read by several steps is counted at each whose bound it breaks; of a step with two bounds the one that most break counts.
    """
    counts = dict.fromkeys(bounds(plan), 0)
    for name, decided, numbers in observe(plan.graph, weights, images, sizes):
        for bound in counts:
            if (bound.node, bound.decided) == (name, decided):
                counts[bound] += int(torch.count_nonzero(~(numbers.abs() < 2.0**bound.exponent)))
    outside: dict[str, int] = {}
    for bound, count in counts.items():
        outside[bound.step] = max(count, outside.get(bound.step, 0))
    return {name: count for name, count in outside.items() if count}
