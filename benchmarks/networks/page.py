"""docs/networks.md, written from the results: nothing in it is typed by hand but the sentences between the tables."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.networks.catalogue import CANDIDATES, Candidate
from benchmarks.networks.trial import PRECISION
from benchmarks.store import Entry

RINGS = tuple(PRECISION)
SOURCES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "mmcls": "mmcls 0.25",
    "mmseg": "mmsegmentation 0.30",
    "benchmarks.networks.mtcnn": "MTCNN",
    "onnx": "ONNX files",
}
HEAD = """\
# Networks

One network of every family, as `python -m benchmarks.networks` tried it: random weights (seeded) with batch norms that know the statistics of
random images, one artificial image, the three parties as threads of one process. The scales were chosen with six other artificial images.

**Error** is the largest difference to plaintext PyTorch, as a part of the largest logit. **Class** is the part of the places whose class is
plaintext's, where plaintext's margin exceeds {precisions}. Where threepc told before the run that results would be off by more than that, the error
stands in brackets; what it expects to be off by more than 10 % it refuses, unless that is allowed, as it was here. Seconds are of several days,
on machines that did other work beside; megabytes are of both phases over all links, without the masked weights that a session needs once.
32-bit columns of some classifiers are from before their last average lost its truncation: where their error is below 1.5 %, it may be up to twice as
large now.
"""
REFUSED = """\
## What is refused

Each network with all that stands in its way, as threepc says it, before a byte is sent.

- **Softmax over more than two numbers.** Of the parts that it needs threepc has all but one: a maximum, exponentials (ELU and 1), a sum, products. A
  table of the sum's reciprocal is exact enough for some thirty summands. Attention sums over thousands of positions, whose shares are then smaller than
  the error of each, two units of the last place: their weighted sum would be off by several percent at 48 bits, and means nothing at 32.
- **Norms that divide** (layer norm, group norm, L2). They divide by a root of a variance that each image has of its own, over several powers of ten. A table of
  that is exact enough over a range of about sixteen, and an image outside of the range would be wrong without a word.
- **Functions that jump** (hardshrink, most thresholds): a decision on a rounded number cannot be right next to the jump.

What each network needs:
"""


def text(entries: dict[str, Entry]) -> str:
    """The whole page. entries: what `trial.run` gave, by CONFIG."""
    done = [(candidate, entries[candidate.config]) for candidate in CANDIDATES if candidate.config in entries]
    running = [pair for pair in done if "refused" not in pair[1] and "failed" not in pair[1]]
    precisions = " or ".join(f"{100 * precision:g} % in {ring} bits" for ring, precision in PRECISION.items())
    parts = [HEAD.format(precisions=precisions), f"{len(running)} of {len(done)} networks run.\n"]
    for source, title in SOURCES.items():
        rows = [_row(candidate, entry) for candidate, entry in running if candidate.source == source]
        if rows:
            parts += [f"## {title}\n", _table(rows)]
    refused = [pair for pair in done if pair not in running]
    if refused:
        parts += [REFUSED, "\n".join(_refusal(candidate, entry) for candidate, entry in refused) + "\n"]
    for ring in RINGS:
        small = [f"- `{c.config}`: {'; '.join(e[str(ring)]['refused'])}" for c, e in running if "refused" in e.get(str(ring), {})]
        if small:
            parts += [f"## What a ring of {ring} bits cannot hold\n", "\n".join(small) + "\n"]
    waiting = [f"`{candidate.config}`" for candidate in CANDIDATES if candidate.config not in entries]
    if waiting:
        parts += ["## Not tried yet\n", ", ".join(waiting) + "\n"]
    return "\n".join(parts)


def _table(rows: Iterable[list[str]]) -> str:
    head = ["network", "input", "messages"]
    for ring in RINGS:
        head += [f"{ring} bits: error", "class", "s", "MB"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(candidate: Candidate, entry: Entry) -> list[str]:
    cells = [f"`{candidate.title}`", "x".join(map(str, entry["input"])), str(entry.get(str(RINGS[0]), {}).get("messages", ""))]
    for ring in RINGS:
        result = entry.get(str(ring))
        if result is None or "refused" in result:
            cells += ["refused" if result else "", "", "", ""]
        else:
            error = f"{100 * result['error']:.2g} %"
            cells += [
                f"({error})" if result.get("told") else error,
                f"{100 * result['argmax']:.4g} %",
                f"{result['seconds']:.2g}",
                _megabytes(result),
            ]
    return cells


def _megabytes(result: Entry) -> str:
    size = result["bytes"] / 1e6
    return f"{size:.1f}" if size < 100 else f"{size:.0f}"


def _refusal(candidate: Candidate, entry: Entry) -> str:
    told = [str(entry["failed"])] if "failed" in entry else [_without_the_supported(line) for line in entry["refused"]]
    reasons = "; ".join(told[1:] or told)
    return f"- `{candidate.config}`: {reasons}"


def _without_the_supported(line: str) -> str:
    """A refusal ends with the list of all that is supported, which is the same for all."""
    return line.partition("; supported: ")[0]
