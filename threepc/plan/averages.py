"""Averages that need no truncation of their own, which would take two messages.

The average of 2^k values is their sum, read with k more fractional bits. Where a narrow ring has no room for these in the product that follows, the
average is truncated. The layer before it is truncated anyway: it may remove k bits more, which the average brings back, so that the product finds
the usual number. What is lost is the average of 2^k roundings without bias, each 2^k times as large as usual: 2^(k/2) times what the average's own
truncation loses, and seldom the largest loss of a network. `choose_by_error` measures it, and takes it where the whole stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from threepc.errors import InputError
from threepc.graph.activations import kinks
from threepc.graph.ir import Graph
from threepc.graph.relu_spec import Sizes
from threepc.plan.activations import brought_back
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule


def with_early(graph: Graph, precision: Precision, sizes: Sizes | None) -> Precision:
    """The precision with every layer truncated early that saves the plan a truncation; the same one where none does."""
    return replace(precision, early=tuple(_saving(graph, precision, sizes)))


def _saving(graph: Graph, precision: Precision, sizes: Sizes | None) -> Iterator[str]:
    before, readers = len(schedule(graph, precision, sizes, draft=True).steps), graph.consumers()
    for node in graph.nodes:
        try:
            unit = 2.0 ** (brought_back(readers, node) - precision.fraction)
            steps = schedule(graph, replace(precision, early=(node.name,)), sizes, draft=True).steps
        except InputError:
            continue
        if len(steps) < before and all(kink % unit == 0 for kink in kinks(node.kind, node.attrs)):
            yield node.name
