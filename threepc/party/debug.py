"""All three roles in one process, step by step, with every value brought together and compared: for finding where a network goes wrong.

This is the opposite of privacy, and must never touch anybody's data but one's own: the parties' shares are added up after every step, and
with a seed the keys follow from it. Nothing here is reachable from a party that listens or connects; everywhere else keys come from
`prf.new_key`.

Each step is checked on its own, from the inputs that the secure run itself has: `error` counts units in the last place between its result
and the arithmetic that it stands for, `bound` is what its rounding allows. So a fault shows at the step that makes it, not at all that
follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from threepc.errors import InputError
from threepc.graph import clear
from threepc.graph.ir import Graph, Node
from threepc.graph.outputs import joined
from threepc.kernels.gate import Cut
from threepc.model.served import ServedModel
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.plan import twin
from threepc.plan.schedule import Plan
from threepc.plan.twin import Packed, Rounding
from threepc.prf import derive_key, new_key
from threepc.protocol.argmax import Argmax
from threepc.protocol.roles import Client, Server
from threepc.protocol.steps import InputStep, LookupStep, MaxPoolStep, OutputStep, ProductStep, ReluStep, Step, Value
from threepc.protocol.summands import cut_summand

NOT_PRIVATE = "NOT PRIVATE: --debug-seed fixes every key of this run; whoever knows the number can decrypt everything. For debugging only."

DRIFT = 8.0
"""By how much a secure run may be further from the real numbers than its cleartext twin, which rounds by another chance."""

LOCAL_TRANSPORT = "memory"


@dataclass(frozen=True)
class Row:
    """One step of a secure run, compared.

    error, bound: largest difference from the exact arithmetic on the run's own inputs, and what the step's rounding allows, in units of
    the last place. largest: size of the real numbers. clear_error, expected: largest difference from the real numbers, of the secure run
    and of its cleartext twin; None where no node of the network has this value. room: bits between the largest value and the bound of
    ring or gate. lost: by how much the relative difference from the real numbers is larger than that of the step's inputs.
    """

    name: str
    kind: str
    largest: float
    error: int
    bound: int
    clear_error: float | None
    expected: float | None
    room: float
    lost: float = 0.0

    @property
    def relative_error(self) -> float | None:
        """The difference from the real numbers as a part of their size; None where these are unknown."""
        return None if self.clear_error is None else self.clear_error / self.largest if self.largest else 0.0

    @property
    def ok(self) -> bool:
        """Whether the step does what it should, its values fit, and it is as near to the real numbers as the arithmetic allows."""
        near = self.clear_error is None or self.clear_error <= DRIFT * (self.expected or 0.0) + 1e-9
        return self.error <= self.bound and self.room >= 0 and near


@dataclass(frozen=True)
class Trace:
    """Outputs float64 as a session's `infer` gives them, and a row for each step."""

    outputs: np.ndarray
    rows: tuple[Row, ...]

    @property
    def worst(self) -> Row:
        """The step that loses most against the real numbers."""
        return max(self.rows, key=lambda row: row.lost)

    @property
    def first_fault(self) -> Row | None:
        """Where secure and clear part beyond the expected rounding."""
        return next((row for row in self.rows if not row.ok), None)


def refuse_unless_local(seed: int | None, transport: str) -> None:
    """Raises InputError where a debug seed is asked of parties that are not threads of one process."""
    if seed is not None and transport != LOCAL_TRANSPORT:
        raise InputError(f"--debug-seed: only within one process, --transport {LOCAL_TRANSPORT}, not {transport}")


def trace(served: ServedModel, images: np.ndarray, seed: int | None = None, progress: Callable[[str], None] = lambda _: None) -> Trace:
    """Run images (N, C, H, W) and compare every step with its cleartext twin and with real numbers.

    seed: keys follow from it, and the same run comes out bit for bit; None for fresh ones. Raises InputError for images that do not fit.
    """
    plan, public = served.public.plan(len(images)), served.public
    packed = twin.pack(plan, served.weights)
    twins = twin.walk(plan, packed, images, Rounding(seed=0))
    real = _Real(clear.walk(public.graph, served.weights, torch.from_numpy(np.asarray(images)), public.sizes))
    rows: list[Row] = []
    results: list[np.ndarray] = []
    errors: dict[str, float] = {}
    for step, inputs, result in _run(plan, served, images, seed):
        progress(step.name)
        _, like = next(twins)
        row = _row(plan, step, inputs, result, packed, like, real)
        before = max((errors[name] for name in step.sources), default=0.0)
        # a step that no node stands for has the difference of its inputs
        results += [result.numbers] if isinstance(step, OutputStep) else []
        errors[step.name] = before if row.relative_error is None else row.relative_error
        rows.append(replace(row, lost=errors[step.name] - before))
    return Trace(joined(plan.graph, results), tuple(rows))


def infer(served: ServedModel, images: np.ndarray, seed: int) -> np.ndarray:
    """The secure run alone, reproducible bit for bit: outputs (N, C, H, W), float64."""
    plan = served.public.plan(len(images))
    results = [result.numbers for step, _, result in _run(plan, served, images, seed) if isinstance(step, OutputStep)]
    return joined(plan.graph, results)


# The run


@dataclass(frozen=True)
class Summands:
    """c + s - p = value, each None for zeros; with the value's description. decoded: of the output what the client makes of it, float64."""

    value: Value
    client: np.ndarray | None
    server: np.ndarray | None
    provider: np.ndarray | None
    decoded: np.ndarray | None = None

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.value.array(self.client), self.value.array(self.server), self.value.array(self.value.summand(self.provider))

    @property
    def words(self) -> np.ndarray:
        """The value."""
        c, s, p = self._arrays()
        words: np.ndarray = c + s - p
        return words

    @property
    def numbers(self) -> np.ndarray:
        """The real numbers, float64."""
        return twin.decode(self.words, self.value) if self.decoded is None else self.decoded

    def opened(self, cut: Cut) -> np.ndarray:
        """What the parties' separately cut summands add up to: signed numbers (N, C, H, W) of the cut ring."""
        c, s, p = self._arrays()
        return twin.signed(cut_summand(c, cut, False) + cut_summand(s, cut, True) - cut_summand(p, cut, False), cut.kept_bits)


def _keys(seed: int | None) -> list[bytes]:
    if seed is None:
        return [new_key() for _ in range(3)]
    root = hashlib.sha256(b"threepc debug seed %d" % seed).digest()[:16]
    return [derive_key(root, context) for context in (b"client, provider", b"server, provider", b"weights")]


def _run(plan: Plan, served: ServedModel, images: np.ndarray, seed: int | None) -> Iterator[tuple[Step, list[Summands], Summands]]:
    """(step, its inputs, its result) one after the other."""
    with_client, with_server, of_weights = _keys(seed)
    words = plan.precision.image_words(images, plan.graph.input.shape)
    held: dict[str, Summands] = {}
    with ThreeRoles(share_weights(plan, served.weights, of_weights), (with_client, with_server)) as roles:
        for index, step in enumerate(plan.steps):
            inputs = [held[name] for name in step.sources]
            held[step.name] = _step(step, inputs, roles, words)
            yield step, inputs, held[step.name]
            for name in plan.release[index]:
                del held[name]


def _step(step: Step, inputs: list[Summands], roles: ThreeRoles, words: np.ndarray) -> Summands:
    dealt = step.deal(roles.provider, [i.provider for i in inputs])
    prepared = step.prepare(roles.client, [i.client for i in inputs])

    def serve(server: Server) -> np.ndarray | None:
        return step.serve(server, [i.server for i in inputs])

    def infer(client: Client) -> np.ndarray | None:
        if isinstance(step, OutputStep):
            return step.reveal(client, cast("np.ndarray", prepared))
        if isinstance(step, InputStep):
            step.protocol.infer(client, words, cast("np.ndarray", prepared))
        else:
            step.infer(client)
        return None

    served, decoded = roles.together(serve, infer) if step.cost.messages else (serve(roles.server), None)
    return Summands(step.result, prepared, served, dealt, decoded)


# The comparison


class _Real:
    """Real values by node, computed as far as the run has come."""

    def __init__(self, walk: Iterator[tuple[Node, torch.Tensor]]) -> None:
        self._walk = walk

    def at(self, step: Step, graph: Graph) -> np.ndarray | None:
        """The node's output, None for a step that is a part of one; steps come in the order of nodes."""
        if step.name not in {node.name for node in graph.nodes}:
            return None
        for node, value in self._walk:
            if node.name == step.name:
                array: np.ndarray = value.numpy()
                return array
        raise AssertionError(f"{step.name} is out of order")


def _row(plan: Plan, step: Step, inputs: list[Summands], result: Summands, packed: Packed, like: np.ndarray, real: _Real) -> Row:
    error, bound, room = _check(plan, step, inputs, result, packed)
    value, actual = step.result, result.numbers
    true = real.at(step, plan.graph)
    if true is None or true.shape != actual.shape:
        return Row(step.name, step.kind, float(np.abs(actual).max()), error, bound, None, None, room)
    expected = twin.decode(like, value)
    largest = float(np.abs(true).max())
    room = min(room, value.bits - 2 - value.fraction - _log2(largest))
    return Row(step.name, step.kind, largest, error, bound, float(np.abs(actual - true).max()), float(np.abs(expected - true).max()), room)


def _log2(size: float) -> float:
    return float(np.log2(size)) if size else -np.inf


def _check(plan: Plan, step: Step, inputs: list[Summands], result: Summands, packed: Packed) -> tuple[int, int, float]:
    """Largest difference from the arithmetic on these inputs and what rounding allows, in units of the last place; room at a gate, bits."""
    if isinstance(step, InputStep):
        return 0, 0, np.inf
    if isinstance(step, OutputStep):
        return *_output_error(step, inputs[0], result.numbers), np.inf
    bound, room = 0, np.inf
    if isinstance(step, LookupStep):
        # a value is in its row or just below the next one, and the sum is rounded up or down
        x, bound = inputs[0].opened(step.protocol.cut), 1
        candidates = [twin.lookup(step.protocol, x, Rounding(below=share)) for share in (0.0, 1.0)]
    elif isinstance(step, ReluStep | MaxPoolStep):
        cut = step.cut if isinstance(step, MaxPoolStep) else step.protocol.cut
        x = inputs[0].opened(cut)
        start = step.protocol.start if isinstance(step, ReluStep) else 0
        room = cut.kept_bits - 2 - _log2(float(np.abs(x - start).max(initial=0)))
        if isinstance(step, MaxPoolStep):
            candidates = [twin.max_pool(plan.graph, step, x)]
        else:
            # the ignored bits of a window carry or do not: either decision is right where they matter. Of a patch all may, or none, which
            # bounds its sum on both sides; no sum between has another sign while a patch has at most 2^width pixels
            shares = (0.0, 1.0) if step.protocol.low_bit else (0.0,)
            candidates = [twin.relu(step.protocol, x, Rounding(below=share)) for share in shares]
    else:
        candidates = [twin.apply(plan.graph, step, [i.words for i in inputs], packed, Rounding())]
        if isinstance(step, ProductStep):
            # the summands of a product are nobody's to add up here, so it may be off by what their cuts are
            opened, bound = twin.signed(candidates[0], step.result.bits), 1
            room = step.protocol.cut.kept_bits - 2 - _log2(float(np.abs(opened).max(initial=0)))
    sloped = isinstance(step, ReluStep) and step.protocol.slopes is not None  # two parties round their parts of a multiple each
    differences = [np.abs(twin.signed(result.words - candidate, step.result.bits)) for candidate in candidates]
    return int(np.minimum.reduce(differences).max()), max(bound, int(sloped)), room


def _output_error(step: OutputStep, source: Summands, result: np.ndarray) -> tuple[int, int]:
    if isinstance(step.protocol, Argmax):
        return int((twin.labels(source.opened(step.protocol.cut)) != result).sum()), 0
    exact = twin.decode(source.words, source.value)
    return int(np.abs(np.rint((result - exact) * 2.0**source.value.fraction)).max()), 1 << step.protocol.shift >> 1
