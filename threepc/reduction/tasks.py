"""The commands of the ReLU pipeline as functions of plain arguments: what `threepc spec|distortion|knapsack|finetune|report` call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from threepc.console import Display
from threepc.errors import InputError
from threepc.files import check_writable
from threepc.graph import relu_spec as relu_specs
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph, Weights
from threepc.images.read import load_images
from threepc.model.load import LoadedModel, load_model
from threepc.plan.precision import Precision
from threepc.reduction import distortion, knapsack, report, store
from threepc.reduction.costs import DeclaredCosts
from threepc.reduction.finetune import Finetuned, finetune
from threepc.reduction.paper import import_paper
from threepc.reduction.samples import load_samples

PathLike = str | Path
_PATCH = re.compile(r"(\d{1,5})x(\d{1,5})")


def _network(config: str, checkpoint: PathLike | None, size: tuple[int, int] | None) -> tuple[LoadedModel, Graph, Weights]:
    with Display().stage("loading the model"):
        model = load_model(config, checkpoint, size=size)
    with Display().stage("importing the network"):
        graph, weights = import_module(model.module, torch.zeros(model.example_shape))
    if not graph.returns_tensor:
        raise InputError(f"{config}: returns several outputs; a distortion is that of one tensor")
    return model, graph, weights


def spec_import(pickle: PathLike, network: str, config: str, output: PathLike, size: tuple[int, int] | None = None) -> relu_specs.ReluSpec:
    """`threepc spec import PICKLE --network NETWORK CONFIG --output FILE`: a spec of the paper becomes ours, nothing is executed.

    `network` is one of `paper_networks()`, `config` the same network here, `size` (H, W) of its input where not the config's.
    """
    check_writable(Path(output))
    _, graph, _ = _network(config, None, size)
    found = import_paper(pickle, network, graph)
    relu_specs.save(found, output)
    return found


def spec_uniform(patch: str, config: str, output: PathLike, size: tuple[int, int] | None = None) -> relu_specs.ReluSpec:
    """`threepc spec uniform 4x4 CONFIG --output FILE`: one patch size for all channels; "zero" and "identity" are patches too."""
    match = _PATCH.fullmatch({"zero": "1x0", "identity": "0x1"}.get(patch, patch))
    if match is None:
        raise InputError(f"'{patch}' is no patch size: HEIGHTxWIDTH such as 4x4, or zero, or identity")
    check_writable(Path(output))
    model, graph, _ = _network(config, None, size)
    found = relu_specs.uniform(graph, int(match[1]), int(match[2]), model.name)
    relu_specs.save(found, output)
    return found


def spec_show(path: PathLike, config: str, size: tuple[int, int] | None = None) -> list[dict[str, Any]]:
    """`threepc spec show SPEC CONFIG`: the rows of `spec.show`, DReLUs kept by layer and in all."""
    return relu_specs.show(relu_specs.load(path), _network(config, None, size)[1])


def measure_distortion(
    config: str,
    checkpoint: PathLike | None,
    output: PathLike,
    *,
    samples: int = 64,
    images: Sequence[PathLike] = (),
    size: tuple[int, int] | None = None,
    **settings: Any,
) -> store.Distortion:
    """`threepc distortion CONFIG CHECKPOINT --samples N --output FOLDER`: what every candidate patch does to the output.

    The images are `samples` of the config's training set, or the files `images`. `settings` are those of `distortion.measure`: method,
    jobs, backend, scheduler, device, tf32, skip_dominated, check, progress.
    """
    model, graph, weights = _network(config, checkpoint, size)
    with Display().stage("reading the images"):
        found = load_images(images, model.preprocessing) if images else load_samples(config, model.card, samples)
    return distortion.measure(graph, weights, found, Path(output), model=model.name, **settings)


def solve_knapsack(
    folder: PathLike,
    output: PathLike,
    *,
    ratio: float | None = None,
    drelus: int | None = None,
    bytes: float | None = None,  # noqa: A002 - the option's name
    seconds: float | None = None,
    network: str = "none",
    ring: int = 48,
) -> tuple[knapsack.Allocation, Path]:
    """`threepc knapsack FOLDER --ratio 0.06 --output SPEC`: the spec of least distortion in a budget, written with a plot beside it.

    Exactly one budget: `ratio` or `drelus` of decisions, `bytes` of one image over all links in the given `ring`, or `seconds` on
    `network`. Returns the allocation (proven gap, cost, range of budgets) and the plot's path.
    """
    if seconds is not None and network == "none":
        raise InputError("a budget in seconds needs the network it is for, such as --network wan")
    check_writable(Path(output))
    result = store.load(folder)
    costs, fixed = None, 0.0
    with Display().stage("choosing the patches"):
        if bytes is not None or seconds is not None:
            costs = DeclaredCosts(store.read_graph(Path(folder)), Precision.default(ring), network)
            fixed = costs.fixed[seconds is not None]
        found = knapsack.allocate(result, ratio=ratio, drelus=drelus, bytes=bytes, seconds=seconds, cost=costs, fixed=fixed)
    return found, report.save_allocation(found, output)


def finetune_network(config: str, relu_spec: PathLike | None, load_from: PathLike | None, work_dir: PathLike, **settings: Any) -> Finetuned:
    """`threepc finetune CONFIG --relu-spec SPEC --load-from CHECKPOINT --work-dir FOLDER`: MMLab's training with block ReLUs.

    `settings` are those of `finetune.finetune`: average_pool, options, seed, device, launcher, validate, resume_from.
    """
    return finetune(config, load_from, None if relu_spec is None else relu_specs.load(relu_spec), Path(work_dir), **settings)


def make_report(
    output: PathLike,
    *,
    specs: Sequence[PathLike] = (),
    runs: Sequence[PathLike] = (),
    folder: PathLike | None = None,
    config: str | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """`threepc report --spec S --run R --distortion FOLDER --config CONFIG --output PAGE`: one self-contained HTML page."""
    check_writable(Path(output))
    graph = None if config is None else _network(config, None, size)[1]
    with Display().stage("drawing the page"):
        return report.write_report(output, specs=specs, runs=runs, distortion=folder, graph=graph)
