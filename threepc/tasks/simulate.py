"""`threepc simulate` and `threepc run --debug-seed`: the arithmetic of three parties within one process, without their secrecy."""

from __future__ import annotations

import numpy as np

from threepc.console import Display
from threepc.party import debug, one_host
from threepc.party.warmup import warm_up
from threepc.plan.schedule import Plan
from threepc.plan.twin import pack, simulate
from threepc.tasks import results
from threepc.tasks.results import Outcome
from threepc.tasks.run import Prepared, RunOptions, conclude, prepare


def run_twin(options: RunOptions, seed: int | None, display: Display) -> Outcome:
    """The images through the cleartext twin: the network in the clear, with the fixed-point arithmetic of a secure run.

    seed: of the chance that roundings have in a secure run; None rounds to nearest.
    """
    prepared = _prepare(options, display)
    model, weights = prepared.assembled.public, None
    outputs = []
    with display.bar("simulation", len(prepared.inputs)) as advance:
        for batch in prepared.inputs.batches(options.batch):
            plan: Plan = model.plan(len(batch))
            weights = weights or pack(plan, prepared.assembled.served.weights)
            outputs.append(simulate(plan, weights, batch, seed=seed, threads=options.threads)[plan.steps[-1].name])
            advance(len(batch))
    return conclude(prepared, outputs, _details(prepared, options) | {"simulated": True}, options, display)


def run_reproducibly(options: RunOptions, seed: int, display: Display) -> Outcome:
    """The images through the three roles with keys that follow from `seed`: the same bits every time, and no privacy at all.

    Raises InputError unless the transport is that of one process.
    """
    debug.refuse_unless_local(seed, options.transport)
    one_host.check_transport(options.transport, options.network)
    display.warn(debug.NOT_PRIVATE)
    prepared = _prepare(options, display)
    outputs: list[np.ndarray] = []
    with display.bar("inference that is not private", len(prepared.inputs)) as advance:
        for batch in prepared.inputs.batches(options.batch):
            outputs.append(debug.infer(prepared.assembled.served, batch, seed))
            advance(len(batch))
    return conclude(prepared, outputs, _details(prepared, options) | {"debug_seed": seed}, options, display)


def _prepare(options: RunOptions, display: Display) -> Prepared:
    prepared = prepare(options, display)
    with display.stage("preparing kernels") as progress:
        warm_up(prepared.assembled.public.precision, progress)
    return prepared


def _details(prepared: Prepared, options: RunOptions) -> dict:
    spec = options.settings.relu_spec
    return results.described(prepared.assembled.public, len(prepared.inputs), spec and str(spec))
