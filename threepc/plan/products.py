"""What products of two hidden values add to a plan. Factors are truncated first where they are not yet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.graph.ir import Node
from threepc.kernels.gate import Cut
from threepc.kernels.product import MOST_LIFTED
from threepc.plan.scheduler import Scheduler
from threepc.protocol.product import OPS, Product
from threepc.protocol.steps import CUT, RAW, REDUCED, LocalStep, ProductStep, Value
from threepc.protocol.summands import Summand, times
from threepc.ring import Ring


def multiply(at: Scheduler, node: Node) -> None:
    """A multiply or matmul node. Raises InputError where the factors have more fractional bits than the ring holds."""
    if public := [name for name in node.inputs if at.graph[name].kind == "constant"]:
        _times(at, node, public[0])
        return
    sources = list(dict.fromkeys([at.reduce(at.held[name]) for name in node.inputs]))
    factors = [at.values[name] for name in sources]
    product = factors[0].fraction + factors[-1].fraction
    # unlike a product with weights, this one removes all that its factors bring: a chain of products would grow
    shift = min(max(1, product - at.fraction), MOST_LIFTED)
    if product > at.bits - 2 and not at.draft:
        raise InputError(f"{node.name}: a product of {product} fractional bits does not fit a ring of {at.bits} bits")
    protocol = Product(
        at.op, tuple(value.shape for value in factors), at.shape(node), Cut(at.bits, shift, at.bits - shift), node.kind == "matmul"
    )
    result = Value(at.shape(node), REDUCED, product - shift, at.bits)
    at.append(ProductStep, node, node.name, sources, result, OPS, protocol=protocol)
    at.settled[node.name] = result.fraction


def _times(at: Scheduler, node: Node, public: str) -> None:
    """A factor that everybody knows takes no message: its fractional bits, none for whole numbers, go with the next truncation."""
    numbers, reverse = np.array(at.graph[public].attrs["values"]).reshape(1, *at.graph[public].shape), node.inputs[0] == public
    fraction = 0 if np.array_equal(numbers, np.rint(numbers)) else at.fraction
    (source,) = [at.held[name] for name in node.inputs if name != public] or [at.held[public]]
    if fraction or at.values[source].form == CUT:
        source = at.reduce(source)
    value, words = at.values[source], Ring(at.bits).encode(numbers, fraction, public)
    result = Value(at.shape(node), RAW if fraction else value.form, value.fraction + fraction, at.bits)
    apply = partial(_first, words=words, matrix=node.kind == "matmul", reverse=reverse)
    at.append(LocalStep, node, node.name, [source], result, 0, apply=apply)


def _first(inputs: Sequence[Summand], **arguments: Any) -> Summand:
    return times(inputs[0], **arguments)
