"""What each step of a plan can hold: the values of which node, or the sums on which it decides, must lie below which power of two. No torch here."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from threepc.graph.ir import Node
from threepc.plan.schedule import Plan
from threepc.protocol.steps import LookupStep, MaxPoolStep, OutputStep, ProductStep, ReluStep


@dataclass(frozen=True)
class Bound:
    """What a step can hold: values of `node`, or the sums on which it decides, of an absolute size below 2^exponent.

    value: the name of the plan's value that must fit.
    """

    step: str
    value: str
    node: str
    decided: bool
    exponent: int


def bounds(plan: Plan) -> Iterator[Bound]:
    """All that must hold for a plan to be right, in the order of its steps. A sign window that a user chose is that user's, and is no bound."""
    bits, nodes = plan.precision.bits, {node.name: node for node in plan.graph.nodes}
    curves = {step.name for step in plan.steps if isinstance(step, LookupStep)}  # which hold what their tables do
    for step in plan.steps:
        node = node_of(nodes, step.name)
        passes = isinstance(step, ProductStep | OutputStep) or (isinstance(step, ReluStep) and step.protocol.slopes is None)
        if step.result.bits == bits and not passes:
            yield Bound(step.name, step.name, node, _inner(nodes, step.name), bits - 2 - step.result.fraction)
        if isinstance(step, ProductStep):
            yield Bound(step.name, step.name, node, False, step.protocol.cut.kept_bits - 2 - step.result.fraction)
        if isinstance(step, ReluStep | MaxPoolStep):
            source, cut = step.sources[0], step.cut if isinstance(step, MaxPoolStep) else step.protocol.cut
            fraction = step.inputs[0].fraction - cut.shift
            if source not in curves:
                # half of what is compared, as differences of two values are, where values are pooled
                most = min(cut.kept_bits, step.protocol.compared + 1) if isinstance(step, MaxPoolStep) else cut.kept_bits
                yield Bound(step.name, source, node_of(nodes, source), _inner(nodes, source), most - 2 - fraction)
            if isinstance(step, ReluStep) and step.kind != "truncation":
                window = step.protocol.low_bit + step.protocol.width if plan.precision.window is None else cut.kept_bits
                yield Bound(step.name, source, node, True, min(cut.kept_bits - 2, window) - fraction)


def _inner(nodes: Mapping[str, Node], name: str) -> bool:
    """Whether a value is one that a smooth activation has on its way."""
    return name not in nodes and nodes[node_of(nodes, name)].kind == "smooth"


def node_of(nodes: Container[str], name: str) -> str:
    """The node that a step belongs to."""
    while name not in nodes:
        name = name.rpartition("/")[0]
    return name
