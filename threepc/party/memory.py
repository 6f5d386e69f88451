"""How many images go through a network at once: as many as a session's memory holds, by what the plan declares, before anything is allocated."""

from __future__ import annotations

import bisect
import math

import numpy as np

from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.plan.schedule import Plan
from threepc.protocol.steps import InputStep, OutputStep, ProductStep, ReluStep, Value
from threepc.ring import word_of

MAX_BATCH = 1024
"""Images at once at most, whatever memory there is."""

DEFAULT_MEMORY = 8 * 10**9
"""Bytes that one inference may take at a party where nobody says otherwise."""


def needed(plan: Plan) -> int:
    """Bytes that a party holds at most for one inference, weights and what is dealt further ahead apart.

    These are the values that are still to be used, what travels for one step, and what is drawn and opened for it; whatever a party does at
    a step, it holds no more than the server, to which both others send, and what the client keeps for products and ReLUs.
    """
    held: dict[str, int] = {}
    most, live = 0, _kept_for_layers(plan)
    for step, released in zip(plan.steps, plan.release, strict=True):
        held[step.name] = size = _bytes(step.result)
        live, cost = live + size, step.cost
        most = max(most, live + 2 * sum(map(_bytes, step.inputs)) + cost.total("offline") + 2 * cost.total("online"))
        live -= sum(held.pop(name) for name in released)
    return most


def kept(plan: Plan) -> int:
    """Bytes that a client keeps of an inference's offline phase for its online phase: masks of inputs and outputs, and what products and some ReLUs need."""
    masks = sum(_bytes(step.result) for step in plan.steps if isinstance(step, InputStep | OutputStep))
    return masks + _kept_for_layers(plan)


def _kept_for_layers(plan: Plan) -> int:
    of_products = sum(_bytes(value) for step in plan.steps if isinstance(step, ProductStep) for value in step.inputs)
    return of_products + sum(step.protocol.kept_bytes for step in plan.steps if isinstance(step, ReluStep))


def largest_batch(model: PublicModel, memory: int) -> int:
    """The most images that go through a model at once within `memory` bytes; 0 where not even one does."""

    def needs(batch: int) -> int:
        try:
            return needed(model.plan(batch))
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
    if (needs := needed(plan)) <= memory:
        return plan
    most = largest_batch(model, memory)
    cure = f"send at most {most} at once" if most else "raise budgets.memory in deployment.yaml"
    raise InputError(f"a batch of {batch} takes {needs / 1e6:,.0f} MB, but {whose} has {memory / 1e6:,.0f} MB for a session: {cure}")


def check_weights(model: PublicModel, memory: int, whose: str) -> None:
    """Raises RunError where a model's masked weights, which every session with it needs, do not fit in the bytes of `whose` memory."""
    takes = sum(math.prod(step.protocol.weight_shape) for step in model.plan(1).holding) * word_of(model.precision.bits)().nbytes
    if takes > memory:
        raise RunError(f"the model's weights take {takes / 1e6:,.0f} MB, but {whose} has {memory / 1e6:,.0f} MB: see budgets.memory")


def _bytes(value: Value) -> int:
    return math.prod(value.shape) * (4 if word_of(value.bits) is np.uint32 else 8)
