"""`threepc run`: all three parties on this machine, on images of the user's."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import results
from .assembly import Assembled, Settings, assemble_loaded, introduction, plain_outputs
from .console import Display
from .errors import InputError
from .inputs import Inputs, check_files, load_inputs
from .models import load_model
from .party import local
from .party.record import merged, report
from .party.session import Options
from .party.warmup import warm_up
from .results import Comparison, Outcome


@dataclass(frozen=True)
class RunOptions:
    """What `threepc run` is told; the command's help says what each means. budget is in bytes, timeout in seconds."""

    config: str
    checkpoint: Path | None
    images: tuple[Path, ...]
    labels: Path | None = None
    batch: int = 1
    size: tuple[int, int] | None = None
    settings: Settings = Settings()
    transport: str = "ipc"
    network: str = "none"
    threads: int = 1
    separate: bool = False
    timeout: float = 120.0
    budget: int | None = None
    compare: bool = False
    output: Path | None = None
    report: Path | None = None


def run(options: RunOptions, display: Display) -> Outcome:
    """Run the images through three parties. Raises InputError before any party is started, RunError when the run fails."""
    check_files(options.images)
    results.check_writable(options.report)
    results.check_writable(options.output, is_directory=True)
    with display.stage("loading the model"):
        loaded = load_model(options.config, options.checkpoint, size=options.size)
    inputs = load_inputs(options.images, loaded.card, options.settings.precision, loaded.preprocessing.shape, options.labels)
    with display.stage("importing the network"):
        assembled = assemble_loaded(loaded, options.settings)
    budget = _budget(assembled, options, min(options.batch, len(inputs)))
    for line in introduction(assembled, loaded, options.settings):
        display.note(line)
    with display.stage("preparing kernels") as progress:
        warm_up(assembled.public.precision, progress)
    with display.stage("starting client, server and provider"):
        limits = {"threads": options.threads, "timeout": options.timeout, "budget": budget}
        parties = local.start(assembled.served, options.transport, options.network, **limits)
    records, outputs = [], []
    with parties, display.bar("private inference", len(inputs)) as advance:
        for batch in inputs.batches(options.batch):
            output, record = parties.infer(batch, separate=options.separate)
            outputs.append(results.finished(assembled.public, output))
            records.append(record)
            advance(len(batch))
    outputs = np.concatenate(outputs)
    comparison = None
    if options.compare:
        with display.stage("plaintext PyTorch"):
            comparison = _compare(assembled, inputs, outputs, options.batch)
    spec = options.settings.relu_spec
    details = report(assembled.public, merged(records), len(inputs), spec and str(spec), parties.setup_links, parties.setup_seconds)
    details |= {
        "checkpoint": None if options.checkpoint is None else str(options.checkpoint),
        "transport": options.transport,
        "network": options.network,
        "batch": options.batch,
        "threads": options.threads,
        "phases": "separate" if options.separate else "overlapped",
    }
    details |= comparison.fields() if comparison else {}
    outcome = Outcome(assembled.public, inputs, outputs, details, comparison)
    details |= results.classified(outcome)
    results.write(outcome, options.output, options.report)
    return outcome


def _budget(assembled: Assembled, options: RunOptions, batch: int) -> int | None:
    """Bytes that may be dealt ahead. Separate phases need room for all of it, and get it unless the user says otherwise."""
    if not options.separate:
        return options.budget
    needed = max(assembled.public.plan(batch).cost.offline.values(), default=0)
    if options.budget is not None and options.budget < needed:
        raise InputError(f"--phases separate needs a --budget of at least {math.ceil(needed / 1e6)} MB for this network and batch")
    return max(needed, options.budget or Options().budget)


def _compare(assembled: Assembled, inputs: Inputs, outputs: np.ndarray, batch: int) -> Comparison:
    images = torch.from_numpy(inputs.pixels)
    began = time.perf_counter()
    plain = plain_outputs(assembled, images, batch)
    seconds = time.perf_counter() - began
    return results.compare(assembled.public, outputs, plain.double().numpy(), seconds)
