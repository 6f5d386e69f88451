"""Many images through the same parties, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from threepc.model.served import PublicModel
from threepc.party.record import Record, merged


def infer_all(
    infer: Callable[[np.ndarray], tuple[np.ndarray, Record]],
    model: PublicModel,
    batches: Iterable[np.ndarray],
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[np.ndarray, Record]:
    """What the network gives for all images together (`PublicModel.network_outputs`), and what it cost in all.

    infer: decoded outputs and cost of one batch (N, C, H, W), as a session's. batches: at least one. advance: told how many images are done.
    """
    outputs, records = [], []
    for images in batches:
        decoded, record = infer(images)
        outputs.append(model.network_outputs(decoded))
        records.append(record)
        advance(len(images))
    return np.concatenate(outputs), merged(records)
