"""Fixed-point precision of a network: public, the same for all parties, stored with the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from threepc.choices import RINGS
from threepc.errors import InputError
from threepc.ring import Ring

FRACTION = {64: 16, 48: 16, 40: 14, 32: 11, 28: 9, 24: 7}
"""Fractional bits of activations by ring. In the 32-bit ring weights need bits more than activations do: simulated on the five networks with
random weights, on images not used to choose it, 11 bits give 0.6 to 0.7 of the error of 12 on ResNets and DeepLab on ResNet-50, and about
the same error on the two MobileNetV2 networks."""

NARROW = 32
"""Rings of so many bits and fewer have no room to spare: calibration chooses the scales of each layer, and those of activations."""

WIDEST_WINDOW = 30
MAX_TRUNCATION = 16
"""Bits that a truncation removes at most, unless a precision says more: a lift draws two masks of this size as one 32-bit word."""

DEEPEST_TRUNCATION = 24
"""What a precision may say instead. Then weights may have as many bits, a truncated value has less room, and a lift draws 64-bit words."""

MOST_ACTIVATION_BITS = 19
"""Fractional bits of activations at most, where truncations are that deep; else as many as `MAX_TRUNCATION`."""

MOST_WEIGHT_BITS = 30
"""Largest number of fractional bits of weights. What a truncation leaves of more than 16 stays with the activations that follow."""


def span(numbers: Collection[int]) -> str:
    """The least and the largest of whole numbers for people, or the one that they are."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Precision:
    """Ring bits, fractional bits of activations and of each convolution's weights, and the comparison window of ReLUs.

    fraction: of activations, at least: those after weights of many bits have more, see `schedule`. weight_fraction: by convolution name;
    names not listed use `fraction`. input_fraction: of the network's input, None for `fraction`; large inputs have fewer. window (LO, HI): a
    ReLU compares bits LO..HI-1 of the product that precedes it, HI being the sign bit; None is the exact default, LO = the bits that the
    truncation removes and at most 30 bits wide. truncation: bits that one truncation may remove. compared: (first bit, width) by the name of a layer
    that decides, of what its truncation leaves, where fewer bits do and there is no window; see `narrow`. early: layers whose truncation removes
    besides what the average brings that alone reads them, so that it needs none of its own; see `averages`.
    """

    bits: int = 48
    fraction: int = 16
    weight_fraction: Mapping[str, int] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    input_fraction: int | None = None
    truncation: int = MAX_TRUNCATION
    compared: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    early: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in RINGS:
            raise InputError(f"ring: must be one of {', '.join(map(str, RINGS))}, not {self.bits!r}")
        own = (("fraction", self.fraction), ("input_fraction", self.of_input))
        most_own = MAX_TRUNCATION if self.truncation == MAX_TRUNCATION else MOST_ACTIVATION_BITS
        for most, values in ((most_own, own), (MOST_WEIGHT_BITS, self.weight_fraction.items())):
            for name, value in values:
                if type(value) is not int or not 1 <= value <= most:
                    raise InputError(f"precision of {name!r:.80}: fractional bits must be 1 to {most}, not {value!r}")
        if type(self.truncation) is not int or not MAX_TRUNCATION <= self.truncation <= DEEPEST_TRUNCATION:
            raise InputError(
                f"precision: a truncation removes at most {MAX_TRUNCATION} to {DEEPEST_TRUNCATION} bits, not {self.truncation!r:.80}"
            )
        if self.of_input > self.fraction:
            raise InputError(f"precision: an input has at most the {self.fraction} fractional bits of activations, not {self.of_input}")
        for name, (first, width) in self.compared.items():
            if first < 0 or not 1 <= width <= self.bits - 1 - first:
                raise InputError(f"precision of {name!r:.80}: {width} bits from bit {first} on are not in a ring of {self.bits} bits")
        if self.window is not None:
            low, high = self.window
            if not (type(low) is int and type(high) is int and 0 <= low < high <= self.bits - 2):
                raise InputError(
                    f"drelu-window {low}:{high}: must be LO:HI with 0 <= LO < HI <= {self.bits - 2} in a ring of {self.bits} bits"
                )

    @classmethod
    def default(cls, bits: int) -> Precision:
        """The same fractional bits everywhere; for rings of 32 bits and fewer see `calibration`."""
        if bits not in FRACTION:
            raise InputError(f"ring: must be one of {', '.join(map(str, RINGS))}, not {bits}")
        return cls(bits, FRACTION[bits])

    @property
    def of_input(self) -> int:
        """Fractional bits of the network's input."""
        return self.fraction if self.input_fraction is None else self.input_fraction

    def of_weights(self, name: str) -> int:
        """Fractional bits of a convolution's weights."""
        return self.weight_fraction.get(name, self.fraction)

    def image_words(self, images: np.ndarray, shape: Sequence[int], what: str = "the image") -> np.ndarray:
        """Ring words of images (N, C, H, W), real numbers, for a network that takes `shape` (C, H, W).

        A pixel must leave as many bits free as it has fractional ones: a product gives it these besides, and has to stay within the ring's
        bound too. Raises InputError, naming `what`, for another shape, for what is not finite, and for what does not fit.
        """
        if images.ndim != 4 or images.shape[1:] != tuple(shape):
            raise InputError(f"the model takes images of shape {tuple(shape)}, not {images.shape[1:]}")
        return Ring(self.bits).encode(images, self.of_input, what, headroom=2 * self.fraction - self.of_input)

    def to_plain(self) -> dict[str, Any]:
        """As JSON-plain data."""
        own: dict[str, Any] = {} if self.input_fraction is None else {"input_fraction": self.input_fraction}
        own |= {} if self.truncation == MAX_TRUNCATION else {"truncation": self.truncation}
        own |= {"compared": {name: list(bits) for name, bits in self.compared.items()}} if self.compared else {}
        own |= {"early": list(self.early)} if self.early else {}
        return {
            "bits": self.bits,
            "fraction": self.fraction,
            "weight_fraction": dict(self.weight_fraction),
            "window": list(self.window) if self.window else None,
        } | own

    @classmethod
    def from_plain(cls, data: object) -> Precision:
        """Inverse of `to_plain`; raises InputError for anything else."""
        if not isinstance(data, dict) or data.keys() - {"input_fraction", "truncation", "compared", "early"} != {
            "bits",
            "fraction",
            "weight_fraction",
            "window",
        }:
            raise InputError("precision: expected the keys bits, fraction, weight_fraction, window")
        window, weights = data["window"], data["weight_fraction"]
        if not (window is None or (isinstance(window, list) and len(window) == 2)) or not isinstance(weights, dict):
            raise InputError("precision: window must be a pair or null, weight_fraction an object")
        own = data.get("input_fraction", data["fraction"])
        truncation, compared = data.get("truncation", MAX_TRUNCATION), data.get("compared", {})
        if not isinstance(compared, dict) or any(not isinstance(bits, list) or len(bits) != 2 for bits in compared.values()):
            raise InputError("precision: compared must be an object of pairs")
        early = data.get("early", [])
        if not isinstance(early, list) or any(not isinstance(name, str) for name in early):
            raise InputError("precision: early must be a list of names")
        pairs = {name: (first, width) for name, (first, width) in compared.items()}
        numbers = [
            data["bits"],
            data["fraction"],
            own,
            truncation,
            *weights.values(),
            *(window or ()),
            *chain.from_iterable(pairs.values()),
        ]
        if any(type(number) is not int or not 0 <= number <= max(RINGS) for number in numbers):
            raise InputError(f"precision: its numbers must be whole, from 0 to {max(RINGS)}")
        chosen = tuple(window) if window else None
        return cls(data["bits"], data["fraction"], weights, chosen, data.get("input_fraction"), truncation, pairs, tuple(early))

    @property
    def signs(self) -> str:
        """What is compared, in words."""
        if self.compared and self.window is None:
            widths = [width for _, width in self.compared.values()]
            return f"signs by {span(widths)} bits"
        low, high = self.product_window
        return f"signs from bits {low} to {high - 1}"

    @property
    def product_window(self) -> tuple[int, int]:
        """The bits LO..HI-1 of a product of two values with `fraction` bits each that decide its sign. Raises InputError where none is left."""
        first, width = self.comparison(self.bits - self.fraction)
        return self.fraction + first, self.fraction + first + width

    def comparison(self, cut: int, layer: str = "") -> tuple[int, int]:
        """(first bit, width) of a layer's comparison within the `cut` highest bits of the ring. Raises InputError where nothing is left to compare."""
        if self.window is None:
            first, width = self.compared.get(layer, (0, min(cut - 2, WIDEST_WINDOW)))
            if first + width > cut - 2:
                raise InputError(f"precision of {layer!r:.80}: a comparison up to bit {first + width} of {cut} bits")
            return first, width
        below = self.bits - cut
        first, high = max(0, self.window[0] - below), min(self.window[1] - below, cut - 2)
        if high <= first:
            raise InputError(
                f"drelu-window {self.window[0]}:{self.window[1]}: nothing of it is left above the {below} bits that a truncation removes"
            )
        return first, high - first
