"""Secure outputs against those of PyTorch in the clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """Secure outputs against those of PyTorch in the clear, for the same inputs.

    classes: PyTorch's, as `threepc.tasks.results.classes` gives them. agreement: for each image the share of these that are equal. errors:
    for each the largest difference of outputs, None where only labels were revealed. largest: the largest plaintext output. seconds: of
    PyTorch. parts: of a network that returns several tensors each one's own.
    """

    classes: np.ndarray
    agreement: np.ndarray
    errors: np.ndarray | None
    largest: float
    seconds: float = 0.0
    parts: tuple[Comparison, ...] = ()

    @property
    def relative_error(self) -> float:
        """The largest difference as a part of the largest plaintext output; 0 where only labels are known."""
        return 0.0 if self.errors is None or not self.largest else float(self.errors.max()) / self.largest

    def by_image(self, windows: Sequence[int]) -> Comparison:
        """That of images of so many inputs each: the largest difference and the mean agreement of these."""
        ends = np.cumsum(windows)[:-1]
        agreement = np.array([part.mean() for part in np.split(self.agreement, ends)])
        errors = None if self.errors is None else np.array([part.max() for part in np.split(self.errors, ends)])
        return replace(self, agreement=agreement, errors=errors)

    def differences(self) -> dict[str, Any]:
        """For the report: how far the outputs are from PyTorch's."""
        errors = {} if self.errors is None else {"max_abs_error": float(self.errors.max()), "max_abs_plain": self.largest}
        return errors | {"argmax_agreement": float(self.agreement.mean())}

    def fields(self) -> dict[str, Any]:
        """For the report."""
        return self.differences() | {"argmax_equal": bool((self.agreement == 1).all()), "plain_seconds": self.seconds}


def compared(secure: np.ndarray, plain: np.ndarray, labels: bool, several_classes: bool = False, seconds: float = 0.0) -> Comparison:
    """One output of a network against PyTorch's (N, K, ...) for the same images.

    secure: logits like PyTorch's, or where `labels` alone were revealed their argmaxes. several_classes: see `decided`.
    """
    expected = decided(plain, several_classes and not labels)
    found, errors = secure, None
    if not labels:
        found = decided(secure, several_classes)
        errors = np.abs(secure - plain).reshape(len(secure), -1).max(axis=1)
    elif found.shape != expected.shape:  # labels come at the output's stride, before the network's last resize
        rows, columns = (np.arange(full) * small // full for small, full in zip(found.shape[1:], expected.shape[1:], strict=True))
        found = found[:, rows][:, :, columns]
    agreement = (found == expected).reshape(len(secure), -1).mean(axis=1)
    return Comparison(expected, agreement, errors, float(np.abs(plain).max()), seconds)


def decided(logits: np.ndarray, several_classes: bool) -> np.ndarray:
    """The argmaxes (N, ...) of logits (N, K, ...); where an image has any number of classes those that are likely, bool (N, K)."""
    chosen: np.ndarray = logits >= 0 if several_classes else logits.argmax(axis=1)
    return chosen
