"""One inference of a plan, seen by each role: steps in order, values released after their last use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, cast

import numpy as np

from threepc.errors import RunError
from threepc.graph.outputs import joined
from threepc.plan.schedule import Plan
from threepc.protocol.roles import Client, Provider, Server
from threepc.protocol.rows import Held
from threepc.protocol.steps import InputStep, OutputStep, ServerInputStep, ServerOutputStep, Step
from threepc.protocol.summands import Summand
from threepc.ring import word_of

Value = TypeVar("Value")

Note = Callable[[int, Step, float], None]
"""Called after each step with its index, itself and the seconds it took."""


def nothing(index: int, step: Step, seconds: float) -> None:
    """Note nothing."""


def noting(seconds: list[float]) -> Note:
    """A `Note` that keeps the seconds of every step, at its index."""
    return lambda index, _, taken: seconds.__setitem__(index, taken)


def _walk(plan: Plan, act: Callable[[Step, list[Value]], Value], note: Note, of: type[Step] = OutputStep) -> list[Value]:
    values: dict[str, Value] = {}
    for index, step in enumerate(plan.steps):
        began = time.perf_counter()
        values[step.name] = act(step, [values[source] for source in step.sources])
        for name in plan.release[index]:
            del values[name]
        note(index, step, time.perf_counter() - began)
    return [values[step.name] for step in plan.steps if isinstance(step, of)]


def deal(provider: Provider, plan: Plan, note: Note = nothing) -> None:
    """P, offline: the correlated randomness of every step, in order."""
    _walk(plan, lambda step, inputs: step.deal(provider, inputs), note)


def prepare(client: Client, plan: Plan, on_mask: Callable[[np.ndarray], None], note: Note = nothing) -> list[np.ndarray]:
    """C, offline: the client's summands of every step. Hands the mask of the input to `on_mask` at once; returns what each output's opening needs."""

    def act(step: Step, inputs: list[Summand]) -> Summand:
        if not isinstance(step, InputStep):
            return step.prepare(client, inputs)
        mask = step.prepare(client, inputs)
        on_mask(mask)
        return mask

    return cast("list[np.ndarray]", _walk(plan, act, note))  # of output steps, which never give None


def serve(server: Server, plan: Plan, note: Note = nothing, given: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """S, online: the server's summands of every step. Returns what is revealed to it, (N, C, H, W), float64, in order.

    given: ring words (N, C, H, W) of the server's own inputs, by name.
    """

    def act(step: Step, inputs: list[Held]) -> Held:
        if isinstance(step, ServerInputStep):
            words, wanted = (given or {})[step.name], step.result
            if words.shape != wanted.shape or words.dtype != word_of(wanted.bits):  # kernels trust both
                raise RunError("the server's inputs do not suit the job")
            return words
        return step.serve_by_rows(server, inputs)

    return cast("list[np.ndarray]", _walk(plan, act, note, ServerOutputStep))


class Prepared(Protocol):
    """What the online phase needs of the offline phase, perhaps still to come."""

    @property
    def mask(self) -> np.ndarray:
        """d of the input, ring words (N, C, H, W)."""

    @property
    def kept(self) -> list[np.ndarray]:
        """What each output's opening needs, from `prepare`."""


def infer(client: Client, plan: Plan, x: np.ndarray, prepared: Prepared, note: Note = nothing) -> np.ndarray:
    """C, online: logits (N, C, H, W), float64; of several outputs all numbers that are C's, see `threepc.graph.outputs.joined`.

    x: ring words; prepared: the input's mask and what `prepare` returned.
    """
    results: list[np.ndarray] = []
    for index, step in enumerate(plan.steps):
        began = time.perf_counter()
        if isinstance(step, InputStep):
            step.protocol.infer(client, x, prepared.mask)
        elif isinstance(step, OutputStep):
            results.append(step.reveal(client, prepared.kept[len(results)]))
        else:
            step.infer(client)
        note(index, step, time.perf_counter() - began)
    return joined(plan.graph, results)
