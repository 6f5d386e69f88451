"""`threepc simulate` and `threepc run --debug-seed`: the arithmetic of three parties within one process, without their secrecy."""

from __future__ import annotations

from typing import Any

import numpy as np

from threepc.console import Display
from threepc.graph.outputs import joined
from threepc.party import debug, one_host
from threepc.party.batches import infer_all
from threepc.party.record import Record
from threepc.party.warmup import warm_up
from threepc.plan.twin import pack, simulate
from threepc.tasks.results import Outcome
from threepc.tasks.run import PreparedRun, RunOptions, make_outcome, prepare


def run_twin(options: RunOptions, seed: int | None, display: Display) -> Outcome:
    """The images through the cleartext twin: the network in the clear, with the fixed-point arithmetic of a secure run.

    seed: of the chance that roundings have in a secure run; None rounds to nearest.
    """
    prepared = _prepare(options, display, allow_error=True)
    model = prepared.assembled.public
    weights = pack(model.plan(1), prepared.assembled.served.weights)

    def infer(batch: np.ndarray) -> tuple[np.ndarray, Record]:
        found = simulate(model.plan(len(batch)), weights, batch, seed=seed, threads=options.threads)
        return joined(model.graph, [found[node.name] for node in model.graph.outputs]), Record()

    with display.bar("simulation", len(prepared.inputs)) as advance:
        outputs, _ = infer_all(infer, model, prepared.inputs.batches(options.batch), advance)
    return make_outcome(prepared, outputs, _facts(prepared) | {"simulated": True}, options, display)


def run_reproducibly(options: RunOptions, seed: int, display: Display) -> Outcome:
    """The images through the three roles with keys that follow from `seed`: the same bits every time, and no privacy at all.

    Raises InputError unless the transport is that of one process.
    """
    debug.refuse_unless_local(seed, options.transport)
    one_host.check_transport(options.transport, options.network, options.links)
    display.warn(debug.NOT_PRIVATE)
    prepared = _prepare(options, display)
    served = prepared.assembled.served
    with display.bar("inference that is not private", len(prepared.inputs)) as advance:
        batches = prepared.inputs.batches(options.batch)
        outputs, _ = infer_all(lambda batch: (debug.infer(served, batch, seed), Record()), served.public, batches, advance)
    return make_outcome(prepared, outputs, _facts(prepared) | {"debug_seed": seed}, options, display)


def _prepare(options: RunOptions, display: Display, allow_error: bool = False) -> PreparedRun:
    prepared = prepare(options, display, allow_error)
    with display.stage("preparing kernels") as progress:
        warm_up(prepared.assembled.public.precision, progress)
    return prepared


def _facts(prepared: PreparedRun) -> dict[str, Any]:
    return prepared.assembled.public.facts(len(prepared.inputs), prepared.assembled.spec_source)
