"""What a node of torch's traced program is, for the importer and for people."""

from typing import Any

import torch
from torch import fx, nn

from threepc.graph.calls import Operation
from threepc.graph.operations import OPERATIONS


def schema(node: fx.Node) -> Any:
    """What torch's own operation takes and returns; None for anything else."""
    return getattr(node.target, "_schema", None)


def operation_name(node: fx.Node) -> str:
    """The operation without its library, overload and the mark of one in place."""
    full: str = schema(node).name if schema(node) else getattr(node.target, "__name__", str(node.target))
    name = full.rpartition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def operation_of(node: fx.Node) -> Operation | None:
    """How to import it; None where nobody knows."""
    return OPERATIONS.get(operation_name(node)) if schema(node) and schema(node).name.startswith("aten::") else None


def module_path(node: fx.Node) -> str:
    """The innermost module whose forward calls it."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {"": ("", None)}
    return list(stack.values())[-1][0]


def where(path: str) -> str:
    """A module, for people."""
    return f"module {path!r}" if path else "the model's own forward"


def torch_name(operation: str) -> str:
    """An operation as users write it."""
    if operation.startswith("upsample_"):
        return f"torch.nn.functional.interpolate ({operation.removeprefix('upsample_')})"
    homes = {"torch": torch, "torch.nn.functional": nn.functional, "torch.Tensor": torch.Tensor}
    return next((f"{home}.{operation}" for home, namespace in homes.items() if hasattr(namespace, operation)), f"aten.{operation}")
