"""What a job does, as it is traced: the nodes of its graph, and where in the job's own code each of them was made."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import FrameType
from typing import Any

from threepc.errors import InputError, typed
from threepc.graph.ir import Node
from threepc.graph.kinds import MAX_SIDE, infer_shape

MOST_AXES = 3


@dataclass
class Trace:
    """The nodes of a job so far; unit: the least positive number that its values tell from 0. places: FILE:LINE by node, of the job's code."""

    unit: float
    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    _moved: dict[tuple[str, str], Node] = field(default_factory=dict)

    def add(self, kind: str, inputs: Sequence[str], shape: tuple[int, int, int] | None = None, name: str = "", **attributes: Any) -> Node:
        """Append a node, its shape inferred unless given. Raises InputError where the operation is not defined on its inputs."""
        if shape is None:
            shape = infer_shape(kind, [self.shapes[name] for name in inputs], attributes)
        node = Node(name or f"{kind}_{len(self.nodes)}", kind, tuple(inputs), shape, attributes)
        self.nodes.append(node)
        self.shapes[node.name] = shape
        self.places[node.name] = _place()
        return node

    def moved(self, source: str, moves: list[list[Any]]) -> Node:
        """The node that moves another's numbers so; the same one again where there is one, so that equal values are known for equal."""
        key = source, repr(moves)
        if key not in self._moved:
            self._moved[key] = self.add("gather", [source], moves=moves)
        return self._moved[key]


def _place() -> str:
    """FILE:LINE of the innermost call that is not this room's; nothing where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_globals.get("__name__", "").startswith("threepc.tensors."):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""


def named(node: str, places: Mapping[str, str]) -> str:
    """A node for a message: with its place, where that is known."""
    return f"{node} ({places[node]})" if places.get(node) else node


def cells(shape: Sequence[int]) -> tuple[int, int, int]:
    """The (C, H, W) of an array. Raises InputError for more axes, an empty one, or one that is too long."""
    if len(shape) > MOST_AXES or any(type(size) is not int or size < 1 for size in shape):
        raise InputError(f"an array has up to {MOST_AXES} axes of at least one number, not the shape {tuple(shape)}")
    if max(shape[-2:], default=1) > MAX_SIDE:
        raise InputError(f"an axis has at most {MAX_SIDE:,} numbers, not {max(shape[-2:]):,}: reshape it into two")
    first, second, third = (1,) * (MOST_AXES - len(shape)) + tuple(shape)
    return first, second, third


def limit_of(what: str, value: object) -> float:
    """A limit as a float. Raises InputError, naming `what`, unless it is a finite number above 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{what}: a limit is a finite number above 0, not {typed(value)}")
    try:
        size = float(value)
    except OverflowError:
        size = math.inf
    if not 0 < size < math.inf:
        raise InputError(f"{what}: a limit is a finite number above 0, not {size:g}")
    return size
