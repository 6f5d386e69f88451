"""How many images go through a network at once: as many as a session's memory holds, by what the plan declares, before anything is allocated."""

from __future__ import annotations

import bisect
import math

from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.ring import word_of

MAX_BATCH = 1024
"""Images at once at most, whatever memory there is."""

DEFAULT_MEMORY = 8 * 10**9
"""Bytes that one inference may take at a party where nobody says otherwise."""


def largest_batch(model: PublicModel, memory: int) -> int:
    """The most images that go through a model at once within `memory` bytes; 0 where not even one does."""

    def needs(batch: int) -> int:
        try:
            return model.plan(batch).held_bytes
        except InputError:  # more than any plan may allocate
            return memory + 1

    guess = min(memory // needs(1), MAX_BATCH)  # nothing grows faster than the batch does
    if model.has_server_side:
        return min(guess, 1)
    low, high, stride = (guess, guess + 1, 1) if guess and needs(guess) <= memory else (0, guess, 1)
    while high <= MAX_BATCH and low and needs(high) <= memory:
        low, high, stride = high, high + stride, 2 * stride
    return low + bisect.bisect_right(range(low + 1, min(high, MAX_BATCH + 1)), memory, key=needs)


def check_batch(model: PublicModel, batch: int, memory: int, whose: str) -> Plan:
    """The plan for `batch` images. Raises InputError, saying how many may go at once, where they do not fit in the bytes of `whose` memory."""
    if not 1 <= batch <= MAX_BATCH:
        raise InputError(f"an inference takes 1 to {MAX_BATCH} images at once, not {batch}")
    if batch > 1 and model.has_server_side:
        raise InputError(f"a job for which the server brings or is shown something runs once at a time, not {batch} times at once")
    plan = model.plan(batch)
    if (needs := plan.held_bytes) <= memory:
        return plan
    most = largest_batch(model, memory)
    cure = f"send at most {most} at once" if most else "raise budgets.memory in deployment.yaml"
    raise InputError(f"a batch of {batch} takes {needs / 1e6:,.0f} MB, but {whose} has {memory / 1e6:,.0f} MB for a session: {cure}")


def check_weights(model: PublicModel, memory: int, whose: str) -> None:
    """Raises RunError where a model's masked weights, which every session with it needs, do not fit in the bytes of `whose` memory."""
    takes = sum(math.prod(step.protocol.weight_shape) for step in model.plan(1).holding) * word_of(model.precision.bits)().nbytes
    if takes > memory:
        raise RunError(f"the model's weights take {takes / 1e6:,.0f} MB, but {whose} has {memory / 1e6:,.0f} MB: see budgets.memory")
