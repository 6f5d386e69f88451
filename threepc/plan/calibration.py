"""Fractional bits of every convolution's weights, from the largest values that the network reaches on data of the server.

A product has the fractional bits of both factors, f_a of the activation and f_w of the weight, and the ring must hold it with room to
spare: f_a + f_w + log2(max |z|) + margin <= bits - 2, and likewise every gate and the window in which signs are found. Each layer gets the
largest f_w that its range allows, at most 16, which is what a truncation can remove; branches that meet without a truncation before get one
scale. Where there is room beyond, layers of small weights get more than 16, and the activations after them the bits that the truncation
leaves; inputs of a large range have fewer, and the weights that meet them so many more. Ranges count as powers of two, and all that leaves
the server is the fractional bits that follow from them, and the bits that layers compare (narrowing.py): calibrate on the server's own images,
never on a client's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from threepc.errors import InputError
from threepc.graph.ir import Graph, Weights, holder
from threepc.graph.relu_spec import Sizes
from threepc.images.card import Preprocessing
from threepc.plan.bounds import Bound, bounds
from threepc.plan.headroom import Ranges, measure
from threepc.plan.precision import DEEPEST_TRUNCATION, FRACTION, MAX_TRUNCATION, MOST_WEIGHT_BITS, NARROW, Precision
from threepc.plan.schedule import Plan, schedule
from threepc.protocol.steps import REDUCED, LinearStep, Step

MARGIN_BITS = 2
"""An input may drive any layer to four times what calibration saw."""

LEAST_WEIGHT_BITS = 4
"""With fewer fractional bits a layer's weights would lose their meaning; the network is refused instead."""

LEAST_ACTIVATION_BITS = 8
"""Of activations; a ring that usually has hardly more goes down by `FEWER_ACTIVATION_BITS` instead."""

FEWER_ACTIVATION_BITS = 3

SPARE_BITS = 4
"""What is left free besides the margin where weights get more bits than a truncation removes."""

FINE_WEIGHTS = 12
"""Weights of this size, in units of the last place and as a power of two, are fine enough: their rounding no longer shows."""

FINEST_WEIGHTS = 17
"""The same where truncations remove more bits: they are weights of a network that multiplies every rounding."""

USUAL_INPUT = 3
"""Inputs up to 8 have the fractional bits of activations; each doubling has one less, and leaves it to the weights that meet it."""


def default_images(preprocessing: Preprocessing, count: int = 8, seed: int = 0) -> np.ndarray:
    """Images to calibrate with where the server has none: random patches and noise over the range of pixels, normalised as clients do.

    Returns float32 (count, C, H, W), the same for the same seed. Real images of the kind that clients will send are better.
    """
    drawn, (channels, height, width) = np.random.default_rng(seed), preprocessing.shape
    coarse = drawn.uniform(0, 255, (count, channels, 8, 8))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    contrast = drawn.uniform(0.25, 1, (count, 1, 1, 1))
    noise = drawn.normal(0, 12, (count, *preprocessing.shape))
    pixels = np.clip(127.5 + contrast * (coarse[:, :, rows][..., columns] - 127.5) + noise, 0, 255)
    mean, std = (np.array(part).reshape(-1, 1, 1) for part in (preprocessing.mean, preprocessing.std))
    normalised: np.ndarray = (pixels - mean) / std
    return normalised.astype(np.float32)


def calibrate(
    graph: Graph,
    weights: Weights,
    images: torch.Tensor | np.ndarray,
    bits: int,
    margin_bits: int = MARGIN_BITS,
    sizes: Sizes | None = None,
    fraction: int | None = None,
) -> Precision:
    """The precision for a ring of `bits` bits: `fraction` for activations, f_w for each layer's weights.

    images: real (N, C, H, W) of the server's, normalised; sizes: patches of block ReLUs, by name. fraction: None for the ring's usual one, or as
    many as fit. The same arguments give the same result. Raises InputError, naming the layer, where a range does not fit the ring, with the
    number of fractional bits that would.
    """
    return choose(graph, measure(graph, weights, images, sizes), bits, margin_bits, sizes, fraction)


def choose(
    graph: Graph,
    ranges: Ranges,
    bits: int,
    margin_bits: int = MARGIN_BITS,
    sizes: Sizes | None = None,
    fraction: int | None = None,
    window: tuple[int, int] | None = None,
    refine: bool = True,
) -> Precision:
    """`calibrate` from ranges that were measured before. window: the bits of a product that decide signs, None for all that can matter.

    refine: give small weights what room is left, layer by layer, which takes most of the time.
    """
    usual = Precision.default(bits).fraction if fraction is None else fraction
    try:
        deepest = DEEPEST_TRUNCATION if usual > MAX_TRUNCATION else MAX_TRUNCATION
        fitted = _fit(graph, ranges, margin_bits, sizes, Precision(bits, usual, window=window, truncation=deepest))
    except _DoesNotFitError as error:
        for fewer in range(usual - 1, least_fraction(bits) - 1, -1):
            try:
                fitted = _fit(graph, ranges, margin_bits, sizes, Precision(bits, fewer, window=window))
            except _DoesNotFitError:
                continue
            if fraction is None:
                break
            raise InputError(f"{error}; {fewer} fractional bits for activations would do, or a larger ring") from None
        else:
            wider = [larger for larger in sorted(FRACTION) if larger > bits]
            raise InputError(
                f"{error}; " + (f"take a ring of {wider[0]} bits" if wider else "the network's values are too large")
            ) from None
    return _refine(graph, ranges, margin_bits + SPARE_BITS, sizes, fitted) if refine and not window else fitted


def least_fraction(bits: int) -> int:
    """Fractional bits that activations have at least in a ring of `bits` bits where calibration chooses."""
    return min(LEAST_ACTIVATION_BITS, FRACTION[bits] - FEWER_ACTIVATION_BITS)


class _DoesNotFitError(Exception):
    """Says which layer and why."""


def _fit(graph: Graph, ranges: Ranges, margin: int, sizes: Sizes | None, precision: Precision) -> Precision:
    """Start from as many bits as a truncation removes, and take away where the plan's values would not fit, until all do."""
    # a window of a user's counts the bits of products as they are without calibration; narrow rings have none such
    most = precision.fraction if precision.window and precision.bits > NARROW else MAX_TRUNCATION
    own = {node.name: most for node in graph.nodes if node.kind == "conv" and holder(node) == node.name}
    largest_input = ranges.values[graph.input.name]
    if exponent(largest_input) + 2 * precision.fraction > precision.bits - 2:
        raise _DoesNotFitError(f"{graph.input.name}: input values up to {largest_input:.3g} do not fit a ring of {precision.bits} bits")
    if not precision.window:
        fewer_bits = min(max(0, exponent(largest_input) - USUAL_INPUT), precision.fraction - 1)
        precision = replace(precision, input_fraction=precision.fraction - fewer_bits if fewer_bits else None)
        lacking: dict[str, int] = {}  # of weights used several times as few as any of their inputs lacks
        fewest = {name: min(bits, precision.fraction) for name, bits in own.items()}
        for step in schedule(graph, replace(precision, weight_fraction=fewest), sizes, draft=True).linear:
            lacks = max(0, precision.fraction - step.inputs[0].fraction)
            lacking[step.weights] = min(lacks, lacking.get(step.weights, lacks))
        own = {name: bits + lacking[name] for name, bits in own.items()}
    while True:
        try:
            plan = schedule(graph, replace(precision, weight_fraction=own), sizes, draft=True)
        except InputError:  # products of more fractional bits than a narrow ring has; as few as must be taken from all
            if precision.bits > NARROW or min(own.values(), default=0) <= LEAST_WEIGHT_BITS:
                raise
            own = {name: bits - 1 for name, bits in own.items()}
            continue
        producer = {step.name: step for step in plan.steps}
        lowered: dict[str, int] = {}
        for bound in bounds(plan):
            excess = exponent(ranges.of(bound)) + margin - bound.exponent
            if excess <= 0:
                continue
            fewer = {name: allowed for name, allowed in _scales(producer, bound.value, excess) if allowed < own[name]}
            if not fewer or min(fewer.values()) < LEAST_WEIGHT_BITS:
                raise _DoesNotFitError(
                    f"{bound.step}: values up to {ranges.of(bound):.3g} do not fit a ring of {precision.bits} bits"
                    f" with {precision.fraction} fractional bits for activations"
                )
            lowered |= {name: min(allowed, lowered.get(name, allowed)) for name, allowed in fewer.items()}
        if not lowered:
            return _with_weights(precision, own)
        own |= lowered


def _with_weights(precision: Precision, own: Mapping[str, int]) -> Precision:
    return replace(precision, weight_fraction={name: bits for name, bits in own.items() if bits != precision.fraction})


def _refine(graph: Graph, ranges: Ranges, margin: int, sizes: Sizes | None, precision: Precision) -> Precision:
    """Give small weights more fractional bits, the coarsest first, as long as every value keeps `margin` bits and nothing more is sent.

    The activations after such a layer have the bits that its truncation does not remove, up to where values are truncated by more: one
    layer's bits are also the room of those that follow.
    """
    plan = schedule(graph, precision, sizes)
    steps = [step.name for step in plan.steps]
    fineness = {step.name: precision.of_weights(step.name) + math.log2(ranges.weights[step.name] or 1.0) for step in plan.holding}
    coarse = {name for name, size in fineness.items() if size < FINE_WEIGHTS}
    while coarse:
        name = min(coarse, key=lambda layer: (fineness[layer], layer))
        finer = {step.name: precision.of_weights(step.name) for step in plan.holding}
        finer[name] += 1
        trial = _with_weights(precision, finer) if finer[name] <= MOST_WEIGHT_BITS else precision
        try:
            planned = schedule(graph, trial, sizes, draft=True)
        except InputError:  # a product of more bits than the ring, whose values are too small to need fewer
            coarse.remove(name)
            continue
        more = [step.name for step in planned.steps] != steps  # a truncation that the plan did not have
        fits = all(exponent(ranges.of(bound)) + margin <= bound.exponent for bound in _changed(plan, planned))
        if trial is precision or more or not fits:
            coarse.remove(name)
            continue
        precision, plan = trial, planned
        fineness[name] += 1
        if fineness[name] >= FINE_WEIGHTS:
            coarse.remove(name)
    return precision


def deepen(graph: Graph, ranges: Ranges, precision: Precision, margin_bits: int = MARGIN_BITS, sizes: Sizes | None = None) -> Precision:
    """A precision whose truncations remove more bits, so that every layer's weights may have more, for a network that loses too much else.

    Weights keep at least the bits that they have; more only up to where their rounding no longer shows, and where every value keeps SPARE_BITS
    besides the margin. The protocols stay as many; each sends a little more or less. The same precision comes back where that does not fit.
    """
    deep, plan = replace(precision, truncation=DEEPEST_TRUNCATION), schedule(graph, precision, sizes, draft=True)
    least = {step.name: precision.of_weights(step.name) for step in plan.holding}
    own, known = dict(least), {step.name for step in plan.steps}
    for step in plan.holding:
        finest = math.ceil(FINEST_WEIGHTS - math.log2(ranges.weights[step.name] or 1.0))
        own[step.name] = max(own[step.name], min(finest, DEEPEST_TRUNCATION, precision.bits - 2 - step.inputs[0].fraction))
    while True:
        trial = _with_weights(deep, own)
        try:
            plan = schedule(graph, trial, sizes, draft=True)
        except InputError:  # a sum of what has more bits than the ring
            return precision
        producer = {step.name: step for step in plan.steps}
        lowered: dict[str, int] = {}
        for bound in bounds(plan):
            excess = exponent(ranges.of(bound)) + margin_bits + SPARE_BITS - bound.exponent
            for name, allowed in _scales(producer, bound.value, excess) if excess > 0 else ():
                fewer = max(allowed, least[name])
                if fewer < own[name]:
                    lowered[name] = min(fewer, lowered.get(name, fewer))
        for step in plan.linear:
            if step.sources[0] not in known and own[step.weights] > least[step.weights]:  # a truncation that there was no need for
                lowered[step.weights] = least[step.weights]
        if not lowered:
            break
        own |= lowered
    fits = all(exponent(ranges.of(bound)) + margin_bits <= bound.exponent for bound in bounds(plan))
    return trial if fits and known == {step.name for step in plan.steps} else precision


def _changed(plan: Plan, planned: Plan) -> list[Bound]:
    """The bounds of a plan that another one has not."""
    before = set(bounds(plan))
    return [bound for bound in bounds(planned) if bound not in before]


def exponent(largest: float) -> int:
    """The least e with largest <= 2^e."""
    return math.ceil(math.log2(largest)) if largest > 0 else -64


def _scales(producer: Mapping[str, Step], name: str, excess: int) -> Iterator[tuple[str, int]]:
    """(convolution, its largest f_w) for every convolution whose product enters value `name`, for that to lose `excess` fractional bits."""
    step = producer[name]
    if isinstance(step, LinearStep):
        yield step.weights, step.result.fraction - excess - step.inputs[0].fraction
    elif step.result.form != REDUCED:
        longest = max(value.fraction for value in step.inputs)
        for source, value in zip(step.sources, step.inputs, strict=True):
            if value.form != REDUCED:
                yield from _scales(producer, source, excess - (longest - value.fraction))
