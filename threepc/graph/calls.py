"""What an operation's importing function is given, and what it gives back."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch

from threepc.graph.kinds import Shape


@dataclass(frozen=True)
class Value:
    """An activation: the node that computes it, that node's shape for one image, and the shape of the tensor in torch.

    The tensor's cells are those of the node in C order, after `moves` (moves.py) that no node does yet; a node that does them will bear
    `name`. `resize` is a bilinear resize [height, width, align_corners] still to be done, possible only if nothing but the output follows.
    """

    node: str
    shape: Shape
    torch_shape: tuple[int, ...]
    resize: list[Any] | None = None
    moves: tuple[list[Any], ...] = ()
    name: str = ""


def node_shape(dimensions: Sequence[int]) -> Shape:
    """The (C, H, W) of a node that holds a tensor of these dimensions for one image: (C,), (C, L) as rows of height 1, (C, H, W), or more."""
    channels, *others = (*dimensions, 1)[: max(1, len(dimensions))]
    *middle, width = others or [1]
    return (channels, 1, width) if not middle else (channels, middle[0], math.prod(middle[1:]) * width)


def pointwise(groups: int) -> dict[str, Any]:
    """The attributes of a 1x1 convolution."""
    return {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": groups}


class Call(Protocol):
    """One operation of the exported graph. Arguments are named as in the operation's schema, defaults filled in."""

    operation: str
    name: str
    arguments: dict[str, Any]
    torch_shape: tuple[int, ...]
    torch_shapes: list[tuple[int, ...]]
    dtype: torch.dtype | None

    def refuse(self, reason: str) -> NoReturn:
        """Raise InputError: module '...' uses torch...., {reason}."""

    def follow(self) -> NoReturn:
        """Raise FollowsError: an argument comes from what was refused, and nothing can be said of it."""

    def activation(self, argument: Any, rank: int | None = None) -> Value:
        """The activation behind an argument as a node of the tensor's own shape; refuses constants and, if `rank` is given, another rank."""

    def view(self, argument: Any) -> Value:
        """The activation behind an argument, perhaps with moves that no node does yet; refuses constants."""

    def moved(self, value: Value) -> Value:
        """The value after its moves, by a node that does them all."""

    def integers(self, argument: Any) -> list[int] | None:
        """A constant tensor of whole numbers in one dimension, None for anything else."""

    def fixed(self, argument: Any) -> np.ndarray | None:
        """The float64 value of a number or a constant tensor; None for an activation."""

    def constant(self, argument: Any) -> np.ndarray | None:
        """The float64 value of a parameter, a buffer or what was computed from them; None for None."""

    def emit(self, kind: str, inputs: Iterable[Value], attrs: dict[str, Any] | None = None, part: str = "", **weights: np.ndarray) -> Value:
        """Add a node to the graph; part: what to call it where an operation takes several nodes, of which the last has the operation's name."""

    def affine(self, x: Value, scale: np.ndarray, bias: np.ndarray, part: str = "") -> Value:
        """x * scale + bias, one of each a channel: a depthwise convolution, which the one before it takes in where nothing else reads that."""


@dataclass(frozen=True)
class Operation:
    """How to import an operation, and the torch class whose modules do nothing else (so that a node can bear the module's name)."""

    convert: Callable[[Call], Value | list[Value]]
    modules: type | tuple[type, ...] = ()
