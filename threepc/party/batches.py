"""Many images through the same parties, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from threepc.model.served import Outputs, PublicModel, concatenated, each
from threepc.party.kept import KeptOutputs
from threepc.party.record import Record, merged

Infer = Callable[[np.ndarray], tuple[np.ndarray, Record]]
EachOf = Callable[[Infer, Iterable[np.ndarray]], Iterable[tuple[np.ndarray, Record]]]


def fitting(batch: int, images: int, most: int, tell: Callable[[str], None]) -> int:
    """How many of `images` to evaluate at once: `batch`, or `most` where fewer fit in memory, which `tell` then hears."""
    if not most or min(batch, images) <= most:  # not even one: it is refused when it is asked for, with what it takes
        return batch
    tell(f"--batch {batch} does not fit in memory for this network: it runs with {most} at once, --batch {most} says so")
    return most


def infer_missing(
    infer: Infer,
    model: PublicModel,
    pixels: np.ndarray,
    size: int,
    kept: KeptOutputs,
    advance: Callable[[int], None] = lambda _: None,
    each_of: EachOf = map,
) -> tuple[Outputs, Record, int]:
    """`infer_all` of those images (N, C, H, W) that no earlier call has kept, `size` at a time, each batch kept at once; and how many these were.

    The outputs are those of all N images.
    """
    found = [kept.find(image) for image in pixels]
    missing = [index for index, output in enumerate(found) if output is None]
    advance(len(pixels) - len(missing))

    def infer_and_keep(images: np.ndarray) -> tuple[np.ndarray, Record]:
        decoded, record = infer(images)
        kept.add(images, each(model.network_outputs(decoded))[0] if model.graph.returns_tensor else decoded)
        return decoded, record

    record = Record(dict.fromkeys(("offline", "online", "total"), 0.0))
    if missing:
        parts = (pixels[missing[start : start + size]] for start in range(0, len(missing), size))
        _, record = infer_all(infer_and_keep, model, parts, advance, each_of)
        for index in missing:
            found[index] = kept.find(pixels[index])
    rows = np.stack([output for output in found if output is not None])
    return rows if model.graph.returns_tensor else model.network_outputs(rows), record, len(missing)


def infer_all(
    infer: Infer, model: PublicModel, batches: Iterable[np.ndarray], advance: Callable[[int], None] = lambda _: None, each_of: EachOf = map
) -> tuple[Outputs, Record]:
    """What the network gives for all images together (`PublicModel.network_outputs`), and what it cost in all.

    infer: decoded outputs and cost of one batch (N, C, H, W), as a session's. batches: at least one. advance: told how many images are done.
    each_of: as builtin map, where it shall be several at once.
    """
    outputs, records = [], []
    for decoded, record in each_of(infer, batches):
        outputs.append(model.network_outputs(decoded))
        records.append(record)
        advance(len(decoded))
    return concatenated(outputs), merged(records)
