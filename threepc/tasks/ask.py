"""`threepc client`: images of the user's through a deployment's server and provider."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from threepc.choices import LABEL
from threepc.console import Display
from threepc.errors import InputError
from threepc.files import check_writable
from threepc.party import three_hosts
from threepc.party.batches import EachOf, fitting, infer_all, infer_missing
from threepc.party.deployment import ONE_USER, load
from threepc.party.kept import KeptOutputs
from threepc.party.pool import SessionPool, in_order, shares
from threepc.party.record import report
from threepc.party.tracing import Timeline, traced
from threepc.party.warmup import warm_up
from threepc.tasks import results
from threepc.tasks.inputs import check_files, load_inputs
from threepc.tasks.results import Outcome


@dataclass(frozen=True)
class ClientOptions:
    """What `threepc client` is told; the command's help says what each means."""

    deployment: Path
    images: tuple[Path, ...]
    name: str = "client"
    model: str = ""
    labels: Path | None = None
    batch: int = 1
    in_flight: int = 1
    precompute: int = 0
    threads: int = 1
    separate: bool = False
    out_of_range: str = "refuse"
    output: Path | None = None
    report: Path | None = None
    resume: Path | None = None
    retries: int = 0
    trace: Path | None = None
    cache: bool = True


def ask(options: ClientOptions, display: Display) -> Outcome:
    """Run the images. Raises InputError before anything of an image is sent, RunError when a party is missing, disagrees or fails."""
    if options.trace and options.in_flight > 1:
        raise InputError("--trace: only with one inference in flight, whose waiting it shows")
    with traced(options.trace, "client") as trace:
        outcome = _ask(options, trace, display)
    outcome.written.extend([options.trace] if options.trace else [])
    return outcome


def _ask(options: ClientOptions, trace: Timeline | None, display: Display) -> Outcome:
    deployment = load(options.deployment)
    deployment.client_pair(options.name)
    with display.stage("reading the images"):
        check_files(options.images)
    check_writable(options.report)
    check_writable(options.output, is_directory=True)
    check_writable(options.resume, is_directory=True)
    with display.stage("preparing kernels") as progress:
        warm_up(deployment.precision, progress, varied=deployment.may_vary, labels=LABEL in deployment.reveal)
    if deployment.is_unix:
        display.note(ONE_USER)
    with display.stage(f"connecting to {deployment.server.address} and {deployment.provider.address}") as tell:
        # a file may have more windows, or more inputs in it: their number is not known yet
        batches = -(-len(options.images) // options.batch)
        together = min(options.batch, len(options.images)) if options.precompute else options.batch
        ahead = shares(min(options.precompute, batches), options.in_flight)
        connect = three_hosts.sessions_of(
            deployment,
            options.name,
            options.threads,
            display.warn,
            model=options.model,
            cache=options.cache,
            trace=trace,
            ahead=ahead,
            batch=together,
        )
        pool = SessionPool(connect, options.in_flight, options.retries, tell, display.warn, reopens=options.retries > 0)
    with pool:
        model = pool.model
        if not options.model:
            display.note(f"model {model.called}, the server's first or only one")
        kept = KeptOutputs(options.resume, model) if options.resume else None
        with display.stage("reading the images"):
            inputs = load_inputs(options.images, model.card, model.precision, model.graph.input.shape, options.labels)
        for line in inputs.note(model.card):
            display.note(line)
        inputs.check_range(model.card, options.out_of_range, display.warn)
        batch = fitting(together, len(inputs), pool.first.largest_batch, display.note)
        pool.expect(-(-len(inputs) // batch))
        if options.precompute:
            with display.stage(f"preparing {min(options.precompute, batches)} inference(s) ahead"):
                pool.prepare()
        with display.bar("private inference", len(inputs)) as advance:
            infer, began = partial(pool.infer, separate=options.separate), time.perf_counter()
            each_of: EachOf = map if options.in_flight == 1 else partial(in_order, at_once=options.in_flight)
            if kept is None:
                (outputs, record), asked = infer_all(infer, model, inputs.batches(batch), advance, each_of), len(inputs)
            else:
                outputs, record, asked = infer_missing(infer, model, inputs.pixels, batch, kept, advance, each_of)
            if options.in_flight > 1:
                record.seconds["total"] = time.perf_counter() - began
    if asked < len(inputs):
        what = "windows" if inputs.windows else "images"
        display.note(f"{len(inputs) - asked} of {len(inputs)} {what} were done before, and lie in {options.resume}")
    details = report(model, record, asked, "the server's" if model.sizes else None, pool.setup_links, pool.first.setup_seconds)
    details |= {
        "batch": batch,
        "in_flight": options.in_flight,
        "threads": options.threads,
        "phases": "separate" if options.separate else "overlapped",
    }
    details |= inputs.facts()
    outcome = Outcome(model, inputs, outputs, details)
    details |= results.class_fields(outcome)
    results.write(outcome, options.output, options.report)
    return outcome
