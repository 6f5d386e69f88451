"""One self-contained HTML page on specs, distortions and runs: no script, no other file, nothing loaded from anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.files import read_json, write_atomically
from threepc.graph.ir import Graph
from threepc.graph.relu_spec import ReluSpec, check, drelus, full_drelus, load, save, show
from threepc.reduction import plots, store
from threepc.reduction.knapsack import Allocation, allocate
from threepc.reduction.store import Distortion

RATIOS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:13px;margin:.8rem 0}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #eee;white-space:nowrap}
th:first-child,td:first-child,td.text,th.text{text-align:left}
svg{max-width:100%;height:auto;display:block;margin:.6rem 0}.wide{overflow-x:auto}.wide svg{max-width:none}
details{margin:.6rem 0}summary{cursor:pointer}p.note{color:#555}
"""


def write_report(
    output: str | Path,
    *,
    specs: Sequence[str | Path] = (),
    runs: Sequence[str | Path] = (),
    distortion: str | Path | None = None,
    graph: Graph | None = None,
) -> Path:
    """Write the page to `output`; returns its path.

    `specs`: relu spec files. `runs`: JSON reports of `threepc run` or `evaluate`, or lists of these; those with an accuracy appear in
    the plot of accuracy against bytes. `distortion`: the folder of a distortion run, for the curve of distortion against budget.
    `graph`: the network of the specs, for DReLUs by layer (without it, the distortion's layers serve). Raises InputError.
    """
    if not specs and not runs and distortion is None:
        raise InputError("a report needs at least one relu spec, run report or distortion folder")
    named = _named(specs)
    result = None if distortion is None else store.load(distortion)
    reports = [entry for path in runs for entry in _reports(Path(path))]
    sections = [_specs(named, graph, result)] if named else []
    if result is not None:
        sections.append(_distortion(result, named))
    if reports:
        sections += [_accuracy(reports), _runs(reports)]
    title = next((spec.model for spec in named.values() if spec.model), "") or (result.manifest["model"] if result else "") or "runs"
    page = (
        f"<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>threepc: {escape(title)}</title>"
        f"<style>{_CSS}</style></head><body><h1>threepc: {escape(title)}</h1>{''.join(sections)}</body></html>\n"
    )
    write_atomically(Path(output), page.encode())
    return Path(output)


def save_allocation(allocation: Allocation, path: str | Path) -> Path:
    """Write a knapsack's spec to `path`, and beside it (.svg) the plot of its patch sizes by layer; returns the plot's path."""
    path = Path(path)
    if path.suffix == ".svg":
        raise InputError(f"{path} is where the plot goes: give the spec another ending, such as .json")
    save(allocation.spec, path)
    title = f"{allocation.spec.model}: {allocation.drelus:,} DReLUs, {allocation.cost:.6g} {allocation.unit} of {allocation.budget:.6g}"
    write_atomically(path.with_suffix(".svg"), plots.patches_by_layer(allocation.spec, title).encode())
    return path.with_suffix(".svg")


def _named(paths: Sequence[str | Path]) -> dict[str, ReluSpec]:
    stems = [Path(path).stem for path in paths]
    return {stem if stems.count(stem) == 1 else str(path): load(path) for path, stem in zip(paths, stems, strict=True)}


def _reports(path: Path) -> list[dict[str, Any]]:
    content = read_json(path, "the run report")
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} is no run report: a JSON object, or a list of these")
    for entry in entries:
        _check_report(path, entry)
    return [{"name": path.stem if len(entries) == 1 else f"{path.stem} {index + 1}"} | entry for index, entry in enumerate(entries)]


def _check_report(path: Path, report: dict[str, Any]) -> None:
    """Raises InputError for what neither `threepc run --report` nor `threepc evaluate` writes."""
    if "model" not in report:
        raise InputError(f"{path} is no report of threepc run or evaluate: it has no 'model'")
    fits = {
        "model": isinstance(report["model"], str),
        "images": _is_number(report.get("images", 1)),
        "drelus": _is_number(report.get("drelus", 0)),
        "bytes": _has_total(report.get("bytes", 0)),
        "seconds": _has_total(report.get("seconds", 0)),
        "layers": isinstance(report.get("layers", []), list) and all(map(_is_layer, report.get("layers", []))),
    }
    for key in (key for key, good in fits.items() if not good):
        raise InputError(f"{path} is no report of threepc run or evaluate: its {key!r} is {str(report[key])[:40]!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _has_total(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, dict) and _is_number(value.get("total")))


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and _is_number(value.get("bytes"))


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
        text = "" if value is None else f"{value:,}" if isinstance(value, int) and numeric else f"{value:.4g}" if numeric else str(value)
        return f"<td>{escape(text)}</td>" if numeric else f"<td class=text>{escape(text)}</td>"

    head = "".join(f"<th class=text>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _specs(specs: dict[str, ReluSpec], graph: Graph | None, result: Distortion | None) -> str:
    parts = ["<h2>Relu specs</h2>"]
    for spec in specs.values():
        if graph is not None:
            check(spec, graph)
        elif result is not None and set(spec.layers) != {layer.name for layer in result.layers}:
            raise InputError(f"{spec.source} is not for the network of the distortion run")
    kept = {name: _kept(spec, graph, result) for name, spec in specs.items()}
    if graph is not None or result is not None:
        full = _full(graph, result)
        series = {"full": list(full.values())} | {name: [count[layer] for layer in full] for name, count in kept.items()}
        parts.append(f"<div class=wide>{plots.by_layer(list(full), series, 'DReLUs by layer', 'DReLUs an image')}</div>")
        total = sum(full.values())
        told = ("sum_of_distortions", "proven_gap", "method")
        rows = [
            (name, sum(count.values()), f"{sum(count.values()) / total:.2%}", *(specs[name].provenance.get(key) for key in told))
            for name, count in kept.items()
        ]
        parts.append(_table(("spec", "DReLUs", "of all", "sum of distortions", "proven gap", "made by"), rows))
    for name, spec in specs.items():
        parts.append(f"<div class=wide>{plots.patches_by_layer(spec, f'{name}: patch sizes by layer')}</div>")
        if graph is not None:
            rows = [
                (row["layer"], row["map"], row["channels"], row["drelus"], row["full"], f"{row['ratio']:.1%}", row["patches"])
                for row in show(spec, graph)
            ]
            parts.append(
                f"<details><summary>{escape(name)}, layer by layer</summary>"
                f"{_table(('layer', 'map', 'channels', 'DReLUs', 'full', 'kept', 'commonest patches'), rows)}</details>"
            )
    return "".join(parts)


def _kept(spec: ReluSpec, graph: Graph | None, result: Distortion | None) -> dict[str, int]:
    if graph is not None:
        return drelus(spec, graph)
    if result is None:
        return {}
    counts = {}
    for layer in result.layers:
        by_patch = dict(zip(map(tuple, layer.patches.tolist()), layer.drelus.tolist(), strict=True))
        counts[layer.name] = sum(by_patch.get(tuple(patch), 0) for patch in spec.layers[layer.name].tolist())
    return counts


def _full(graph: Graph | None, result: Distortion | None) -> dict[str, int]:
    if graph is not None:
        return full_drelus(graph)
    return {layer.name: layer.shape[0] * int(layer.drelus[0]) for layer in (result.layers if result else ())}


def _distortion(result: Distortion, specs: dict[str, ReluSpec]) -> str:
    solved = [allocate(result, ratio=ratio) for ratio in RATIOS]
    power = result.power or 1.0
    objectives = [found.solution.objective / power for found in solved]
    series = [plots.Points("optimum", [found.cost / found.full for found in solved], objectives)]
    full = solved[0].full
    for name, spec in specs.items():
        provenance = spec.provenance
        if provenance.get("unit") == "DReLUs" and provenance.get("distortion") == result.fingerprint:
            series.append(plots.Points(name, [provenance["cost"] / full], [provenance["sum_of_distortions"] / power], line=False))
    how = "estimated" if result.manifest["method"] == "estimate" else "measured exactly"
    rank = "" if math.isnan(result.rank_correlation) else f", rank correlation with exact ones {result.rank_correlation:.3f} on a sample"
    worst = max(found.solution.gap for found in solved)
    proof = f"proven within {worst:.1e} of the optimum" if worst else "a proven optimum"
    return (
        "<h2>Distortion against budget</h2>"
        + plots.curves(
            [_positive(points) for points in series],
            "Least sum of distortions for a budget",
            "share of DReLUs kept",
            "sum / output power",
            log_x=True,
            log_y=True,
            percent_x=True,
        )
        + f"<p class=note>{how.capitalize()} on {result.manifest['images']['count']:d} images{rank}; every point is {proof}. "
        "Channels change one at a time here: a network with all of them changed is finetuned.</p>"
    )


def _positive(points: plots.Points) -> plots.Points:
    # A logarithmic axis has no zero: a budget that costs nothing in distortion is left out.
    some = [index for index, value in enumerate(points.y) if value > 0 and points.x[index] > 0]
    return plots.Points(points.label, [points.x[i] for i in some], [points.y[i] for i in some], line=points.line)


def _bytes(report: dict[str, Any]) -> float | None:
    total = report.get("bytes", {}).get("total") if isinstance(report.get("bytes"), dict) else report.get("bytes")
    return None if total is None else total / max(1, report.get("images", 1) or 1)


def _accuracies(report: dict[str, Any]) -> list[float]:
    """The accuracy or mIoU of a report: one number, one for each of several runs, or the secure one of {"secure": .., "plain": ..}."""
    value = report.get("accuracy", report.get("mIoU"))
    if isinstance(value, dict):
        value = value.get("secure")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(number, (int, float)) for number in values):
        raise InputError(f"run report {report['name']}: the accuracy is no number")
    return [float(number) for number in values]


def _accuracy(reports: list[dict[str, Any]]) -> str:
    known = [(entry, count, _accuracies(entry)) for entry in reports if (count := _bytes(entry))]
    found = sorted((item for item in known if item[2]), key=lambda item: item[1])
    if not found:
        return ""
    means = [float(np.mean(values)) for _, _, values in found]
    spread = [min(values) for _, _, values in found], [max(values) for _, _, values in found]
    points = plots.Points(
        "mean, and range over runs" if any(len(values) > 1 for _, _, values in found) else "measured",
        [count for _, count, _ in found],
        means,
        spread,
        line=False,
    )
    rows = [
        (entry["name"], entry.get("drelus"), plots.megabytes(count), f"{mean:.2%}", f"{min(values):.2%} to {max(values):.2%}", len(values))
        for (entry, count, values), mean in zip(found, means, strict=True)
    ]
    return (
        "<h2>Accuracy against bytes</h2>"
        + plots.curves(
            [points],
            "Accuracy against bytes of one image",
            "bytes over all links, offline included",
            "accuracy",
            log_x=True,
            percent_y=True,
            bytes_x=True,
        )
        + _table(("run", "DReLUs", "bytes an image", "accuracy", "range", "runs"), rows)
    )


def _runs(reports: list[dict[str, Any]]) -> str:
    parts = ["<h2>Runs</h2>"]
    rows = []
    for entry in reports:
        seconds, count = entry.get("seconds"), _bytes(entry)
        seconds = seconds.get("total") if isinstance(seconds, dict) else seconds
        rows.append(
            (
                entry["name"],
                entry.get("model"),
                entry.get("ring_bits"),
                entry.get("relu_spec"),
                entry.get("images"),
                entry.get("drelus"),
                seconds,
                None if count is None else plots.megabytes(count),
                entry.get("messages_online"),
            )
        )
    parts.append(_table(("run", "model", "ring", "relu spec", "images", "DReLUs", "seconds", "bytes an image", "online messages"), rows))
    for entry in reports:
        layers = [layer for layer in entry.get("layers", []) if layer["bytes"]]
        if layers:
            names = [layer["name"] for layer in layers]
            bars = plots.by_layer(names, {"bytes": [layer["bytes"] for layer in layers]}, f"{entry['name']}: bytes by layer", "bytes")
            parts.append(f"<div class=wide>{bars}</div>")
    return "".join(parts)
