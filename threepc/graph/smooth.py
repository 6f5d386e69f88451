"""Smooth activations: each as a straight part, which a ReLU computes, and a curve that ends in a constant.

fold   f(z)                                          where
=====  ============================================  =============================================================
abs    relu(z) + curve(|z|)                          the curve is smooth through 0, though f - relu is not
below  relu(z) + curve(max(-z, 0))                   f is straight above 0
range  curve(clamp(z, low, high)), plus, if rising,  f ends in constants; if rising, f(z) - z does so above, and
       max(z, low) - clamp(z, low, high)             the curve is f where the clamp ends
=====  ============================================  =============================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

ABS, BELOW, RANGE = "abs", "below", "range"

PARAMETER = 1 / 16, 16.0
"""Least and largest parameter of an activation: beta of softplus, alpha of ELU and CELU."""


@dataclass(frozen=True)
class Smooth:
    """curve: of one number and the parameter; ends: its limits at its far end, or at both ends of a range; free: it has a parameter, else that is 1.

    rising: `curve` is given as f(z) - z, and ends[0] is the limit of f itself.
    """

    fold: str
    curve: Callable[[float, float], float]
    ends: Callable[[float], tuple[float, ...]] = lambda _: (0.0,)
    free: bool = False
    rising: bool = False


def _sigmoid(z: float, _: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))


def _mish_less_z(z: float, _: float) -> float:
    e = math.exp(min(z, 300.0))
    return z * ((e * e + 2 * e) / (e * e + 2 * e + 2) - 1)


def _gelu_tanh(c: float, _: float) -> float:
    return c / 2 * (math.tanh(math.sqrt(2 / math.pi) * (c + 0.044715 * c**3)) - 1)


SMOOTH: dict[str, Smooth] = {
    "sigmoid": Smooth(RANGE, _sigmoid, lambda _: (0.0, 1.0)),
    "tanh": Smooth(RANGE, lambda z, _: math.tanh(z), lambda _: (-1.0, 1.0)),
    "silu": Smooth(ABS, lambda c, _: -c / (1 + math.exp(c))),
    "gelu": Smooth(ABS, lambda c, _: -c * math.erfc(c / math.sqrt(2)) / 2),
    "gelu_tanh": Smooth(ABS, _gelu_tanh),
    "softplus": Smooth(ABS, lambda c, beta: math.log1p(math.exp(-beta * c)) / beta, free=True),
    "mish": Smooth(RANGE, _mish_less_z, lambda _: (0.0, 0.0), rising=True),
    "elu": Smooth(BELOW, lambda c, alpha: alpha * math.expm1(-c), lambda alpha: (-alpha,), free=True),
    "celu": Smooth(BELOW, lambda c, alpha: alpha * math.expm1(-c / alpha), lambda alpha: (-alpha,), free=True),
}
"""By the function's name."""
