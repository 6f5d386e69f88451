"""The threads that share one pass over arrays, and the scratch memory that each of them keeps."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "threepc-kernel")


def run_parts(work: Callable[..., None], parts: Sequence[tuple]) -> None:
    """Call work(*part) for every part: the first in this thread, the others in a pool that the whole process shares.

    Returns, or raises what a part raised, once all have ended. `work` may not wait for further parts itself. An interrupt, too, is raised once no part
    runs: what they write to may be given back then.
    """
    if len(parts) < 2:
        for part in parts:
            work(*part)
        return
    first, *others = [Future[None]() for _ in parts]  # made before any is begun: an interrupt forgets none
    try:
        for other, part in zip(others, parts[1:], strict=True):
            _pool().submit(_run, other, work, part)
        _run(first, work, parts[0])
        wait(others)
    except BaseException:
        _abandon(others)
        raise
    for done in (first, *others):
        done.result()


def _run(done: Future[None], work: Callable[..., None], part: tuple) -> None:
    if done.set_running_or_notify_cancel():
        try:
            work(*part)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            done.set_exception(error)
        else:
            done.set_result(None)


def _abandon(others: Sequence[Future[None]]) -> None:
    """Begin none of these any more, and wait for those that run, whatever interrupts it."""
    running = [other for other in others if not other.cancel()]
    while not all(other.done() for other in running):
        with contextlib.suppress(KeyboardInterrupt):  # another one is on its way already
            wait(running)


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
