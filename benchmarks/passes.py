"""Core time of each pass of a ReLU with truncation, by role, in one process and one thread; and the speed of the keyed streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

from benchmarks.store import Entry
from threepc.kernels.gate import Cut, Lift
from threepc.kernels.keystream import BLOCK_BYTES, fill
from threepc.kernels.runs import GateInput, GateMasks
from threepc.party.in_process import ThreeRoles
from threepc.plan.precision import Precision
from threepc.prf import Keystream, Purpose, new_key
from threepc.protocol.drelu import DRelu, opened
from threepc.protocol.gate import Gate
from threepc.protocol.opening import Opening, draw_words
from threepc.ring import word_of

ROUNDS = 5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def relu_passes(bits: int, count: int = 1 << 20, rounds: int = ROUNDS) -> dict[str, Any]:
    """ns of core time for each element, the least of `rounds`, for every pass; and the bytes that a ReLU declares, by phase."""
    precision = Precision.default(bits)
    cut = bits - precision.fraction
    low_bit, width = precision.comparison(cut)
    opening, drelu, gate = (
        Opening(1, count, Cut(bits, precision.fraction, cut)),
        DRelu(1, count, low_bit, width),
        Gate(1, count, Lift(bits, cut)),
    )
    word = word_of(bits)
    shares = [np.arange(count, dtype=word) * word(factor) for factor in (2654435761, 40503, 2246822519)]
    keys = new_key(), new_key()
    times: dict[tuple[str, str, str], list[float]] = {}

    def timed(
        role: str, phase: str, what: str, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        began = time.process_time()
        result = function(*arguments, **named)
        times.setdefault((role, phase, what), []).append((time.process_time() - began) / count * 1e9)
        return result

    for attempt in range(rounds + 1):
        roles = ThreeRoles(keys=keys, attempt=attempt)
        provider, client, server = roles.provider, roles.client, roles.server
        masks = timed("provider", "offline", "masks", opening.deal, provider, shares[0])
        tables = timed("provider", "offline", "comparison tables", drelu.deal, provider, masks)
        d = timed("provider", "offline", "activation mask", draw_words, provider, provider.with_client, 1, Purpose.ACTIVATION, count, word)
        dealt = timed("provider", "offline", "gate", gate.deal, provider, GateMasks(masks, *drelu.betas(tables), d))
        half = timed("client", "offline", "half of the opening", opening.prepare, client, shares[1])
        timed("client", "offline", "activation mask", draw_words, client, client.with_provider, 1, Purpose.ACTIVATION, count, word)
        x, packed = timed("server", "online", "opening", opening.serve, server, shares[2], half)
        held = timed("server", "online", "leaves", drelu.serve_leaves, server, x[None], tables.message)
        seen = timed("client", "online", "opening", opening.infer, client, packed)
        mine = timed("client", "online", "leaves", drelu.infer_leaves, client, seen[None], held.leaf_wires.view(np.uint8))
        groups, bit = timed(
            "server", "online", "groups", drelu.serve_groups, server, held, mine.leaf_wires.view(np.uint8), mine.group_wires.view(np.uint8)
        )
        own = timed("client", "online", "groups", drelu.infer_bit, client, mine, groups.view(np.uint8))
        planes = opened(own, bit)
        value = timed("client", "online", "gate", gate.infer, client, GateInput(seen, planes, mine.beta[0]))
        timed("server", "online", "gate", gate.serve, server, GateInput(x, planes, held.beta[0]), value, dealt)
    rows = [{"role": role, "phase": phase, "pass": what, "nanoseconds": min(values[1:])} for (role, phase, what), values in times.items()]
    offline = drelu.dealt_bytes + gate.dealt_bytes + opening.message_bytes
    online = opening.message_bytes + 2 * (drelu.leaf_bytes + drelu.group_bytes + drelu.bit_bytes) + gate.value_bytes
    return {"passes": rows, "bytes": {"offline": offline / count, "online": online / count}, "elements": count}


def sums(rows: list[Entry]) -> dict[str, float]:
    """ns for each element by "role phase", and of all."""
    result: dict[str, float] = {}
    for row in rows:
        for key in (f"{row['role']} {row['phase']}", "all"):
            result[key] = result.get(key, 0.0) + row["nanoseconds"]
    return result


def stream_speed(chunk: int = 1 << 16, seconds: float = 0.3) -> float:
    """GB/s at which one core draws words from a keyed stream, `chunk` bytes at a time, in kernels."""
    keys, buffer = Keystream(new_key()), np.empty(chunk // 8, np.uint64)
    keys.begin_attempt(0)
    source = keys.source(0, 0, 0, chunk // BLOCK_BYTES)
    fill(source, 0, buffer)
    drawn, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        fill(source, 0, buffer)  # the same blocks again: nothing here is a mask
        drawn += buffer.nbytes
    return drawn / (time.perf_counter() - began) / 1e9
