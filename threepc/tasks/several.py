"""What the client makes of a network that returns several tensors: the comparison, the report and the names of files, output by output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from threepc.choices import LABEL
from threepc.graph.outputs import names
from threepc.model.served import Outputs, PublicModel, each
from threepc.tasks.comparison import Comparison, compared

if TYPE_CHECKING:
    from threepc.tasks.results import Outcome


@dataclass(frozen=True)
class NamedOutput:
    """One of several outputs.

    values: as the network gives them for N images, (N, ...); labels: only classes were revealed. channels: of the logits. says_class:
    whether it stands for one class, which the model card names.
    """

    name: str
    values: np.ndarray
    labels: bool
    channels: int
    says_class: bool

    @property
    def file(self) -> str:
        """What its file is called."""
        stem = f"output_{self.name}" if self.name[0].isdigit() else self.name
        return f"{stem}_labels.npy" if self.labels else f"{stem}.npy"

    @property
    def classes(self) -> np.ndarray:
        """(N, ...): the classes, or the argmaxes of the logits."""
        classes: np.ndarray = self.values if self.labels else self.values.argmax(axis=1)
        return classes


def named(model: PublicModel, outputs: Outputs) -> list[NamedOutput]:
    """The outputs of a network that returns several tensors, one by one."""
    found = []
    for node, name, what, values in zip(model.graph.outputs, names(model.graph), model.reveals, each(outputs), strict=True):
        channels, known = node.shape[0], len(model.card.classes)
        single = values.ndim == (1 if what == LABEL else 2)
        found.append(NamedOutput(name, values, what == LABEL, channels, single and (channels == known or (what == LABEL and not known))))
    return found


def compare(model: PublicModel, secure: Outputs, plain: Outputs, seconds: float) -> Comparison:
    """Compare with PyTorch's outputs. The errors are those of the output that is worst for its size; argmaxes count where classes are said."""
    outputs = named(model, secure)
    parts = [compared(one.values, of_plain, one.labels) for one, of_plain in zip(outputs, each(plain), strict=True)]
    worst = max(parts, key=lambda part: part.relative_error)
    agreements = [part.agreement for part, one in zip(parts, outputs, strict=True) if one.says_class or one.labels]
    agreement = np.min(agreements, axis=0) if agreements else np.ones(len(outputs[0].values))
    return Comparison(worst.classes, agreement, worst.errors, worst.largest, seconds, tuple(parts))


def fields(outcome: Outcome) -> dict[str, Any]:
    """For the report: `outputs`, what each is, and `results`, for each image the classes that are said."""
    outputs = named(outcome.model, outcome.outputs)
    parts: Sequence[Comparison | None] = outcome.comparison.parts if outcome.comparison else [None] * len(outputs)
    described = []
    for one, what, part in zip(outputs, outcome.model.reveals, parts, strict=True):
        entry = {"name": one.name, "shape": list(one.values.shape[1:]), "revealed": what}
        described.append(entry | (part.differences() if part else {}))
    entries = []
    for index, name in enumerate(outcome.inputs.names):
        said: dict[str, Any] = {}
        for one, part in zip(outputs, parts, strict=True):
            if one.says_class:
                label = int(one.classes[index])
                plain = {"plain_label": int(part.classes[index])} if part else {}
                said[one.name] = {"label": label, "class": outcome.card.class_name(label)} | plain
        entries.append({"image": name, "outputs": said})
    return {"outputs": described} | ({"results": entries} if any(one.says_class for one in outputs) else {})
