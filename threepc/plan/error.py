"""How far a plan's results will be from real numbers', and the precision that is chosen by that.

The plan's roundings are put into the network in the clear, on images of the server's: weights, slopes and averages are rounded as they are
encoded, and every value that is truncated gets noise of the size that a truncation has, half a unit in the last place, the sum of three
roundings; where it ends an average it is half a unit low besides, see `twin`. Two passes in float32 tell what a whole run would, in a small
part of its time. `twin` repeats a run to the bit, and takes as long as its convolutions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from threepc.errors import InputError
from threepc.graph.activations import clip_bounds
from threepc.graph.clear import operate, walk
from threepc.graph.ir import Graph, Node, Weights, holder
from threepc.graph.relu_spec import Sizes
from threepc.plan.averages import with_early
from threepc.plan.bounds import node_of
from threepc.plan.calibration import choose, deepen, least_fraction
from threepc.plan.headroom import Ranges
from threepc.plan.precision import NARROW, Precision
from threepc.plan.schedule import Plan, schedule
from threepc.plan.sizes import rounded_axes
from threepc.plan.twin import with_provider
from threepc.protocol.input_output import Output
from threepc.protocol.steps import CUT, REDUCED, InputStep, OutputStep, ReluStep, Step

LARGEST = {64: 0.005, 48: 0.005, 40: 0.005, 32: 0.03, 28: 0.03, 24: 0.03}
"""By ring, the error that results should not have, as a part of the largest one. From half of that on finer scales are looked for."""

REFUSED = 0.1
"""The error from which on a network is refused, unless its owner allows it: classes of results that far off are chance."""

LEEWAY = 1.5
"""Other images than those tried lose so much more, now and then."""

IMAGES = 3
"""So many of the images that ranges are measured with are tried: that of least contrast, that of most, and one between."""

CLEAR_GAIN = 0.8
"""Part of the usual precision's error to which another one must bring it to be taken: smaller gains are gone with other images."""

MORE_ACTIVATION_BITS = 2
"""Fractional bits of activations beyond the usual that are tried where results are too far off."""


@dataclass(frozen=True)
class Expected:
    """The largest error of an image's result as a part of its largest, and the part of the places whose class is another; images: tried."""

    error: float
    changed: float
    images: int

    def exceeds(self, bits: int) -> bool:
        """Whether results may be further off than a ring of `bits` bits should have them, and a user is warned."""
        return LEEWAY * self.error > LARGEST[bits]

    @property
    def is_refused(self) -> bool:
        """Whether results will be so far off that nobody should rely on them."""
        return self.error > REFUSED


class Reference:
    """A network's results in real numbers, to which plans of it are compared. images: (N, C, H, W), `IMAGES` of which are used."""

    def __init__(self, graph: Graph, weights: Weights, images: np.ndarray | torch.Tensor, sizes: Sizes | None = None) -> None:
        self._graph, self._weights, self._sizes = graph, weights, sizes
        self._images = _spread(torch.as_tensor(images))
        self._results = [value for node, value in walk(graph, weights, self._images, sizes, torch.float32) if node.kind == "output"]

    def expected(self, precision: Precision) -> Expected:
        """What a precision loses on these images."""
        pairs = list(zip(self._rounded(schedule(self._graph, precision, self._sizes, draft=True)), self._results, strict=True))
        sizes = [((ours - theirs).abs().flatten(1).amax(1), theirs.abs().flatten(1).amax(1)) for ours, theirs in pairs]
        errors = [float((error / largest)[largest > 0].max()) for error, largest in sizes if largest.any()]
        changed = [float((ours.argmax(1) != theirs.argmax(1)).double().mean()) for ours, theirs in pairs if theirs.shape[1] > 1]
        return Expected(max(errors, default=0.0), max(changed, default=0.0), len(self._images))

    def _rounded(self, plan: Plan) -> list[torch.Tensor]:
        """The outputs with a plan's roundings."""
        units, slopes, drawn = _units(plan), _slopes(plan), torch.Generator().manual_seed(0)

        def change(node: Node, inputs: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
            if node.kind == "resample":
                value = _resampled(plan, node, inputs[0])
            if node.name in slopes:
                value = operate(replace(node, attrs=node.attrs | {"slopes": slopes[node.name]}), inputs)
            if node.name not in units:
                return value
            unit, mean = units[node.name]
            noise = torch.randn(value.shape, generator=drawn).mul_(unit / 2).add_(unit * mean)
            return value + noise.mul_(_rounded_at(node, value))

        weights = {
            name: part | {"weight": _nearest(part["weight"], plan.precision.of_weights(holder(plan.graph[name])))}
            for name, part in self._weights.items()
        }
        found = walk(self._graph, weights, self._images, self._sizes, torch.float32, change)
        return [value for node, value in found if node.kind == "output"]


def _spread(images: torch.Tensor) -> torch.Tensor:
    """Images that differ most in contrast, which roundings depend on as much as on anything: at even steps of its order."""
    order = images.flatten(1).std(1).argsort()
    steps = torch.linspace(0, len(images) - 1, min(IMAGES, len(images))).round().long()
    return images[order[steps]]


def _nearest(numbers: np.ndarray, bits: int) -> np.ndarray:
    rounded: np.ndarray = np.rint(numbers * 2.0**bits) / 2.0**bits
    return rounded


def _units(plan: Plan) -> dict[str, tuple[float, float]]:
    """The unit in the last place of every node's value that is rounded at first, or truncated, and the mean of its error in that unit."""
    nodes, held = {node.name for node in plan.graph.nodes}, with_provider(plan)
    opened = [step for step in plan.steps if isinstance(step, OutputStep) and isinstance(step.protocol, Output)]
    # the nearest of what the server sends of an output, so half of what a truncation may be off
    return {step.name: (2.0 ** (step.protocol.shift - step.inputs[0].fraction) / 2, 0.0) for step in opened if step.protocol.shift} | {
        node_of(nodes, step.name): (2.0**-step.result.fraction, -0.5 if _of_average(step) and step.sources[0] not in held else 0.0)
        for step in plan.steps
        if _rounds(plan.graph, step)
    }


def _rounds(graph: Graph, step: Step) -> bool:
    """Whether a step's result is rounded more than its inputs are.

    An activation that keeps its input for a product truncates the input, not its own result, which has the roundings of slopes at most.
    """
    if step.kind == "part":
        return step.name.endswith("/truncation")
    if isinstance(step, OutputStep):  # what is reduced already is sent as it is; for the rest see `_units`
        return False
    if isinstance(step, ReluStep) and step.protocol.both and graph[step.name].kind != "rectify":
        return step.protocol.slopes is not None
    return isinstance(step, InputStep) or (step.result.form in {REDUCED, CUT} and bool(step.cost.messages))


def _rounded_at(node: Node, value: torch.Tensor) -> torch.Tensor:
    """Where a node's value is rounded: what a ReLU holds back stays away to the bit, and what a clip bounds is its bound."""
    if node.kind != "clip":
        return value != 0
    low, high = node.attrs.get("to") or clip_bounds(node.attrs)
    return (value != low) & (value != high)


def _of_average(step: Step) -> bool:
    """Whether a step truncates what only two parties hold."""
    return isinstance(step, ReluStep) and step.protocol.cut.shift > 0


def _slopes(plan: Plan) -> dict[str, list[float]]:
    """The slopes with which bends are computed."""
    found = ((step.name, step.protocol.slopes) for step in plan.steps if isinstance(step, ReluStep) and step.kind == "bend")
    return {name: [slopes.below / 2**slopes.bits, slopes.above / 2**slopes.bits] for name, slopes in found if slopes}


def _resampled(plan: Plan, node: Node, x: torch.Tensor) -> torch.Tensor:
    """A resample node with its whole weights."""
    axes, bits = rounded_axes(plan.precision, node.attrs, *x.shape[2:])
    for axis, cells, weights in axes:
        shape = [len(cells) if one == axis else 1 for one in range(4)]
        terms = zip(torch.from_numpy(cells).T, torch.from_numpy(weights).T.to(x.dtype), strict=True)
        x = sum((x.index_select(axis, cell) * weight.reshape(shape) for cell, weight in terms), torch.zeros(()))
    return x / 2.0**bits


def choose_by_error(
    graph: Graph,
    weights: Weights,
    images: np.ndarray | torch.Tensor,
    ranges: Ranges,
    usual: Precision,
    margin_bits: int,
    sizes: Mapping[str, tuple[tuple[int, int], ...]] | None,
    fraction: int | None,
) -> tuple[Precision, Expected]:
    """`choose`, and where results would be too far off a finer precision if there is one; with the error to expect on `images`.

    Then `with_early`, if the error stays small: from half of the largest allowed on, no bit is given away for messages.
    usual: ring and window; fraction: of activations, None for the choice that this is about.
    """
    reference = Reference(graph, weights, images, sizes)
    precision, expected = _scaled_by_error(graph, reference, ranges, usual, margin_bits, sizes, fraction)
    trial = precision if usual.window else with_early(graph, precision, sizes)
    if trial == precision:
        return precision, expected
    lost = reference.expected(trial)
    return (trial, lost) if lost.error <= LARGEST[usual.bits] / 2 else (precision, expected)


def _scaled_by_error(
    graph: Graph, reference: Reference, ranges: Ranges, usual: Precision, margin_bits: int, sizes: Sizes | None, fraction: int | None
) -> tuple[Precision, Expected]:
    """The scales that `choose_by_error` takes."""
    bits, window = usual.bits, usual.window
    precision = choose(graph, ranges, bits, margin_bits, sizes, fraction, window)
    best = precision, reference.expected(precision)
    if window or best[1].error <= LARGEST[bits] / 2:
        return best
    others = [deepen(graph, ranges, precision, margin_bits, sizes)] if bits > NARROW else []
    if bits <= NARROW and fraction is None:
        others += _other_fractions(graph, ranges, precision, margin_bits, sizes)
    found = min(((other, reference.expected(other)) for other in others), key=lambda pair: pair[1].error, default=best)
    return found if found[1].error < CLEAR_GAIN * best[1].error else best


def _other_fractions(graph: Graph, ranges: Ranges, precision: Precision, margin_bits: int, sizes: Sizes | None) -> list[Precision]:
    """Precisions of the same ring whose activations have other numbers of bits, as far as they fit."""
    found = []
    for fraction in range(least_fraction(precision.bits), Precision.default(precision.bits).fraction + MORE_ACTIVATION_BITS + 1):
        try:
            found += (
                [choose(graph, ranges, precision.bits, margin_bits, sizes, fraction, refine=False)]
                if fraction != precision.fraction
                else []
            )
        except InputError:
            continue
    return found
