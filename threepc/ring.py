"""The ring Z_{2^l} in machine words, and real numbers in it as fixed-point values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from threepc.choices import RINGS
from threepc.errors import InputError


@dataclass(frozen=True)
class Ring:
    """Z_{2^bits}, bits one of `RINGS`; words are uint64, up to 32 bits uint32. Bits above the ring's mean nothing."""

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in RINGS:
            raise InputError(f"a ring has {', '.join(map(str, RINGS))} bits, not {self.bits}")

    @property
    def word(self) -> type[np.unsignedinteger]:
        """The word type that holds an element."""
        return word_of(self.bits)

    def encode(self, values: np.ndarray, fraction: int, what: str = "a value", headroom: int = 0) -> np.ndarray:
        """Words of round(values * 2^fraction).

        Raises InputError, naming `what`, for what is not finite or reaches 2^(bits-2-headroom), the protocols' bound with `headroom` bits to spare.
        """
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused
            scaled = np.rint(np.asarray(values, np.float64) * 2.0**fraction)
        limit = 2.0 ** (self.bits - 2 - headroom)
        if not np.isfinite(scaled).all():
            raise InputError(f"{what}: not a finite number")
        largest = float(np.abs(scaled).max(initial=0.0))
        if largest >= limit:
            raise InputError(
                f"{what}: size {largest / 2.0**fraction:.6g} does not fit a ring of {self.bits} bits with {fraction} fractional bits; it must stay below {limit / 2.0**fraction:.6g}"
            )
        return scaled.astype(np.int64).astype(self.word)

    def signed(self, words: np.ndarray) -> np.ndarray:
        """The elements of -2^(bits-1)..2^(bits-1)-1 that words stand for, int64."""
        up = np.uint64(64 - self.bits)
        return (words.astype(np.uint64) << up).view(np.int64) >> np.int64(64 - self.bits)

    def decode(self, words: np.ndarray, fraction: int) -> np.ndarray:
        """Real values (float64) of words with `fraction` fractional bits."""
        return self.signed(words) / 2.0**fraction


def word_of(bits: int) -> type[np.unsignedinteger]:
    """The word type for elements of up to `bits` bits: uint32 or uint64."""
    return np.uint32 if bits <= 32 else np.uint64


def word_constant(number: int, dtype: np.dtype[Any]) -> np.unsignedinteger:
    """A number, which may be negative, as a word of an array's type."""
    word: np.unsignedinteger = dtype.type(number & np.iinfo(dtype).max)
    return word
