"""Candidate patch sizes for a feature map: the paper's lists, and a rule for maps it does not list."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

from threepc.graph.relu_spec import IDENTITY, PLAIN, ZERO


@cache
def _listed() -> dict[tuple[int, int], list[tuple[int, int]]]:
    document = json.loads(files("threepc.reduction").joinpath("data/paper_patch_sizes.json").read_text())
    sizes = ((*map(int, size.split("x")), patches) for size, patches in document["sizes"].items())
    return {(height, width): [(h, w) for h, w in patches] for height, width, patches in sizes}


def candidates(height: int, width: int) -> np.ndarray:
    """Candidate patches of a (height, width) map: int64 of shape (K, 2), without repetition; [1, 1] first, then [1, 0] and [0, 1].

    A map that the paper lists has the paper's set. Any other has the set of the smallest listed square that holds it (the
    largest listed one where none does), and its own size. Patches beyond the map are clipped to it: the same patches, since
    they are cut at the border.
    """
    listed = _listed()
    if (height, width) in listed:
        patches = listed[height, width]
    else:
        sides = sorted(side for side, other in listed if side == other)
        side = next((side for side in sides if side >= max(height, width)), sides[-1])
        patches = [*listed[side, side], (height, width)]
    clipped = [(min(h, height), min(w, width)) for h, w in patches if (h, w) not in (ZERO, IDENTITY)]
    return np.array(list(dict.fromkeys([PLAIN, ZERO, IDENTITY, *clipped])), dtype=np.int64)
