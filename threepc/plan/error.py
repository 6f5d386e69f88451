"""How far a plan's results will be from real numbers', and the precision that is chosen by that.

The plan's roundings are put into the network in the clear, on images of the server's: weights, slopes and averages are rounded as they are
encoded, and every value that is truncated gets noise of the size that a truncation has, half a unit in the last place, the sum of three
roundings; where it ends an average it is half a unit low besides, see `twin`. Two passes in float32 tell what a whole run would, in a small
part of its time. `twin` repeats a run to the bit, and takes as long as its convolutions do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from threepc.plan.calibration import SPARE_BITS, choose, deepen, least_fraction
from threepc.plan.headroom import Ranges, room
from threepc.plan.precision import MOST_ACTIVATION_BITS, NARROW, Precision
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

SEARCHED = 3
"""So many of the images that ranges are measured with are tried at first: that of least contrast, that of most, and one between."""

IMAGES = 16
"""So many of them are tried with the precision that is taken: what some networks lose on one image in seven is fifty times what they lose on others."""

CLEAR_GAIN = 0.8
"""Part of the usual precision's error to which another one must bring it to be taken: smaller gains are gone with other images."""

NOTHING = 2.0**-40
"""An error that counts as none in a mean."""

MORE_ACTIVATION_BITS = 2
"""Fractional bits of activations beyond the usual that are tried where results are too far off."""

CONTENDERS = 2
"""Of the precisions that are tried on the first images, so many of the best are tried on all, and the usual one with them."""


@dataclass(frozen=True)
class Expected:
    """What images lose. errors: of each, the largest of its results' errors as a part of that result's largest number.

    changed: the part of the places whose class is another, of the output where that is most.
    """

    errors: tuple[float, ...]
    changed: float

    @property
    def error(self) -> float:
        """Of the image that loses most."""
        return float(np.max(self.errors))  # NaN where one is

    @property
    def typical(self) -> float:
        """The geometric mean, which one image of many does not decide."""
        return float(np.exp(np.mean(np.log(np.maximum(self.errors, NOTHING)))))

    @property
    def images(self) -> int:
        """How many were tried."""
        return len(self.errors)

    def exceeds(self, bits: int) -> bool:
        """Whether results may be further off than a ring of `bits` bits should have them, and a user is warned."""
        return LEEWAY * self.error > LARGEST[bits]

    @property
    def is_refused(self) -> bool:
        """Whether results will be so far off that nobody should rely on them."""
        return self.error > REFUSED


class Reference:
    """A network in real numbers, to whose results plans of it are compared. images: (N, C, H, W), `IMAGES` of which are used at most.

    tell: takes a word on how far a trial of all images has come.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        images: np.ndarray | torch.Tensor,
        sizes: Sizes | None = None,
        tell: Callable[[str], object] = lambda _word: None,
    ) -> None:
        self._graph, self._weights, self._sizes, self._tell = graph, weights, sizes, tell
        self._parts = list(torch.split(_spread(torch.as_tensor(images)), SEARCHED))  # no more at once, for memory
        self._first = self._exact(self._parts[0])

    def expected(self, precision: Precision) -> Expected:
        """What a precision loses on the first `SEARCHED` images."""
        return self._lost(precision, self._parts[0], self._first)

    def on_all(self, precisions: Sequence[tuple[Precision, Expected]]) -> list[tuple[Precision, Expected]]:
        """Precisions with what they lose on all images, from what they lose on the first."""
        found, count = list(precisions), sum(map(len, self._parts))
        for part in self._parts[1:]:
            self._tell(f"error to expect, {found[0][1].images} of {count} images")
            exact = self._exact(part)
            found = [(precision, _together(so_far, self._lost(precision, part, exact))) for precision, so_far in found]
        return found

    def _exact(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The outputs in real numbers."""
        return [value for node, value in walk(self._graph, self._weights, images, self._sizes, torch.float32) if node.kind == "output"]

    def _lost(self, precision: Precision, images: torch.Tensor, exact: list[torch.Tensor]) -> Expected:
        pairs = list(zip(self._rounded(schedule(self._graph, precision, self._sizes, draft=True), images), exact, strict=True))
        differences = [(ours - theirs).abs().flatten(1).amax(1) for ours, theirs in pairs]
        largest = [theirs.abs().flatten(1).amax(1) for _, theirs in pairs]
        parts = [torch.where(size > 0, error / size, 0.0) for error, size in zip(differences, largest, strict=True)]
        changed = [float((ours.argmax(1) != theirs.argmax(1)).double().mean()) for ours, theirs in pairs if theirs.shape[1] > 1]
        return Expected(tuple(torch.stack(parts).amax(0).tolist()), max(changed, default=0.0))

    def _rounded(self, plan: Plan, images: torch.Tensor) -> list[torch.Tensor]:
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
        found = walk(self._graph, weights, images, self._sizes, torch.float32, change)
        return [value for node, value in found if node.kind == "output"]


def _together(one: Expected, other: Expected) -> Expected:
    """What two sets of images lose."""
    changed = (one.changed * one.images + other.changed * other.images) / (one.images + other.images)
    return Expected(one.errors + other.errors, changed)


def _spread(images: torch.Tensor) -> torch.Tensor:
    """Images that differ in contrast, which roundings depend on as much as on anything, at even steps of its order: `SEARCHED`, then the others."""
    order = images.flatten(1).std(1).argsort().tolist()
    first, chosen = ([order[step] for step in _steps(len(order), count)] for count in (SEARCHED, IMAGES))
    return images[first + [image for image in chosen if image not in first][: IMAGES - len(first)]]


def _steps(length: int, count: int) -> list[int]:
    """`count` of `length` numbers at even steps, the first and the last among them; all where there are no more."""
    steps: list[int] = torch.linspace(0, length - 1, min(count, length)).round().long().tolist()
    return steps


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


def choose_by_error(  # noqa: PLR0913, PLR0917 - as `choose`, with the network's weights and images
    graph: Graph,
    weights: Weights,
    images: np.ndarray | torch.Tensor,
    ranges: Ranges,
    usual: Precision,
    margin_bits: int,
    sizes: Mapping[str, tuple[tuple[int, int], ...]] | None,
    fraction: int | None,
    tell: Callable[[str], object] = lambda _word: None,
) -> tuple[Precision, Expected]:
    """`choose`, and where results would be too far off a finer precision if there is one; with the error to expect on `images`.

    Then `with_early`, if the error stays small: from half of the largest allowed on, no bit is given away for messages.
    usual: ring and window; fraction: of activations, None for the choice that this is about. tell: see `Reference`.
    """
    reference, enough = Reference(graph, weights, images, sizes, tell), LARGEST[usual.bits] / 2
    precision = choose(graph, ranges, usual.bits, margin_bits, sizes, fraction, usual.window)
    first = precision, reference.expected(precision)
    if usual.window:
        return reference.on_all([first])[0]
    for other in (False, True):  # the usual scales first: where these are good, all images are tried once
        best = _scaled_by_error(graph, reference, ranges, first, margin_bits, sizes, fraction) if other else first
        trial = with_early(graph, best[0], sizes)
        if trial == best[0] or (first[1].error > enough and not other):
            continue
        lost = reference.expected(trial)
        if lost.error <= enough:
            ((_, lost),) = reference.on_all([(trial, lost)])
            if lost.error <= enough:
                return trial, lost
    return best


def _scaled_by_error(
    graph: Graph,
    reference: Reference,
    ranges: Ranges,
    first: tuple[Precision, Expected],
    margin_bits: int,
    sizes: Sizes | None,
    fraction: int | None,
) -> tuple[Precision, Expected]:
    """The scales that `choose_by_error` takes, with the error to expect on all images. first: the usual ones, with what the first images lose.

    All images decide whether other scales are looked for, the first of them which, and all whether these are taken.
    """
    precision, bits = first[0], first[0].bits
    enough = LARGEST[bits] / 2
    if first[1].error <= enough:
        (best,) = reference.on_all([first])
        if best[1].error <= enough:
            return best
    others = _deeper(graph, ranges, precision, margin_bits, sizes, fraction) if bits > NARROW else []
    if bits <= NARROW and fraction is None:
        others = _other_fractions(graph, ranges, precision, margin_bits, sizes)
    ranked = sorted(((other, reference.expected(other)) for other in others), key=lambda pair: _measure(pair[1], bits))
    best, *found = reference.on_all([first, *ranked[:CONTENDERS]])
    found = [pair for pair in found if pair[1].error <= best[1].error and _measure(pair[1], bits) < CLEAR_GAIN * _measure(best[1], bits)]
    return min(found, key=lambda pair: _measure(pair[1], bits), default=best)


def _measure(expected: Expected, bits: int) -> float:
    """What precisions are compared by. Deeper truncations cost nothing, and are worth it where most images lose less and none loses more."""
    return expected.error if bits <= NARROW else expected.typical


def _deeper(
    graph: Graph, ranges: Ranges, precision: Precision, margin_bits: int, sizes: Sizes | None, fraction: int | None
) -> list[Precision]:
    """Precisions with deeper truncations, whose weights have more bits, and activations too where that leaves values no less room."""
    deep = deepen(graph, ranges, precision, margin_bits, sizes)
    found = [deep] if deep.truncation != precision.truncation else []
    if not found or fraction is not None:
        return found
    least = max(margin_bits, min(margin_bits + SPARE_BITS, math.floor(_least_room(graph, ranges, deep, sizes))))
    for bits in range(precision.fraction + 1, MOST_ACTIVATION_BITS + 1):
        try:
            more = choose(graph, ranges, precision.bits, least, sizes, bits, refine=False)
        except InputError:
            break
        more = deepen(graph, ranges, more, margin_bits, sizes)
        if more.truncation != precision.truncation and _least_room(graph, ranges, more, sizes) >= least:
            found.append(more)
    return found


def _least_room(graph: Graph, ranges: Ranges, precision: Precision, sizes: Sizes | None) -> float:
    """The bits that the value with least room has between its largest and what its step holds."""
    return min((bits for _, bits in room(schedule(graph, precision, sizes, draft=True), ranges).values()), default=math.inf)


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
