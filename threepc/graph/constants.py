"""What a traced network computes from its parameters and buffers alone: torch computes it once, at import."""

import operator
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
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
        self._origins: dict[fx.Node, str] = {node: _origin(value) for node, value in self._values.items()}
        self._computed: dict[str, str] = {}  # what was computed of which constants -> the node that did so first
        self._weights: dict[Hashable, np.ndarray] = {}

    def get(self, node: Any) -> torch.Tensor | None:
        """The value of a node, None for anything that is no constant tensor."""
        value = self._values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, torch.Tensor) else None

    def once(self, call: Call, made: Hashable, weight: np.ndarray) -> np.ndarray:
        """The weight that an operation makes of its constants: the array of before, where it did the same with the same ones before.

        made: what else of the operation the weight may depend on; that is not its bias. So the weights of a module that is called twice are
        known as one array.
        """
        of = {key: value for key, value in call.arguments.items() if key != "bias"}
        before = self._weights.setdefault((call.operation, self._origin_of(of), made), weight)
        return before if np.array_equal(before, weight) else weight

    def _origin_of(self, arguments: Any) -> str:
        """What arguments are, and of which constants; other tensors do not count."""
        return str(fx.node.map_arg(arguments, lambda source: self._origins.get(source, "")))

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
            changed = schema is not None and schema.is_mutable
            origin = f"{node.target} {self._origin_of((node.args, dict(node.kwargs)))}"
            self._origins[node] = node.name if changed else self._computed.setdefault(origin, node.name)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds
            call.refuse(f"on parameters alone, where torch fails: {' '.join(str(error).split())}")


def _origin(value: Any) -> str:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return str(id(value))
    return f"{value.data_ptr()} {value.shape} {value.stride()} {value.dtype}"


def _memory(value: Any) -> int:
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) and value.layout == torch.strided else 0
