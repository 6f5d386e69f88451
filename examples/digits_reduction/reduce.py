#!/usr/bin/env python
"""From the trained digits network to 3, 6, 12 and 25 % of its DReLUs, and what that costs in accuracy and saves in bytes and seconds.

One more spec, 6_bytes, has as many bytes as that of 6 %, and the least distortion for these.

    .venv/bin/python examples/digits_reduction/reduce.py

measures the exact distortion (seven minutes on one core), solves the knapsacks, finetunes each spec and, for comparison, the plain
network in the same way with several seeds (two minutes each), and classifies the held-out images, some of them securely. Specs go to
relu_specs/, results.json and accuracy.svg to this folder, checkpoints and a page with all plots, report.html, to output/. It goes on
where it stopped.
The commands of `threepc` that do the same one by one are in README.md.
"""

import json
import logging
import time
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from threepc.files import write_atomically
from threepc.graph.block_relu import apply_spec
from threepc.graph.importer import import_module
from threepc.graph.relu_spec import ReluSpec, save
from threepc.mmlab.digits import digits
from threepc.model.load import LoadedModel, load_model
from threepc.model.served import PublicModel, ServedModel
from threepc.party.one_host import ThreeProcesses
from threepc.plan.precision import Precision
from threepc.reduction import plots
from threepc.reduction.costs import DeclaredCosts
from threepc.reduction.distortion import measure
from threepc.reduction.finetune import finetune
from threepc.reduction.knapsack import allocate
from threepc.reduction.report import write_report
from threepc.reduction.samples import load_samples

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG, CHECKPOINT = HERE.parent / "digits" / "resnet18_digits.py", HERE.parent / "digits" / "resnet18_digits.pth"
TRAINING = HERE / "finetune_digits.py"
PERCENT = (3, 6, 12, 25)
SAMPLES = 64
RING = 48
SECURE_IMAGES, WARM_UP = 10, 2


def spec_path(name: str) -> Path:
    """Where the spec of a budget is kept."""
    return ROOT / "relu_specs" / f"resnet18_digits_{name}.json"


def make_specs(folder: Path, jobs: int) -> dict[str, ReluSpec | None]:
    """Distortion and knapsack: a spec for every budget by name, and None for the plain network."""
    model = load_model(str(CONFIG), CHECKPOINT)
    graph, weights = import_module(model.module, torch.zeros(model.example_shape))
    distortion = measure(graph, weights, load_samples(str(CONFIG), model.card, SAMPLES), folder / "distortion", model=model.name, jobs=jobs)
    specs = {str(percent): allocate(distortion, ratio=percent / 100).spec for percent in PERCENT}
    costs = DeclaredCosts(graph, Precision.default(RING))
    specs["6_bytes"] = allocate(distortion, bytes=costs.of_spec(distortion.layers, specs["6"])[0], cost=costs, fixed=costs.fixed[0]).spec
    for name, spec in specs.items():
        save(spec, spec_path(name))
    return {"plain": None, **specs}


def accuracy(model: LoadedModel, spec: ReluSpec | None) -> float:
    """The share of the held-out digits that the network, with the block ReLUs of `spec`, classifies rightly."""
    if spec is not None:
        apply_spec(model.module, spec, torch.zeros(model.example_shape))
    images, labels = held_out(model)
    with torch.no_grad():
        logits = torch.cat([model.module(part) for part in torch.from_numpy(images).split(60)])
    return float((logits.argmax(1).numpy() == labels).mean())


def held_out(model: LoadedModel) -> tuple[np.ndarray, np.ndarray]:
    """All held-out digits as the network takes them, and their labels."""
    labels = digits(held_out=True)[1]
    return load_samples(str(CONFIG), model.card, len(labels), "test"), labels


def finetuned(folder: Path, name: str, spec: ReluSpec | None, seed: int) -> Path:
    """The checkpoint of one finetuning run; one that is there already is taken."""
    run = folder / name / f"seed{seed}"
    done = run / "done.pth"
    if not done.exists():
        print(f"finetuning {name}, seed {seed}", flush=True)
        finetune(str(TRAINING), CHECKPOINT, spec, run, seed=seed, validate=False).checkpoint.replace(done)
    return done


def secure(spec: ReluSpec | None, checkpoint: Path) -> dict[str, float]:
    """Held-out images through three processes on this machine: share right, agreement with plaintext, bytes and seconds an image."""
    model = load_model(str(CONFIG), checkpoint)
    graph, weights = import_module(model.module, torch.zeros(model.example_shape))
    sizes = None if spec is None else {name: tuple(map(tuple, patches.tolist())) for name, patches in spec.layers.items()}
    images, labels = held_out(model)
    chosen = np.linspace(0, len(images) - 1, SECURE_IMAGES).astype(int)
    served = ServedModel(PublicModel(graph, Precision.default(RING), sizes, model.card), weights)
    if spec is not None:
        apply_spec(model.module, spec, torch.zeros(model.example_shape))
    right, agreeing, seconds, size = 0, 0, [], 0
    with ThreeProcesses(served) as parties, torch.no_grad():
        for image in images[chosen[:WARM_UP]]:
            parties.infer(image[None])
        for image, label in zip(images[chosen], labels[chosen], strict=True):
            began = time.perf_counter()
            logits, record = parties.infer(image[None])
            seconds.append(time.perf_counter() - began)
            size = sum(count for phases in record.links.values() for count, _ in phases.values())
            right += int(logits.reshape(-1).argmax() == label)
            agreeing += int(logits.reshape(-1).argmax() == model.module(torch.from_numpy(image[None])).argmax())
    plan = served.public.plan(1)
    return {
        "bytes": {"total": size},
        "seconds": {"total": float(np.median(seconds))},
        "images": 1,
        "drelus": plan.drelus,
        "ring_bits": RING,
        "messages_online": plan.cost.messages,
        "secure_accuracy": right / len(chosen),
        "agreement": agreeing / len(chosen),
    }


def plot(results: list[dict]) -> str:
    """Accuracy against bytes: budgets of DReLUs before and after finetuning, and the budget of bytes."""
    by_drelus = sorted((entry for entry in results if entry["name"] != "6_bytes"), key=lambda entry: entry["bytes"]["total"])
    by_bytes = [entry for entry in results if entry["name"] == "6_bytes"]
    sizes = [entry["bytes"]["total"] for entry in by_drelus]
    spread = [min(entry["accuracy"]) for entry in by_drelus], [max(entry["accuracy"]) for entry in by_drelus]
    series = [
        plots.Points("finetuned, mean and range", sizes, [float(np.mean(entry["accuracy"])) for entry in by_drelus], spread),
        plots.Points("before finetuning", sizes, [entry["accuracy_before_finetuning"] for entry in by_drelus]),
        plots.Points(
            "6_bytes, finetuned",
            [entry["bytes"]["total"] for entry in by_bytes],
            [float(np.mean(entry["accuracy"])) for entry in by_bytes],
            line=False,
        ),
    ]
    return plots.curves(
        series,
        "Digits: accuracy against bytes of one secure inference",
        "bytes over all links, offline included",
        "accuracy on held-out digits",
        log_x=True,
        percent_y=True,
        bytes_x=True,
    )


@click.command()
@click.option("--folder", default="output/digits_reduction", show_default=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=3, show_default=True, help="Finetuning runs for each budget.")
@click.option("--jobs", default=1, show_default=True, help="Processes that measure distortions.")
def main(folder: Path, seeds: int, jobs: int) -> None:
    """Run the recipe."""
    logging.disable(logging.INFO)
    specs = make_specs(folder, jobs)
    checkpoints = {name: [finetuned(folder, name, spec, seed) for seed in range(seeds)] for name, spec in specs.items()}
    results = []
    for name, spec in specs.items():
        before = accuracy(load_model(str(CONFIG), CHECKPOINT), spec)
        after = [accuracy(load_model(str(CONFIG), path), spec) for path in checkpoints[name]]
        file = None if spec is None else spec_path(name).name
        results.append(
            {"name": name, "model": "resnet18_digits", "relu_spec": file, "accuracy_before_finetuning": before, "accuracy": after}
            | secure(spec, checkpoints[name][0])
        )
    write_atomically(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    write_report(
        folder / "report.html",
        specs=[spec_path(name) for name in specs if name != "plain"],
        runs=[HERE / "results.json"],
        distortion=folder / "distortion",
    )
    write_atomically(HERE / "accuracy.svg", plot(results).encode())
    table = Table("DReLUs", "count", "before", "finetuned", "range", "bytes", "seconds", "secure = plain")
    for entry in results:
        mean = np.mean(entry["accuracy"])
        table.add_row(
            entry["name"],
            f"{entry['drelus']:,}",
            f"{entry['accuracy_before_finetuning']:.2%}",
            f"{mean:.2%}",
            f"{min(entry['accuracy']):.2%} to {max(entry['accuracy']):.2%}",
            plots.megabytes(entry["bytes"]["total"]),
            f"{entry['seconds']['total']:.3f}",
            f"{entry['agreement']:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
