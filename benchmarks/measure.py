"""One case: a network in a ring under a spec, its three parties on this machine, measured several times in both ways of running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import published, subjects
from benchmarks.machine import kernels_of, total_memory
from benchmarks.store import Entry, spread
from benchmarks.subjects import Subject
from threepc.errors import InputError
from threepc.model.assemble import Assembled
from threepc.model.served import PublicModel
from threepc.party import one_host
from threepc.party.record import Record, merged, report
from threepc.party.session import Options
from threepc.plan.schedule import Plan
from threepc.tasks import results

TIMEOUT = 1800.0
AHEAD_SHARE = 0.15
"""Share of main memory that may be dealt ahead; where separate phases need more, only overlapped ones are measured."""

Progress = Callable[[str], None]
Wanted = Callable[[str], bool]
Parties = one_host.ThreeProcesses | one_host.ThreeThreads


@dataclass(frozen=True)
class Effort:
    """Inferences measured in each way, after one that is not counted: as many as fit into `seconds`, from `least` to `most`."""

    least: int = 3
    most: int = 5
    seconds: float = 10.0


@dataclass(frozen=True)
class Case:
    """What is measured: the network, ring in bits, uniform patch of the spec, batch, simulated network, transport, threads a party."""

    subject: Subject
    ring: int = 48
    patch: tuple[int, int] | None = None
    batch: int = 1
    network: str = "none"
    transport: str = "ipc"
    threads: int = 1

    @property
    def name(self) -> str:
        """Distinct for distinct cases."""
        spec = "plain" if self.patch is None else f"{self.patch[0]}x{self.patch[1]}"
        return f"{self.subject.name}/l{self.ring}/{spec}/batch{self.batch}/{self.network}/{self.transport}/threads{self.threads}"


def measure(case: Case, effort: Effort, progress: Progress = lambda text: None) -> Entry:
    """The JSON-plain entry of a case; `refused` says why where the ring cannot hold the network."""
    return measure_batches(case, (case.batch,), effort, progress)[0]


def measure_batches(case: Case, batches: tuple[int, ...], effort: Effort, progress: Progress = lambda text: None) -> list[Entry]:
    """As `measure`, for several batch sizes in one session."""
    progress("importing the network")
    try:
        model = subjects.assembled(case.subject, case.ring, case.patch)
    except InputError as error:
        return [_public(case, batch) | {"refused": str(error)} for batch in batches]
    budgets = [max(model.public.plan(batch).cost.offline.values(), default=0) for batch in batches]
    most = int(AHEAD_SHARE * total_memory())
    budget = max(Options().budget, min(most, max(budgets)))
    progress("starting the parties")
    with one_host.open_parties(
        model.served, case.transport, case.network, progress, threads=case.threads, timeout=TIMEOUT, budget=budget
    ) as parties:
        return [
            _public(case, batch) | _measured(model, parties, batch, needed <= budget, effort, progress)
            for batch, needed in zip(batches, budgets, strict=True)
        ]


def _public(case: Case, batch: int) -> Entry:
    return {
        "case": replace(case, batch=batch).name,
        "subject": case.subject.name,
        "title": case.subject.title,
        "ring": case.ring,
        "kernels": kernels_of(case.ring),
        "patch": case.patch and list(case.patch),
        "batch": batch,
        "network": case.network,
        "transport": case.transport,
        "threads": case.threads,
    }


def _measured(model: Assembled, parties: Parties, batch: int, separate: bool, effort: Effort, progress: Progress) -> Entry:
    pixels = subjects.images(model, batch)
    progress("plaintext PyTorch")
    plain = subjects.plaintext(model, pixels)
    overlapped, logits = _repeat(parties, pixels, False, effort, progress)
    apart = _repeat(parties, pixels, True, effort, progress)[0] if separate else []
    comparison = results.compare(model.public, model.public.network_outputs(logits), _finished_plain(model.public, plain.outputs), 0.0)
    plan = model.public.plan(batch)
    one = (apart or overlapped)[-1]
    details = report(model.public, merged([one]), batch, None, parties.setup_links, parties.setup_seconds)
    seconds = {"total": spread(r.seconds["total"] for r in overlapped)}
    if apart:
        seconds |= {phase: spread(r.seconds[phase] for r in apart) for phase in ("offline", "online")}
        seconds["separate"] = spread(r.seconds["offline"] + r.seconds["online"] for r in apart)
    reference = plain.seconds["2"]["median"]
    entry = {
        "image": list(model.public.graph.input.shape),
        "fraction": model.public.precision.fraction,
        "relus": plan.relus,
        "drelus": plan.drelus,
        "macs": subjects.macs(model, batch),
        "seconds": seconds | {"setup": parties.setup_seconds},
        "plain_seconds": plain.seconds,
        "ratio": {phase: value["median"] / reference for phase, value in seconds.items()},
        "bytes": details["bytes"],
        "declared_bytes": {phase: plan.cost.total(phase) for phase in ("setup", "offline", "online")},
        "links": details["links"],
        "messages_online": details["messages_online"],
        "messages_declared": plan.cost.messages,
        "peak_rss_mb": one.peak_rss_mb,
        "cpu_seconds": {role: spread(r.cpu_seconds[role] for r in overlapped)["median"] for role in one_host.ROLES},
        "work": work_of(plan),
        "layers": _layers(apart or overlapped),
        "max_abs_error": None if comparison.errors is None else float(comparison.errors.max()),
        "max_abs_plain": comparison.largest,
        "plain_sensitivity": plain.sensitivity,
        "argmax_agreement": float(comparison.agreement.mean()),
    }
    if model.imported.spec is None:
        entry["published"] = {system.name: published.network_bytes(system, plan.graph, batch) for system in published.SYSTEMS}
    return entry


def work_of(plan: Plan) -> Entry:
    """What the cost model needs: multiply-adds of dense and depthwise convolutions, declared bytes by phase and link, online messages."""
    sums = {"dense": 0, "depthwise": 0}
    for step in plan.linear:
        kind = "depthwise" if step.protocol.groups > 1 and step.protocol.weight_shape[1] == 1 else "dense"
        sums[kind] += subjects.step_macs(step)
    return {"macs": sums, "offline": dict(plan.cost.offline), "online": dict(plan.cost.online), "messages": plan.cost.messages}


def _finished_plain(public: PublicModel, plain: np.ndarray) -> np.ndarray:
    """PyTorch's outputs as `PublicModel.network_outputs` gives the secure ones."""
    return plain.reshape(len(plain), -1) if public.graph.output.shape[1:] == (1, 1) else plain


def _repeat(parties: Parties, pixels: np.ndarray, separate: bool, effort: Effort, progress: Progress) -> tuple[list[Record], np.ndarray]:
    way = "separate phases" if separate else "overlapped phases"
    began = time.perf_counter()
    progress(f"{way}, once to warm up")
    parties.infer(pixels, separate)
    first = time.perf_counter() - began
    count = max(effort.least, min(effort.most, int(effort.seconds / first)))
    records = []
    for index in range(count):
        progress(f"{way}, {index + 1} of {count}")
        logits, record = parties.infer(pixels, separate)
        records.append(record)
    return records, logits


def _layers(records: list[Record]) -> list[Entry]:
    """Every step with the median of its seconds at the server, waiting included."""
    return [
        rows[0] | {"seconds": spread(row["seconds"] for row in rows)["median"]} for rows in zip(*(r.layers for r in records), strict=True)
    ]


def by_kind(layers: list[Entry]) -> dict[str, dict[str, Any]]:
    """Seconds, bytes and online messages of a breakdown summed by kind of layer."""
    sums: dict[str, dict[str, Any]] = {}
    for layer in layers:
        entry = sums.setdefault(layer["kind"], {"seconds": 0.0, "bytes": 0, "messages": 0, "layers": 0})
        for key in ("seconds", "bytes", "messages"):
            entry[key] += layer[key]
        entry["layers"] += 1
    return sums
