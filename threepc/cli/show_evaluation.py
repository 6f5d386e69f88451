"""What `threepc evaluate` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from threepc.console import new_table, print_table, say

_SCORES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top 5",
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
}


def show(summary: dict[str, Any], folder: Path) -> None:
    """A row for each way that images were evaluated, with plaintext's scores on the same images."""
    ways = summary["results"]
    scores = [score for score in _SCORES if any(score in way for way in ways.values())]
    columns = ["images", *(_SCORES[score] for score in scores), "as plaintext", "s/image"]
    table = new_table("", *columns, right=columns)
    for name, way in ways.items():
        agreement = f"{way['agreement']:.2%}" if "agreement" in way else ""
        table.add_row(name, str(way["images"]), *(_percent(way, score) for score in scores), agreement, f"{way['seconds_per_image']:.3f}")
        same = way.get("plaintext_on_the_same")
        if same is not None and way["images"] < summary["images"]:
            table.add_row("  plaintext on these", str(way["images"]), *(_percent(same, score) for score in scores), "", "")
    print_table(table)
    say()
    say(f"{summary['model']} on {summary['images']} of {summary['of']} images of {summary['dataset']}, {summary['ring_bits']}-bit ring")
    for name, way in ways.items():
        if "max_relative_error" in way:
            say(f"worst difference, {name}: {way['max_relative_error']:.3%} of an image's largest logit")
    say(f"wrote {folder / 'summary.json'}")


def _percent(way: dict[str, Any], score: str) -> str:
    return f"{way[score]:.2%}" if score in way else ""
