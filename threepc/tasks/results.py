"""What the client makes of decoded outputs: classes, segmentation maps, files, and the report."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from threepc.choices import LABEL
from threepc.errors import RunError
from threepc.files import write_atomically
from threepc.images.card import ModelCard
from threepc.images.read import read_image
from threepc.images.segmentation import pixel_labels, write_overlay
from threepc.images.sliding import image_labels
from threepc.model.served import Outputs, PublicModel, each
from threepc.tasks import several
from threepc.tasks.comparison import Comparison, compared, decided
from threepc.tasks.inputs import Inputs

if TYPE_CHECKING:
    from threepc.party.debug import Trace


@dataclass(frozen=True)
class Outcome:
    """Outputs of one model for some inputs, as `PublicModel.network_outputs` gives them, and what they cost.

    trace: the layers of one image, compared. outside: with a comparison, how many real numbers each layer could not hold, if any. every_layer: show all of the trace.
    """

    model: PublicModel
    inputs: Inputs
    outputs: Outputs
    report: dict[str, Any]
    comparison: Comparison | None = None
    trace: Trace | None = None
    outside: dict[str, int] = field(default_factory=dict)
    every_layer: bool = False
    written: list[Path] = field(default_factory=list)

    @property
    def card(self) -> ModelCard:
        """What the server says of the model."""
        return self.model.card

    @property
    def only(self) -> np.ndarray:
        """The output of a network that returns one tensor."""
        return each(self.outputs)[0]

    @property
    def is_several(self) -> bool:
        """Whether the network returns several tensors."""
        return isinstance(self.outputs, tuple)

    @property
    def classes(self) -> np.ndarray:
        """(N,), or (N, h, w) for maps, or bool (N, K) where an image has any number of the K classes."""
        return classes(self.model, self.only)

    def refuse_outside(self) -> None:
        """Raise RunError, naming the first layer with values that it could not hold: the results are wrong then."""
        for name, count in self.outside.items():
            more = f" ({sum(self.outside.values()):,} in {len(self.outside)} layers)" if len(self.outside) > 1 else ""
            raise RunError(
                f"{name}: {count:,} values are too large for a ring of {self.model.precision.bits} bits with these scales{more}: the result is"
                " wrong; take --calibration with such images, a larger --margin or --ring, or go on by --out-of-range warn"
            )

    @property
    def is_map(self) -> bool:
        """Whether there is a class for every pixel."""
        return not self.is_several and self.card.segmentation and self.classes.ndim == 3


def classes(model: PublicModel, outputs: np.ndarray) -> np.ndarray:
    """The argmaxes (N, ...) of the one output of a network; of logits of several classes an image those that are likely, bool (N, K)."""
    return outputs if model.reveal == LABEL else decided(outputs, model.card.multi_label)


def compare(model: PublicModel, secure: Outputs, plain: Outputs, seconds: float) -> Comparison:
    """Compare a network's outputs with PyTorch's (N, K, ...) for the same images."""
    if isinstance(secure, tuple) or isinstance(plain, tuple):
        return several.compare(model, secure, plain, seconds)
    return compared(secure, plain, model.reveal == LABEL, model.card.multi_label, seconds)


def class_fields(outcome: Outcome) -> dict[str, Any]:
    """For the report: `results`, one entry an image, and `accuracy` where truth is known; nothing unless there are classes of whole images."""
    if outcome.is_several:
        return several.fields(outcome)
    if outcome.classes.dtype == bool:
        return {"results": [_several(outcome, index, name) for index, name in enumerate(outcome.inputs.names)]}
    if outcome.classes.ndim != 1:
        return {}
    entries = []
    for index, (name, label) in enumerate(zip(outcome.inputs.names, outcome.classes.tolist(), strict=True)):
        entry = {"image": name, "label": label, "class": outcome.card.class_name(label)}
        if outcome.comparison:
            entry["plain_label"] = int(outcome.comparison.classes[index])
        if outcome.inputs.truths:
            entry["truth"] = outcome.inputs.truths[index]
        entries.append(entry)
    right = [entry["label"] == entry.get("truth") for entry in entries]
    return {"results": entries} | ({"accuracy": sum(right) / len(right)} if outcome.inputs.truths else {})


def _several(outcome: Outcome, index: int, name: str) -> dict[str, Any]:
    """The classes of one image, the likeliest first, with the sigmoids of their logits."""
    labels, logits = likely(outcome.classes[index], outcome.only[index]), outcome.only[index]
    entry = {"image": name, "labels": labels, "classes": [outcome.card.class_name(label) for label in labels]}
    return entry | {"probabilities": [float(1 / (1 + np.exp(-logits[label]))) for label in labels]}


def likely(chosen: np.ndarray, logits: np.ndarray) -> list[int]:
    """The indices that are true in `chosen` (K,), those of the largest logits (K,) first."""
    return [int(index) for index in np.argsort(-logits, kind="stable") if chosen[index]]


def class_text(card: ModelCard, index: int) -> str:
    """A class for people: its number, and its name, the first of several, where that says more."""
    name = card.classes[index].partition(",")[0] if index < len(card.classes) else ""
    return str(index) if name in ("", str(index)) else f"{index} {name}"


def pixel_classes(outcome: Outcome, index: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The pixels of an image file (None for a `.npy`) and a class for each of them, uint16 (H, W), of a segmentation."""
    card, path, outputs = outcome.card, outcome.inputs.paths[index], outcome.only[outcome.inputs.of(index)]
    if path.suffix.lower() == ".npy":
        return None, pixel_labels(outputs[0], card, card.preprocessing.size)
    image = read_image(path, card.preprocessing.channels)
    return image, image_labels(outputs, card, (image.shape[0], image.shape[1]))


def largest_classes(labels: np.ndarray, card: ModelCard, count: int = 3) -> str:
    """The classes of most pixels with their shares."""
    common = Counter(labels.reshape(-1).tolist()).most_common(count)
    return ", ".join(f"{card.class_name(index)} {pixels / labels.size:.0%}" for index, pixels in common)


def write(outcome: Outcome, directory: Path | None, report: Path | None) -> None:
    """Write outputs and report where they are wanted, and note the paths in `outcome.written`.

    Outputs are `logits.npy` or `labels.npy`, or of several outputs `NAME.npy` or `NAME_labels.npy`; for a segmentation an array of classes and a PNG over the image for each input.
    """
    if directory is not None and outcome.is_several:
        for one in several.named(outcome.model, outcome.outputs):
            outcome.written.append(_write_array(directory / one.file, one.values))
    elif directory is not None and not outcome.is_map:
        name = "labels.npy" if outcome.model.reveal == LABEL else "logits.npy"
        outcome.written.append(_write_array(directory / name, outcome.only))
    elif directory is not None:
        for index, stem in enumerate(_stems(outcome.inputs.paths)):
            image, labels = pixel_classes(outcome, index)
            outcome.written.append(_write_array(directory / f"{stem}_classes.npy", labels))
            if image is not None:
                outcome.written.append(directory / f"{stem}_segmentation.png")
                write_overlay(outcome.written[-1], image, labels, outcome.card)
    if report is not None:
        write_atomically(report, (json.dumps(outcome.report, indent=1, allow_nan=False) + "\n").encode())
        outcome.written.append(report)


def _write_array(path: Path, array: np.ndarray) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())
    return path


def _stems(paths: Sequence[Path]) -> list[str]:
    """File names without suffix, numbered where two are the same."""
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else f"{index}_{stem}" for index, stem in enumerate(stems)]
