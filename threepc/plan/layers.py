"""What each kind of node adds to a plan: one function a kind, listed in LAYERS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from threepc.choices import LABEL
from threepc.errors import InputError
from threepc.graph.ir import Node, holder, signs, weight_shape
from threepc.plan import activations, sizes
from threepc.plan.products import multiply
from threepc.plan.scheduler import MOST_ELEMENTS, Scheduler, elements
from threepc.plan.smooth import smooth
from threepc.protocol import summands
from threepc.protocol.argmax import Argmax
from threepc.protocol.input_output import Input, Output, ServerOutput
from threepc.protocol.linear import Linear
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.steps import (
    CUT,
    RAW,
    REDUCED,
    InputStep,
    LinearStep,
    LocalStep,
    MaxPoolStep,
    OutputStep,
    PublicStep,
    ServerInputStep,
    ServerOutputStep,
    SumStep,
    Value,
)
from threepc.protocol.summands import Summand
from threepc.ring import Ring

OUTPUT_BITS = 8
"""Bits above the point that a result keeps when its fraction grows by an average's divisor."""


def _input(at: Scheduler, node: Node) -> None:
    shape = at.shape(node)
    value = Value(shape, REDUCED, at.precision.of_input, at.bits)
    if "owner" in node.attrs:
        at.append(ServerInputStep, node, node.name, [], value, 0)
    else:
        at.append(InputStep, node, node.name, [], value, 1, protocol=Input(at.op, shape, at.bits))


def _constant(at: Scheduler, node: Node) -> None:
    words = Ring(at.bits).encode(np.array(node.attrs["values"]).reshape(node.shape), at.fraction, node.name)
    value = Value(at.shape(node), REDUCED, at.fraction, at.bits)
    at.append(PublicStep, node, node.name, [], value, 0, words=summands.repeated(words, value.shape))


def _conv(at: Scheduler, node: Node) -> None:
    (source,) = at.inputs(node)
    weights = holder(node)
    value, own = at.values[source], at.precision.of_weights(weights)
    fits = value.fraction + own + OUTPUT_BITS <= at.bits - 2
    if value.form != REDUCED or (value.fraction != at.settled[source] and not (fits and at.ends_here(node))):
        source = at.reduce(source)
        value = at.values[source]
    a, shape = node.attrs, at.shape(node)
    geometry: dict[str, Any] = {key: tuple(a[key]) for key in ("stride", "padding", "dilation")}
    sharing = at.linear.get(weights)  # None where these are its own
    protocol = Linear(at.op, shape, weight_shape(at.graph, node), groups=a["groups"], bits=at.bits, weights_op=sharing, **geometry)
    at.linear[node.name] = at.op
    result = Value(shape, RAW, value.fraction + own, at.bits)
    at.append(LinearStep, node, node.name, [source], result, 1, protocol=protocol, weights=weights)
    # what an average brought and no truncation has removed goes too
    removed = at.precision.truncation + value.fraction - at.settled[source]
    at.settled[node.name] = max(at.fraction, value.fraction + own - removed)


def _maxpool(at: Scheduler, node: Node) -> None:
    (source,) = at.inputs(node)
    value = at.values[source]
    cut = at.opened(source)
    a = node.attrs
    _, width = at.precision.compared.get(node.name, (0, cut.kept_bits - 1))
    if width >= cut.kept_bits:
        raise InputError(f"precision of {node.name!r:.80}: a comparison of {width} bits of {cut.kept_bits}")
    window = a["kernel"], a["stride"], a["padding"], a["dilation"], cut.kept_bits, at.relu(node, width), width
    try:
        pool = MaxPool(at.op, value.shape, *window)
    except ValueError as error:
        raise InputError(f"{node.name}: {error}; use less padding") from None
    result = Value(at.shape(node), CUT, at.settled[source], cut.kept_bits)
    n, _, h, w = value.shape
    pieces = at.in_pieces(value.shape, lambda op, where: MaxPool(op, (n, where.stop - where.start, h, w), *window), pool.ops)
    ops = pool.ops * (len(pieces.parts) if pieces else 1)
    at.append(MaxPoolStep, node, node.name, [source], result, ops, protocol=pool, cut=cut, pieces=pieces)


def _add(at: Scheduler, node: Node) -> None:
    names, lefts, value = at.aligned(node)
    if "signs" in node.attrs:
        apply = partial(summands.add_signed, factors=[sign << left for sign, left in zip(signs(node), lefts, strict=True)])
    else:
        apply = partial(summands.add, lefts=lefts)
    at.append(SumStep, node, node.name, names, value, 0, apply=apply)


def _concat(at: Scheduler, node: Node) -> None:
    names, lefts, value = at.aligned(node)
    shapes = [at.values[n].shape for n in names]
    at.append(LocalStep, node, node.name, names, value, 0, apply=partial(summands.concat, lefts=lefts, shapes=shapes))


def _avgpool(at: Scheduler, node: Node) -> None:
    (source,) = at.inputs(node)
    a, divisor = node.attrs, node.attrs["divisor"]
    power = max(0, math.ceil(math.log2(divisor)))
    value = at.values[source]
    if value.form == CUT or (divisor != 2**power and value.form == RAW) or at.grows_too_long(source, power):
        source = at.reduce(source)
    value = at.values[source]
    # a sum of n values, read with log2(n) more fractional bits, is their average
    averaged = Value(at.shape(node), value.form, value.fraction + power, at.bits)
    geometry = {key: a[key] for key in ("kernel", "stride", "padding")}
    pool = partial(_first, summands.window_sums, shape=averaged.shape, **geometry)
    name = at.append(LocalStep, node, node.name, [source], averaged, 0, apply=pool)
    if divisor != 2**power:
        source = at.reduce(name)
        factor = round(2 ** (at.fraction + power) / divisor)
        scaled = Value(averaged.shape, RAW, at.values[source].fraction + at.fraction, at.bits)
        at.append(LocalStep, node, f"{name}/scale", [source], scaled, 0, apply=partial(_first, summands.multiply, factor=factor))


def _limit(at: Scheduler, node: Node) -> None:
    (at.held[node.name],) = at.inputs(node)  # what is said of a value changes nothing in it


def _reshape(at: Scheduler, node: Node) -> None:
    _in_place(at, node, partial(summands.reshape, shape=at.shape(node)))


def _gather(at: Scheduler, node: Node) -> None:
    _in_place(at, node, partial(summands.gather, moves=node.attrs["moves"]))


def _resize(at: Scheduler, node: Node) -> None:
    _in_place(at, node, partial(summands.broadcast, shape=at.shape(node)))


def _in_place(at: Scheduler, node: Node, apply: Callable[[Summand], Summand]) -> None:
    (source,) = at.inputs(node)
    value = at.values[source]
    result = Value(at.shape(node), value.form, value.fraction, value.bits)
    at.append(LocalStep, node, node.name, [source], result, 0, apply=partial(_first, apply))
    at.settled[node.name] = at.settled[source]


def _output(at: Scheduler, node: Node) -> None:
    (source,) = at.inputs(node)
    if at.values[source].form == CUT:
        source = at.reduce(source)
    value = at.values[source]
    at.decoded += at.batch * node.shape[0] * math.prod(node.attrs.get("resize", [])[:2] or node.shape[1:])
    if at.decoded > MOST_ELEMENTS:
        raise InputError(f"{node.name}: resized, the result has more than {MOST_ELEMENTS:,} numbers for {at.batch} images at once")
    # the low bits that do not count are as many whatever the weights' bits, and so are the bytes
    shift = value.fraction - at.settled[source]
    if "to" in node.attrs:
        if at.reveals[node.name] == LABEL:
            raise InputError(f"{node.name}: the server cannot be shown labels")
        at.append(ServerOutputStep, node, node.name, [source], value, 1, protocol=ServerOutput(at.op, elements(value), at.bits, shift))
        return
    if at.reveals[node.name] == LABEL:
        argmax = Argmax(at.op, value.shape, at.bits, shift, at.relu(node, at.bits))
        at.append(OutputStep, node, node.name, [source], value, argmax.ops, kind="argmax", protocol=argmax)
        return
    protocol = Output(at.op, elements(value), at.bits, shift)
    at.append(OutputStep, node, node.name, [source], value, 1, protocol=protocol)


def _first(apply: Callable[..., Summand], inputs: Sequence[Summand], **arguments: Any) -> Summand:
    return apply(inputs[0], **arguments)


LAYERS: dict[str, Callable[[Scheduler, Node], None]] = {
    "input": _input,
    "constant": _constant,
    "conv": _conv,
    "relu": activations.relu,
    "clip": activations.clip,
    "bend": activations.bend,
    "rectify": activations.rectify,
    "smooth": smooth,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "add": _add,
    "concat": _concat,
    "gather": _gather,
    "multiply": multiply,
    "matmul": multiply,
    "limit": _limit,
    "reshape": _reshape,
    "resize": _resize,
    "resample": sizes.resample,
    "output": _output,
}
"""By kind. A kind with a protocol of its own may have its function in another module of this room."""
