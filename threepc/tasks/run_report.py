"""`threepc report-run`: a page about one run, or two side by side, that needs no other file and loads nothing from anywhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from threepc.errors import InputError
from threepc.files import check_writable, read_json, write_atomically
from threepc.tasks.critical_path import by_layer, critical_path, read_trace

PARTIES = ("client", "server", "provider")
_LAYER: dict[str, Any] = {"name": str, "kind": str, "seconds": (int, float), "bytes": int, "messages": int}


def write_page(output: Path, run: Path, other: Path | None = None, trace: Path | None = None) -> Path:
    """Write the page about a report of `threepc run` or `client`, and return its path.

    other: the report of a second run, to compare with; trace: what `--trace` wrote in the first run, for the parties' times by layer and the
    critical path. Raises InputError for files that are something else, ModuleNotFoundError without jinja2.
    """
    import jinja2

    check_writable(output)
    report = _read(run)
    facts: dict[str, Any] = {"run": report, "name": run.name, "parties": PARTIES, "kinds": _kinds(report), "traffic": _traffic(report)}
    facts |= {"other": None, "trace": None, "largest": {key: _largest(report, key) for key in ("seconds", "bytes")}}
    if other is not None:
        second = _read(other)
        facts |= {"other": second, "other_name": other.name, "headline": _headline(report, second), "changes": _changes(report, second)}
    if trace is not None:
        facts["trace"] = _traced(trace)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"ms": _milliseconds, "mb": _megabytes, "ratio": _ratio}
    page = environment.from_string(files("threepc.tasks").joinpath("run_report.html").read_text()).render(facts)
    write_atomically(output, page.encode())
    return output


def _read(path: Path) -> dict[str, Any]:
    report = read_json(path, "the report")
    wrong = InputError(f"{path} is no report of a secure run: 'threepc run --report FILE' writes one")
    if not isinstance(report, dict):
        raise wrong
    for phases, keys in (("seconds", ("setup", "offline", "online", "total")), ("bytes", ("setup", "offline", "online", "total"))):
        if not isinstance(report.get(phases), dict) or not all(_is_number(report[phases].get(key)) for key in keys):
            raise wrong
    layers, links = report.get("layers"), report.get("links")
    if (
        not isinstance(layers, list)
        or not all(map(_is_layer, layers))
        or not isinstance(links, dict)
        or not all(map(_is_link, links.values()))
    ):
        raise wrong
    for key in ("peak_rss_mb", "cpu_seconds"):
        if not isinstance(report.get(key), dict) or not all(map(_is_number, report[key].values())):
            raise wrong
    if not isinstance(report.get("model"), str) or not all(_is_number(report.get(key)) for key in ("images", "relus", "messages_online")):
        raise wrong
    return report


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _is_layer(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) and value[key] is not True for key, kind in _LAYER.items())


def _is_link(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(count, dict) and _is_number(count.get("bytes")) for count in value.values())


def _largest(report: Mapping[str, Any], key: str) -> float:
    """Of all layers, for the length of bars; never 0."""
    return max((layer[key] for layer in report["layers"]), default=0) or 1


def _kinds(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Seconds, bytes and messages by kind of layer, the slowest first."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for layer in report["layers"]:
        sums[layer["kind"]].update(seconds=layer["seconds"], bytes=layer["bytes"], messages=layer["messages"], layers=1)
    return sorted(({"kind": kind, **sums} for kind, sums in sums.items()), key=lambda row: -row["seconds"])


def _traffic(report: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Bytes that each party sent and received, by phase: "sent offline" and so on."""
    traffic: dict[str, Counter[str]] = {party: Counter() for party in PARTIES}
    for link, phases in report["links"].items():
        ends = link.split("->")
        for phase, count in phases.items():
            for party, how in zip(ends, ("sent", "received"), strict=False):
                if party in traffic:
                    traffic[party][f"{how} {phase}"] += count["bytes"]
    return traffic


def _headline(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """What is compared of two whole runs, for each image: name, unit, this, other."""
    rows = []
    for phase in ("offline", "online", "total"):
        for what, unit in (("seconds", "ms"), ("bytes", "mb")):
            one, two = (report[what][phase] / max(report["images"], 1) for report in (run, other))
            rows.append((f"{phase}, {'time' if unit == 'ms' else 'bytes'} an image", unit, one, two))
    rows += [
        (f"set-up, {'time' if unit == 'ms' else 'bytes'}", unit, run[what]["setup"], other[what]["setup"])
        for what, unit in (("seconds", "ms"), ("bytes", "mb"))
    ]
    return rows


def _changes(run: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Layers of both, by what the time of an image differs, those that one run lacks included."""
    tables = [{layer["name"]: layer for layer in report["layers"]} for report in (run, other)]
    images = [max(report["images"], 1) for report in (run, other)]
    rows = []
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        found = [table.get(name) for table in tables]
        row: dict[str, Any] = {"name": name, "kind": next(layer["kind"] for layer in found if layer)}
        for key in ("seconds", "bytes"):
            row[key] = [None if layer is None else layer[key] / count for layer, count in zip(found, images, strict=True)]
        row["difference"] = (row["seconds"][1] or 0.0) - (row["seconds"][0] or 0.0)
        rows.append(row)
    return sorted(rows, key=lambda row: -abs(row["difference"]))


def _traced(path: Path) -> dict[str, Any]:
    """By layer and party, and the critical path: its pieces, and sums by party and what they are."""
    events = read_trace(path)
    layers, pieces = by_layer(events), critical_path(events)
    whole = sum(piece.ended - piece.began for piece in pieces)
    sums: Counter[tuple[str, str]] = Counter()
    slowest: Counter[str] = Counter()
    for piece in pieces:
        sums[piece.party, piece.what] += piece.ended - piece.began
        slowest[piece.layer or "between layers"] += piece.ended - piece.began
    widest = max((sum(times.values()) for parties in layers.values() for times in parties.values()), default=0) or 1
    return {
        "name": path.name,
        "layers": layers,
        "widest": widest,
        "whole": whole,
        "path": _strip(pieces, whole),
        "sums": sums.most_common(),
        "slowest": slowest.most_common(15),
    }


def _strip(pieces: Sequence[Any], whole: int) -> list[tuple[str, str, float, str]]:
    """The path as stretches to draw: party, what, percent of the whole, title; what is too short to see goes with its neighbour."""
    strip: list[list[Any]] = []
    for piece in pieces:
        size = piece.ended - piece.began
        if strip and ((piece.party, piece.what) == tuple(strip[-1][:2]) or size < whole / 2000):
            strip[-1][2] += size
        else:
            strip.append([piece.party, piece.what, size, piece.layer])
    return [
        (party, what, 100 * size / (whole or 1), f"{party}: {what}, {layer or 'between layers'}, {size / 1000:.2f} ms")
        for party, what, size, layer in strip
    ]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.2f}"


def _megabytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:,.3f}"


def _ratio(numbers: Sequence[float]) -> str:
    """The second of two numbers as a multiple of the first."""
    one, two = numbers
    return f"{two / one:.2f} x" if one else ""
