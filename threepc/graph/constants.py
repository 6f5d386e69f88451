"""What a traced network computes from its parameters and buffers alone: torch computes it once, at import."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from threepc.graph.calls import Call


class Constants:
    """Parameters, buffers, and what was computed of them so far, by node of the traced program."""

    def __init__(self, program: ExportedProgram) -> None:
        targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
        stored = {**program.constants, **program.state_dict}
        self._values: dict[fx.Node, Any] = {
            node: stored[targets[node.name]].detach() for node in program.graph.nodes if targets.get(node.name) in stored
        }
        self._parameters = {_memory(value) for value in self._values.values()}

    def get(self, node: Any) -> torch.Tensor | None:
        """The value of a node, None for anything that is no constant tensor."""
        value = self._values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, torch.Tensor) else None

    def evaluate(self, node: fx.Node, call: Call) -> None:
        """Compute a node of constants; an operation in place changes them as torch does. Refuses what depends on chance or on calls before."""
        if not isinstance(node.target, torch._ops.OpOverload) and node.target is not operator.getitem:
            call.refuse("on parameters alone, which threepc cannot compute at import")
        if any(source not in self._values for source in node.all_input_nodes):
            call.follow()
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            call.refuse("whose result depends on chance")
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and _memory(self._values[node.all_input_nodes[0]]) in self._parameters:
            call.refuse("which changes a parameter or buffer in place: the network would give another result the next time")
        arguments, options = fx.node.map_arg((node.args, dict(node.kwargs)), lambda source: self._values[source])
        target: Callable[..., Any] = node.target
        try:
            with torch.no_grad():
                self._values[node] = target(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds
            call.refuse(f"on parameters alone, where torch fails: {' '.join(str(error).split())}")


def _memory(value: Any) -> int:
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) and value.layout == torch.strided else 0
