"""Plots of specs and runs as SVG text, for a page that needs no other file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from threepc.graph.relu_spec import ReluSpec

# Patches grouped by how many pixels share a decision; zero and the identity need none.
GROUPS = (
    ("zero", "#444444"),
    ("identity", "#b0b0b0"),
    ("1 pixel", "#440154"),
    ("2-4", "#3b528b"),
    ("5-16", "#21918c"),
    ("17-64", "#5ec962"),
    ("more", "#fde725"),
)
COLOURS = ("#1f5fa8", "#d1495b", "#2e8b57", "#b8860b", "#7b4ea3", "#17807e")
_WIDTH = 10.5
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "threepc",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Points:
    """A labelled series; with `spread` (low, high) of each y, its range over several runs."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    spread: tuple[Sequence[float], Sequence[float]] | None = None
    line: bool = True


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _layer_axis(axes: Axes, names: Sequence[str]) -> None:
    # What all names begin with ("backbone.") says nothing.
    parents = [name.split(".")[:-1] for name in names]
    shared = list(takewhile(lambda parts: len(set(parts)) == 1, zip(*parents, strict=False)))
    axes.set_xticks(range(len(names)), [".".join(name.split(".")[len(shared) :]) for name in names], rotation=90, fontsize=8)
    axes.set_xlim(-0.6, len(names) - 0.4)


def by_layer(names: Sequence[str], series: Mapping[str, Sequence[float]], title: str, unit: str) -> str:
    """Bars for every layer, one of each series, on a logarithmic scale; 0 has no bar."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(max(_WIDTH, 0.22 * len(names) + 2), 3.6)
        width = 0.8 / len(series)
        for index, (label, values) in enumerate(series.items()):
            heights = np.where(np.asarray(values, dtype=float) > 0, values, np.nan)
            axes.bar(
                np.arange(len(names)) + (index - (len(series) - 1) / 2) * width,
                heights,
                width,
                label=label,
                color="#c8c8c8" if label == "full" else COLOURS[index % len(COLOURS)],
            )
        axes.set_yscale("log")
        axes.set_ylabel(unit)
        axes.set_title(title)
        _layer_axis(axes, names)
        figure.legend(loc="outside right center")
        return _svg(figure)


def patches_by_layer(spec: ReluSpec, title: str) -> str:
    """The share of each layer's channels by the size of their patches."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(max(_WIDTH, 0.22 * len(spec.layers) + 2), 3.6)
        shares = np.array([np.bincount(_group(patches), minlength=len(GROUPS)) / len(patches) for patches in spec.layers.values()])
        bottom = np.zeros(len(shares))
        for index, (label, colour) in enumerate(GROUPS):
            axes.bar(range(len(shares)), shares[:, index], 0.85, bottom=bottom, label=label, color=colour)
            bottom += shares[:, index]
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(0, 1)
        axes.set_ylabel("channels")
        axes.set_title(title)
        _layer_axis(axes, list(spec.layers))
        figure.legend(loc="outside right center", title="pixels a decision")
        return _svg(figure)


def _group(patches: np.ndarray) -> np.ndarray:
    pixels = patches.prod(axis=1)
    sizes = 2 + np.searchsorted([1, 4, 16, 64], pixels)
    return np.where(pixels > 0, sizes, np.where(patches[:, 0] == 1, 0, 1))


def curves(  # noqa: PLR0913 - how each axis is drawn, given by name
    series: Sequence[Points],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    percent_x: bool = False,
    percent_y: bool = False,
    bytes_x: bool = False,
) -> str:
    """Series over a common axis."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_WIDTH, 4.2)
        for index, points in enumerate(series):
            colour = COLOURS[index % len(COLOURS)]
            form: dict[str, Any] = (
                {"marker": "o", "markersize": 4} if points.line else {"marker": "D", "markersize": 8, "linestyle": "none", "zorder": 3}
            )
            axes.plot(points.x, points.y, color=colour, label=points.label, linewidth=1.2, **form)
            if points.spread is not None:
                axes.vlines(points.x, *points.spread, color=colour, linewidth=1)
        if log_x:
            # Often less than a decade, so more than powers of ten are labelled.
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if log_y:
            axes.set_yscale("log")
        if percent_x:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        if percent_y:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if bytes_x:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: megabytes(value)))
        axes.grid(alpha=0.3)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title)
        figure.legend(loc="outside right center")
        return _svg(figure)


def megabytes(count: float) -> str:
    """Bytes for people: '18.3 MB'."""
    return f"{count / 1e6:.3g} MB" if count < 1e9 else f"{count / 1e9:.3g} GB"
