"""Piecewise linear activations by their nodes' attributes: where their pieces meet, and their slopes."""

from typing import Any


def clip_bounds(attrs: dict[str, Any]) -> tuple[float, float]:
    """A clip's bounds from its attributes."""
    return attrs.get("min", 0.0), attrs["max"]


def clip_slope(attrs: dict[str, Any]) -> tuple[float, float]:
    """What a clip makes of its lower bound, and its slope between the bounds."""
    low, high = clip_bounds(attrs)
    first, last = attrs.get("to", (low, high))
    return first, (last - first) / (high - low)


def kinks(kind: str, attrs: dict[str, Any]) -> tuple[float, ...]:
    """Where the pieces of an activation meet, rising: what its decisions compare with. () for any other node."""
    if kind == "clip":
        return clip_bounds(attrs)
    return {"relu": (0.0,), "rectify": (0.0,), "bend": (attrs.get("at", 0.0),)}.get(kind, ())


def rises(kind: str, attrs: dict[str, Any]) -> bool:
    """Whether a node is an activation that never falls, so that it commutes with the maximum."""
    if kind == "clip":
        return clip_slope(attrs)[1] > 0
    return kind == "relu" or (kind == "bend" and min(attrs["slopes"]) >= 0)


def takes_patches(kind: str, attrs: dict[str, Any]) -> bool:
    """Whether a relu spec may give a node patches: a relu, or a clip from 0 to a maximum."""
    return kind == "relu" or (kind == "clip" and attrs.keys() == {"max"})
