"""What a network of several outputs returns: where each stands in it, its name, and what is revealed of it.

A network that returns one tensor has one node of kind output, without a path. In any other each output has a `path`, the way to it through
the tuples, lists and dicts that the module returns: pairs [container, key] from the outside in, the key an index or a text. Peers send
paths, so they are checked: together they must be one structure, its outputs in order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from threepc.choices import LABEL, LOGITS, REVEALS
from threepc.errors import InputError

if TYPE_CHECKING:
    from threepc.graph.ir import Graph

DEEPEST = 8
"""Containers within each other at most."""

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""Keys of dicts: a key becomes a part of file names, and of what users choose by name."""

T = TypeVar("T")


def check_path(path: Any) -> None:
    """Raises InputError unless `path` is one that the module's docstring describes."""
    if type(path) is not list or not 1 <= len(path) <= DEEPEST:
        raise InputError(f"must be a list of 1 to {DEEPEST} pairs [container, key]")
    for pair in path:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str or pair[0] not in ("tuple", "list", "dict"):
            raise InputError("must be pairs [container, key], the container tuple, list or dict")
        right = type(pair[1]) is str and _KEY.fullmatch(pair[1]) if pair[0] == "dict" else type(pair[1]) is int and pair[1] >= 0
        if not right:
            raise InputError("must have indices of tuples and lists, and keys of dicts of letters, digits and _.- (64 at most)")


def name_of(path: Sequence[Sequence[Any]]) -> str:
    """What users call an output: "logits", "1", "boxes.0"."""
    return ".".join(str(key) for _, key in path)


def names(graph: Graph) -> tuple[str, ...]:
    """The names of a graph's outputs; "output" where it returns one tensor."""
    return tuple(name_of(node.attrs["path"]) if "path" in node.attrs else "output" for node in graph.outputs)


def nested(paths: Sequence[Sequence[Sequence[Any]]], leaves: Sequence[T]) -> Any:
    """The structure of tuples, lists and dicts with a leaf at the end of each path. Raises InputError where the paths make none."""
    if len(paths) == 1 and not paths[0]:
        return leaves[0]
    if not all(paths):
        raise InputError("outputs: one stands where others do")
    if len(kinds := {path[0][0] for path in paths}) > 1:
        raise InputError("outputs: two kinds of container stand in one place")
    groups = [list(group) for _, group in itertools.groupby(zip(paths, leaves, strict=True), key=lambda pair: pair[0][0][1])]
    inner = {group[0][0][0][1]: nested([path[1:] for path, _ in group], [leaf for _, leaf in group]) for group in groups}
    if len(inner) < len(groups) or (kinds != {"dict"} and list(inner) != list(range(len(inner)))):
        raise InputError("outputs: those of one container must be together, in order, and none may be missing")
    return inner if kinds == {"dict"} else tuple(inner.values()) if kinds == {"tuple"} else list(inner.values())


def structured(graph: Graph, leaves: Sequence[T]) -> Any:
    """The leaves, one for each output, in the structure that the network returns; the only one as it is where it returns one tensor."""
    return nested([node.attrs.get("path", []) for node in graph.outputs], leaves)


def revealed(graph: Graph, reveal: str) -> tuple[str, ...]:
    """What is revealed of each output, "logits" or "label".

    reveal: one of these for all outputs, one for each ("logits,label"), or NAME=WHAT for some, the others being logits. Raises InputError.
    """
    known, parts = names(graph), reveal.split(",") if isinstance(reveal, str) else [""]
    if reveal in REVEALS:
        return (reveal,) * len(known)
    if all("=" in part for part in parts):
        chosen = dict(part.split("=", 1) for part in parts)
        if len(chosen) == len(parts) and chosen.keys() <= set(known) and set(chosen.values()) <= set(REVEALS):
            return tuple(chosen.get(name, LOGITS) for name in known)
    elif len(parts) == len(known) and set(parts) <= set(REVEALS):
        return tuple(parts)
    each = f", one for each of {', '.join(known)}, or NAME=WHAT for some" if len(known) > 1 else ""
    raise InputError(f"reveal: must be {' or '.join(REVEALS)}{each}, not {reveal!r:.80}")


def reveal_text(reveals: Sequence[str]) -> str:
    """The shortest text that `revealed` reads as `reveals`."""
    return reveals[0] if len(set(reveals)) == 1 else ",".join(reveals)


def joined(graph: Graph, results: Sequence[np.ndarray]) -> np.ndarray:
    """Decoded results (N, C, H, W), one for each output, as one array: (N, numbers), or as it is where the network returns one tensor.

    Where all outputs are the server's: (1, 0).
    """
    if graph.returns_tensor:
        return results[0]
    flat = [result.reshape(len(result), -1) for result in results]
    return np.concatenate(flat, axis=1) if flat else np.empty((1, 0))


def split(graph: Graph, reveals: Sequence[str], decoded: np.ndarray) -> list[np.ndarray]:
    """Inverse of `joined`: (N, C, H, W) for each output, where labels have one channel."""
    shapes = [(1, *node.shape[1:]) if what == LABEL else node.shape for node, what in zip(graph.outputs, reveals, strict=True)]
    ends = np.cumsum([c * h * w for c, h, w in shapes])
    flat = np.split(decoded.reshape(len(decoded), -1), ends[:-1], axis=1)
    return [part.reshape(len(part), *shape) for part, shape in zip(flat, shapes, strict=True)]
