"""`threepc run`: all three parties on this machine, on images of the user's."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from threepc.console import Display
from threepc.errors import InputError
from threepc.files import check_writable
from threepc.model.assemble import Assembled, Settings, assemble_loaded, introduction, plain_outputs, warn_of_error
from threepc.model.load import LoadedModel, load_model
from threepc.model.served import Outputs, PublicModel
from threepc.party import debug, one_host, tracing
from threepc.party.batches import fitting, infer_all
from threepc.party.memory import largest_batch
from threepc.party.record import report
from threepc.party.session import Options
from threepc.party.warmup import warm_up_for
from threepc.plan.headroom import count_outside
from threepc.tasks import results
from threepc.tasks.comparison import Comparison
from threepc.tasks.inputs import Inputs, check_files, load_inputs
from threepc.tasks.results import Outcome

LARGEST_ERROR = 0.005
"""Part of the largest plaintext output from which on `--compare` looks for the layer at fault by itself."""


@dataclass(frozen=True)
class RunOptions:
    """What `threepc run` is told; the command's help says what each means. budget is in bytes, timeout in seconds."""

    config: str
    checkpoint: Path | None
    images: tuple[Path, ...]
    labels: Path | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    settings: Settings = field(default_factory=Settings)
    transport: str = "ipc"
    network: str = "none"
    links: str = ""
    threads: int = 1
    separate: bool = False
    timeout: float = 120.0
    budget: int | None = None
    compare: bool = False
    layers: bool = False
    out_of_range: str = "refuse"
    output: Path | None = None
    report: Path | None = None
    trace: Path | None = None


@dataclass(frozen=True)
class PreparedRun:
    """A model and images that go together, all checked."""

    loaded: LoadedModel
    inputs: Inputs
    assembled: Assembled


def prepare(options: RunOptions, display: Display, allow_error: bool = False) -> PreparedRun:
    """Load and check everything. Raises InputError for images, model, spec, ring and places to write to.

    allow_error: results may be far off, whatever the settings say.
    """
    with display.stage("reading the images"):
        check_files(options.images)
    check_writable(options.report)
    check_writable(options.trace)
    check_writable(options.output, is_directory=True)
    with display.stage("loading the model"):
        loaded = load_model(options.config, options.checkpoint, size=options.size)
    with display.stage("reading the images"):
        inputs = load_inputs(options.images, loaded.card, options.settings.precision, loaded.preprocessing.shape, options.labels)
    with display.stage("importing the network") as tell:
        assembled = assemble_loaded(loaded, options.settings, tell)
    for line in [*introduction(assembled, loaded, options.settings), *inputs.note(loaded.card)]:
        display.note(line)
    warn_of_error(assembled, allow_error or options.settings.allow_error, display.warn)
    inputs.check_range(assembled.public.card, options.out_of_range, display.warn)
    return PreparedRun(loaded, inputs, assembled)


def run(options: RunOptions, display: Display) -> Outcome:
    """Run the images through three parties. Raises InputError before any party is started, RunError when the run fails."""
    one_host.check_transport(options.transport, options.network, options.links)
    prepared = prepare(options, display)
    model, inputs = prepared.assembled.public, prepared.inputs
    batch = fitting(options.batch, len(inputs), largest_batch(model, Options().memory), display.note)
    options = dataclasses.replace(options, batch=batch)
    budget = _budget(model, options, min(options.batch, len(inputs)))
    with display.stage("preparing kernels") as progress:
        warm_up_for(model, progress)
    with display.stage("starting client, server and provider"):
        parties = one_host.open_parties(
            prepared.assembled.served,
            options.transport,
            options.network,
            threads=options.threads,
            timeout=options.timeout,
            budget=budget,
            traced=options.trace is not None,
            links=options.links,
        )
    with parties, display.bar("private inference", len(inputs)) as advance:
        outputs, record = infer_all(partial(parties.infer, separate=options.separate), model, inputs.batches(options.batch), advance)
    if options.trace is not None:
        tracing.write(options.trace, parties.timelines)
    details = report(model, record, len(inputs), prepared.assembled.spec_source, parties.setup_links, parties.setup_seconds)
    details |= {
        "transport": options.transport,
        "network": options.network,
        "link_rates": options.links,
        "threads": options.threads,
        "phases": "separate" if options.separate else "overlapped",
    }
    outcome = make_outcome(prepared, outputs, details, options, display)
    outcome.written.extend([options.trace] if options.trace else [])
    return outcome


def make_outcome(prepared: PreparedRun, outputs: Outputs, details: dict[str, Any], options: RunOptions, display: Display) -> Outcome:
    """Compare, report and write the outputs of all images, as `infer_all` gives them."""
    assembled, inputs = prepared.assembled, prepared.inputs
    comparison = trace = None
    outside: dict[str, int] = {}
    if options.compare:
        with display.stage("plaintext PyTorch"):
            comparison = _compare(assembled, inputs, outputs, options.batch)
            outside = count_outside(assembled.public.plan(1), assembled.served.weights, inputs.pixels, assembled.public.sizes)
        if options.layers or comparison.relative_error > LARGEST_ERROR:
            trace = _trace(assembled, inputs, comparison, display)
    if comparison and inputs.windows:
        comparison = comparison.by_image(inputs.windows)
    details |= inputs.facts()
    details |= {"checkpoint": options.checkpoint and str(options.checkpoint), "batch": options.batch}
    details |= comparison.fields() | {"out_of_range": outside} if comparison else {}
    outcome = Outcome(assembled.public, inputs, outputs, details, comparison, trace, outside, options.layers)
    details |= results.class_fields(outcome)
    results.write(outcome, options.output, options.report)
    return outcome


def _budget(model: PublicModel, options: RunOptions, batch: int) -> int | None:
    """Bytes that may be dealt ahead. Separate phases need room for all of it, and get it unless the user says otherwise."""
    if not options.separate:
        return options.budget
    needed = max(model.plan(batch).cost.offline.values(), default=0)
    if options.budget is not None and options.budget < needed:
        raise InputError(f"--phases separate needs a --budget of at least {math.ceil(needed / 1e6)} MB for this network and batch")
    return max(needed, options.budget or Options().budget)


def _compare(assembled: Assembled, inputs: Inputs, outputs: Outputs, batch: int) -> Comparison:
    images = torch.from_numpy(inputs.pixels)
    began = time.perf_counter()
    plain = plain_outputs(assembled.imported, images, batch)
    seconds = time.perf_counter() - began
    return results.compare(assembled.public, outputs, plain, seconds)


def _trace(assembled: Assembled, inputs: Inputs, comparison: Comparison, display: Display) -> debug.Trace:
    """Every layer of the image that differs most, run once more within this process and compared."""
    worst = 0 if comparison.errors is None else int(comparison.errors.argmax())
    with display.stage("comparing layer by layer") as progress:
        return debug.trace(assembled.served, inputs.pixels[worst : worst + 1], progress=progress)
