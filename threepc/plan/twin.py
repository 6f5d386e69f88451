"""The cleartext twin: a plan evaluated in the clear with the fixed-point arithmetic of the secure run.

Same quantised weights and inputs, same ring and wrap-around (by the same exact kernels), same openings, windows, patches and clips. What
chance decides in the secure run is decided by a `Rounding`:

- A truncation there is the sum of the parties' separately cut summands: within 1.5 units in the last place; without bias where it
  ends a product, half a unit low where it ends an average (two summands are cut, not three). The twin rounds to nearest, or draws the
  summands' low bits from a seeded generator, which gives the secure run's distribution.
- A decision that ignores the lowest bits of its window there compares values whose low bits carry at random. The twin carries from half
  on, or draws.
- A value outside the bound of 2^(bits-2) comes out of a secure gate wrong by a multiple of the cut ring, depending on its mask: drawn
  too, and otherwise left as the cut ring's signed value. Within the bound twin and secure run agree to 1 unit at every truncation.

Drawing here has nothing to do with masks: no share exists in this module.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch.nn import functional

from threepc.errors import InputError
from threepc.graph.ir import Graph, Weights
from threepc.kernels.convolution import PackedWeight
from threepc.kernels.gate import Cut, Slopes
from threepc.plan.schedule import Plan
from threepc.protocol.argmax import Argmax
from threepc.protocol.lookup import Lookup
from threepc.protocol.product import Product
from threepc.protocol.relu_layer import ReluLayer
from threepc.protocol.steps import InputStep, LinearStep, LocalStep, LookupStep, MaxPoolStep, OutputStep, ProductStep, ReluStep, Step, Value
from threepc.ring import word_of

Packed = Mapping[str, tuple[PackedWeight, np.ndarray]]
"""Weights as the kernels take them and biases, as ring words, by the step's name."""


@dataclass
class Rounding:
    """What stands for the chance of a secure run: to nearest without a seed, drawn with one.

    below: which part of a window's ignored bits carries where nothing is drawn: from half on (0.5), none (0), any (1).
    outside: how many opened values lay outside the bound so far.
    """

    seed: int | None = None
    below: float = 0.5
    outside: int = 0

    @cached_property
    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def drawn(self, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform numbers of `bits` bits, int64; only where there is a seed."""
        return self._generator.integers(0, 1 << bits, shape, np.uint64 if bits > 32 else np.uint32).astype(np.int64)

    def cut(self, words: np.ndarray, cut: Cut, provider_summand: bool = True) -> np.ndarray:
        """What is left of `words` when the parties have cut their summands of them: int64 of the cut ring, signed.

        provider_summand: whether P holds one, see `with_provider`.
        """
        z, shift = signed(words, cut.bits), cut.shift
        if shift:
            z = z + (1 << shift >> 1)
            low, z = z & ((1 << shift) - 1), z >> shift
            if self.seed is not None:
                low -= self.drawn(shift, z.shape)
                if provider_summand:
                    low += self.drawn(shift, z.shape)
                z += low >> shift
        return wrapped(z, cut.kept_bits)

    def units(self, x: np.ndarray, low_bit: int) -> np.ndarray:
        """x >> low_bit with a carry from the bits below, as the difference of two masked words has one."""
        if not low_bit:
            return x
        below = self.drawn(low_bit, x.shape) if self.seed is not None else int(self.below * ((1 << low_bit) - 1) + 0.5)
        return (x + below) >> low_bit

    def lifted(self, x: np.ndarray, kept_bits: int, bits: int) -> np.ndarray:
        """An opened value (signed, of the cut ring) as a gate lifts it to the ring of `bits` bits."""
        quarter = 1 << (kept_bits - 2)
        outside = (x < -quarter) | (x >= quarter) if kept_bits < bits else np.zeros(1, bool)
        if not outside.any():
            return x
        self.outside += int(np.count_nonzero(outside))
        if self.seed is None:
            return x
        shifted = (x[outside] + quarter) & ((1 << kept_bits) - 1)
        mask = self.drawn(kept_bits, shifted.shape)
        opened = shifted + mask
        wraps, n = opened >> kept_bits, 1 - (opened >> (kept_bits - 1) & 1)
        x = x.copy()
        x[outside] = shifted - quarter + ((n * (mask >> (kept_bits - 1)) - wraps) << kept_bits)
        return x

    def scaled(self, x: np.ndarray, above: np.ndarray, slopes: Slopes) -> np.ndarray:
        """x times the slope of its side, as two parties' rounded parts of it add up."""
        below = self.drawn(slopes.bits, x.shape) if self.seed is not None and slopes.bits else 1 << slopes.bits >> 1
        multiplied: np.ndarray = (x * np.where(above, slopes.above, slopes.below) + below) >> slopes.bits
        return multiplied


def signed(words: np.ndarray, bits: int) -> np.ndarray:
    """The numbers -2^(bits-1)..2^(bits-1)-1 that words of a ring of any `bits` stand for, int64."""
    return wrapped(words.astype(np.uint64).view(np.int64), bits)


def wrapped(numbers: np.ndarray, bits: int) -> np.ndarray:
    """int64 numbers modulo 2^bits, signed."""
    return numbers << (64 - bits) >> (64 - bits) if bits < 64 else numbers


def to_words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """int64 numbers as words of a ring of `bits` bits."""
    return numbers.astype(word_of(bits))


def decode(words: np.ndarray, value: Value) -> np.ndarray:
    """Real numbers (float64) of the words of a value."""
    return signed(words, value.bits) / 2.0**value.fraction


def pack(plan: Plan, weights: Weights) -> Packed:
    """Weights and biases as the server encodes them. Raises InputError, naming the layer, for what does not fit the ring."""
    packed: dict[str, tuple[PackedWeight, np.ndarray]] = {}
    for step, words, bias in plan.encoded_weights(weights):
        packed[step.name] = packed[step.weights][0] if words is None else step.protocol.server_weights(words), bias
    return packed


def simulate(
    plan: Plan, weights: Packed, images: np.ndarray, keep: Container[str] = (), seed: int | None = None, threads: int = 1
) -> dict[str, np.ndarray]:
    """Run a plan in the clear.

    images: real (plan.batch, C, H, W); weights: what `pack` made of the network's; keep: names of steps whose results are wanted; seed: of
    the chance that roundings have in the secure run, None to round to nearest.
    Returns float64 (N, C, H, W) by name, of the kept steps and of the output: logits before any final resize, or labels (N, 1, H, W).
    Raises InputError for images that do not fit.
    """
    results = {}
    for step, words in walk(plan, weights, images, Rounding(seed), threads):
        if step.name in keep or isinstance(step, OutputStep):
            results[step.name] = words.astype(np.float64) if words.dtype == np.int64 else decode(words, step.result)
    return results


def walk(plan: Plan, weights: Packed, images: np.ndarray, rounding: Rounding, threads: int = 1) -> Iterator[tuple[Step, np.ndarray]]:
    """As `simulate`, one step and the words of its result after the other; labels are int64. A value is let go after its last use."""
    if len(images) != plan.batch:
        raise InputError(f"the plan is for {plan.batch} images at once, not for {len(images)}")
    encoded, held = plan.precision.image_words(images, plan.graph.input.shape), with_provider(plan)
    values: dict[str, np.ndarray] = {}
    for index, step in enumerate(plan.steps):
        inputs = [values[name] for name in step.sources]
        values[step.name] = encoded if isinstance(step, InputStep) else apply(plan.graph, step, inputs, weights, rounding, threads, held)
        yield step, values[step.name]
        for name in plan.release[index]:
            del values[name]


def with_provider(plan: Plan) -> frozenset[str]:
    """The values of which P holds a summand that is not zero: products, and what is made of them before a protocol masks it anew.

    The scaled average of reduced values is none, though its form is that of a product.
    """
    names: set[str] = set()
    for step in plan.steps:
        if isinstance(step, LinearStep | MaxPoolStep) or (isinstance(step, LocalStep) and names.intersection(step.sources)):
            names.add(step.name)
    return frozenset(names)


def apply(
    graph: Graph,
    step: Step,
    inputs: Sequence[np.ndarray],
    weights: Packed,
    rounding: Rounding,
    threads: int = 1,
    held_by_provider: Container[str] = frozenset(),
) -> np.ndarray:
    """The words of one step's result from those of its inputs; of an argmax the labels, int64. held_by_provider: see `with_provider`."""
    provider_summand = bool(step.sources) and step.sources[0] in held_by_provider
    match step:
        case LinearStep():
            return step.protocol.apply(weights[step.name][0], inputs[0], weights[step.name][1], threads)
        case LocalStep():
            return cast("np.ndarray", step.apply(inputs))  # every summand is there
        case ReluStep():
            return relu(step.protocol, rounding.cut(inputs[0], step.protocol.cut, provider_summand), rounding)
        case LookupStep():
            return lookup(step.protocol, rounding.cut(inputs[0], step.protocol.cut, provider_summand), rounding)
        case MaxPoolStep():
            return max_pool(graph, step, rounding.cut(inputs[0], step.cut, provider_summand))
        case ProductStep():
            return product(step.protocol, inputs[0], inputs[-1], rounding)
        case OutputStep():
            return output(step, inputs[0], rounding, provider_summand)
    raise AssertionError(f"no rule to simulate {step.kind}")


def relu(protocol: ReluLayer, x: np.ndarray, rounding: Rounding) -> np.ndarray:
    """ReLU of every kind on opened values x (N, C, H, W), signed numbers of the cut ring; words of the ring."""
    out = np.zeros(x.shape, np.int64)
    if protocol.decide:
        whole = len(protocol.decide) == x.shape[1]
        chosen = (x if whole else x[:, protocol.decide]) - protocol.start
        units = rounding.units(chosen, protocol.low_bit)
        above = np.zeros(1, np.int64) if protocol.clip is None else _decided(protocol, units - (protocol.clip >> protocol.low_bit))
        kept = _decided(protocol, units) ^ above
        lifted = rounding.lifted(chosen, protocol.cut.kept_bits, protocol.ring)
        value = kept * lifted if protocol.slopes is None else rounding.scaled(lifted, kept, protocol.slopes)
        kept = value + above * (protocol.constant or 0) + protocol.offset
        if protocol.both:
            itself = rounding.lifted(x, protocol.cut.kept_bits, protocol.ring) if protocol.start else lifted
            kept = np.stack([kept, itself], axis=2).reshape(x.shape[0], -1, *x.shape[2:])
        if whole:
            return to_words(kept, protocol.ring)
        out[:, protocol.decide] = kept
    if protocol.through:
        out[:, protocol.through] = rounding.lifted(x[:, protocol.through], protocol.cut.kept_bits, protocol.ring)
    return to_words(out, protocol.ring)


def lookup(protocol: Lookup, x: np.ndarray, rounding: Rounding) -> np.ndarray:
    """The curve of opened values x (N, C, H, W): of the row where they lie or, as chance has it, the next; cut words."""
    low, last = protocol.low, (protocol.rows - 1) << protocol.low
    x = x & ((1 << protocol.cut.kept_bits) - 1)
    x = np.where(x >= last, x - (protocol.rows << low), x)
    row = rounding.units(x, low)
    c0, c1, c2 = (np.array(column)[row] for column in protocol.table)
    t = x - (row << low)
    y = (c0 << 2 * low) + (c1 * t << low) + c2 * t * t
    y += 1 << protocol.dropped >> 1 if rounding.seed is None else rounding.drawn(protocol.dropped, x.shape)
    return to_words(wrapped(y, protocol.total) >> protocol.dropped, protocol.kept_bits)


def _decided(protocol: ReluLayer, units: np.ndarray) -> np.ndarray:
    """[sum of the patch >= 0] at every pixel, as the window's sign bit says."""
    if protocol.patches is None:
        return ~(units >> protocol.width) & 1
    decided, rows, columns = np.empty(units.shape, np.int64), np.arange(units.shape[2]), np.arange(units.shape[3])
    for c, (h, w) in enumerate(protocol.patches.sizes):
        sums = np.add.reduceat(np.add.reduceat(units[:, c], rows[::h], 1), columns[::w], 2)
        decided[:, c] = (~(sums >> protocol.width) & 1)[:, (rows // h)[:, None], columns // w]
    return decided


def product(protocol: Product, x: np.ndarray, y: np.ndarray, rounding: Rounding) -> np.ndarray:
    """The product of words (N, C, H, W) with its truncation, as words of the ring; every party has a summand of it."""
    cut = rounding.cut(x @ y if protocol.matrix else x * y, protocol.cut)
    return to_words(rounding.lifted(cut, protocol.cut.kept_bits, protocol.cut.bits), protocol.cut.bits)


def max_pool(graph: Graph, step: MaxPoolStep, x: np.ndarray) -> np.ndarray:
    """Maxima of cut values (signed), as cut words."""
    attrs = graph[step.name].attrs
    top, left, bottom, right = attrs["padding"]
    padded = functional.pad(torch.from_numpy(x.astype(np.float64)), (left, right, top, bottom), value=-np.inf)
    pooled = functional.max_pool2d(padded, attrs["kernel"], attrs["stride"], 0, attrs["dilation"])
    return to_words(pooled.numpy().astype(np.int64), step.cut.kept_bits)


def output(step: OutputStep, words: np.ndarray, rounding: Rounding, provider_summand: bool) -> np.ndarray:
    """What the client decodes: words of the result, or int64 labels (N, 1, H, W), of equal values the higher index."""
    (value,), protocol = step.inputs, step.protocol
    if isinstance(protocol, Argmax):
        return labels(rounding.cut(words, protocol.cut, provider_summand))
    if rounding.seed is None or not protocol.shift:
        return words
    exact = signed(words, value.bits)
    error = rounding.drawn(protocol.shift, exact.shape) - (1 << protocol.shift >> 1)
    return to_words(exact + error, value.bits)


def labels(x: np.ndarray) -> np.ndarray:
    """The channel of the largest number, of equal ones the highest: (N, C, H, W) to (N, 1, H, W)."""
    found: np.ndarray = x.shape[1] - 1 - x[:, ::-1].argmax(axis=1, keepdims=True)
    return found
