"""Growth as plots, each as PNG and SVG."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.store import Entry, Sections
from threepc.files import write_atomically

LABELS = {
    "size": "side of the image, pixels",
    "batch": "images in a batch",
    "relus": "decisions left, % of one for each ReLU",
    "threads": "threads a party",
}


def growth(entries: list[Entry], axis: str) -> Figure | None:
    """Seconds, megabytes and memory over one axis; None where fewer than two points were measured."""
    points = sorted((e for e in entries if e["axis"] == axis and "refused" not in e), key=lambda e: e["x"])
    if len(points) < 2:
        return None
    x = [point["x"] for point in points]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    seconds, sizes, memory = figure.subplots(1, 3)
    for phase in ("total", "offline", "online"):
        known = [(point["x"], point["seconds"][phase]) for point in points if phase in point["seconds"]]
        if known:
            middle = [value["median"] for _, value in known]
            reach = [[value["median"] - value["min"] for _, value in known], [value["max"] - value["median"] for _, value in known]]
            seconds.errorbar([at for at, _ in known], middle, reach, marker="o", markersize=4, capsize=2, label=phase)
    plain = [point["plain_seconds"]["2"]["median"] for point in points]
    seconds.plot(x, plain, "--", color="grey", label="PyTorch in the clear, 2 threads")
    for phase in ("offline", "online"):
        sizes.plot(x, [point["bytes"][phase] / 1e6 for point in points], "o-", markersize=4, label=phase)
    for role in ("client", "server", "provider"):
        memory.plot(x, [point["peak_rss_mb"][role] for point in points], "o-", markersize=4, label=role)
    for axes, what in ((seconds, "seconds"), (sizes, "MB sent"), (memory, "peak memory of a party, MB")):
        axes.set(xlabel=LABELS[axis], ylabel=what, xscale="log")
        axes.set_xticks(x, [f"{value:.3g}" for value in x])
        axes.minorticks_off()
        if axis == "relus" or axes is memory:
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def networks(entries: list[Entry]) -> Figure | None:
    """Whole inferences over ipc as times of plaintext PyTorch, offline beside online and the overlapped total."""
    chosen = [e for e in entries if "refused" not in e and e["network"] == "none" and e["transport"] == "ipc" and e["batch"] == 1]
    if not chosen:
        return None
    figure = Figure(figsize=(9, 1 + 0.45 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    for row, entry in enumerate(reversed(chosen)):
        ratio = entry["ratio"]
        axes.barh(row, ratio.get("offline", 0), 0.35, color="tab:blue", label="offline" if row == 0 else None)
        axes.barh(row, ratio.get("online", 0), 0.35, left=ratio.get("offline", 0), color="tab:orange", label="online" if row == 0 else None)
        axes.plot(ratio["total"], row, "k|", markersize=16, markeredgewidth=2, label="overlapped" if row == 0 else None)
    names = [f"{e['title']}, l = {e['ring']}" + (f", {e['patch'][0]}x{e['patch'][1]}" if e["patch"] else "") for e in reversed(chosen)]
    axes.set_yticks(range(len(chosen)), names, fontsize="small")
    axes.set_xlabel("times PyTorch in the clear on two threads")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def write(sections: Sections, folder: Path) -> list[Path]:
    """Write every plot that the results allow as PNG and SVG; returns the PNGs."""
    figures = {f"growth_{axis}": growth(sections["growth"]["cases"], axis) for axis in LABELS} if "growth" in sections else {}
    if "networks" in sections:
        figures["networks"] = networks(sections["networks"]["cases"])
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        for suffix in ("svg", "png"):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=110, metadata={"Date": None} if suffix == "svg" else None)
            write_atomically(folder / f"{name}.{suffix}", buffer.getvalue())
        written.append(folder / f"{name}.png")
    return written
