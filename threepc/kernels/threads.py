"""The threads that share one pass over arrays, and the scratch memory that each of them keeps."""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "threepc-kernel")


def run_parts(work: Callable[..., None], parts: Sequence[tuple]) -> None:
    """Call work(*part) for every part: the first in this thread, the others in a pool that the whole process shares.

    Returns, or raises what a part raised, once all have ended. `work` may not wait for further parts itself.
    """
    if len(parts) < 2:
        for part in parts:
            work(*part)
        return
    others = [_pool().submit(work, *part) for part in parts[1:]]
    try:
        work(*parts[0])
    finally:
        wait(others)
    for other in others:
        other.result()


def ranges(count: int, parts: int, grain: int = 1) -> list[tuple[int, int]]:
    """Cut range(count) into at most `parts` nearly equal ranges, all but the last of multiples of `grain`."""
    step = -(-count // (min(parts, -(-count // grain)) * grain)) * grain
    return [(begin, min(begin + step, count)) for begin in range(0, count, step)]


class Scratch(threading.local):
    """Arrays that each thread keeps by name, because fresh memory costs a page fault every 4 KiB. Names are of the module that owns this."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, np.dtype | type[np.generic]], np.ndarray] = {}

    def words(self, name: str, count: int, dtype: np.dtype | type[np.generic]) -> np.ndarray:
        """A flat array of `count` words: zeros at first, later what was left there; it lasts until this thread asks for the name again."""
        held = self._held.get((name, dtype))
        if held is None or held.size < count:
            held = self._held[name, dtype] = np.zeros(count, dtype)
        return held[:count]
