"""What products of two hidden values add to a plan. Their factors are truncated first where they are not yet."""

from __future__ import annotations

from threepc.errors import InputError
from threepc.graph.ir import Node
from threepc.kernels.gate import Cut
from threepc.kernels.product import MOST_LIFTED
from threepc.plan.scheduler import Scheduler
from threepc.protocol.product import OPS, Product
from threepc.protocol.steps import REDUCED, ProductStep, Value


def multiply(at: Scheduler, node: Node) -> None:
    """A multiply or matmul node. Raises InputError where the factors have more fractional bits than the ring holds."""
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
