"""One inference of a plan, seen by each role: steps in order, values released after their last use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from threepc.plan.schedule import Plan
from threepc.protocol.roles import Client, Provider, Server
from threepc.protocol.steps import InputStep, OutputStep, Step

Note = Callable[[int, Step, float], None]
"""Called after each step with its index, itself and the seconds it took."""


def nothing(index: int, step: Step, seconds: float) -> None:
    """Note nothing."""


def _walk(plan: Plan, act: Callable, note: Note):
    values = {}
    for index, step in enumerate(plan.steps):
        began = time.perf_counter()
        values[step.name] = act(step, [values[s] for s in step.sources])
        for name in plan.release[index]:
            del values[name]
        note(index, step, time.perf_counter() - began)
    return values[plan.steps[-1].name]


def deal(provider: Provider, plan: Plan, note: Note = nothing) -> None:
    """P, offline: the correlated randomness of every step, in order."""
    _walk(plan, lambda step, inputs: step.deal(provider, inputs), note)


def prepare(client: Client, plan: Plan, on_mask: Callable[[np.ndarray], None]) -> np.ndarray:
    """C, offline: the client's summands of every step. Hands the mask of the input to `on_mask` at once; returns what the output's opening needs."""

    def act(step, inputs):
        made = step.prepare(client, inputs)
        if isinstance(step, InputStep):
            on_mask(made)
        return made

    return _walk(plan, act, nothing)


def serve(server: Server, plan: Plan, note: Note = nothing) -> None:
    """S, online: the server's summands of every step."""
    _walk(plan, lambda step, inputs: step.serve(server, inputs), note)


class Prepared(Protocol):
    """What the online phase needs of the offline phase, perhaps still to come."""

    mask: np.ndarray
    kept: np.ndarray


def infer(client: Client, plan: Plan, x: np.ndarray, prepared: Prepared, note: Note = nothing) -> np.ndarray:
    """C, online: logits (N, C, H, W), float64. x: ring words; prepared: the input's mask and what `prepare` returned."""
    result = None
    for index, step in enumerate(plan.steps):
        began = time.perf_counter()
        if isinstance(step, InputStep):
            step.protocol.infer(client, x, prepared.mask)
        elif isinstance(step, OutputStep):
            result = step.reveal(client, prepared.kept)
        else:
            step.infer(client)
        note(index, step, time.perf_counter() - began)
    return result
