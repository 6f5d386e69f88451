"""What `threepc run` prints of its outcome."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from . import results
from .console import MOST_ROWS, links_table, megabytes, new_table, paths_line
from .run import Outcome


def show(outcome: Outcome) -> None:
    """Print the results, the seconds, the megabytes and the difference to plaintext."""
    console = Console(highlight=False)
    maps = results.is_map(outcome.outputs, outcome.loaded.card)
    console.print(_segmentations(outcome) if maps else _classes(outcome))
    hidden = len(outcome.inputs) - MOST_ROWS
    if hidden > 0:
        console.print(f"... and {hidden} more: --report and --output write them all", markup=False)
    console.print()
    for line in summary(outcome.report):
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    console.print(links_table(outcome.report["links"]))
    if outcome.written:
        console.print(paths_line(outcome.written), markup=False, soft_wrap=True)


def _classes(outcome: Outcome) -> Table:
    card, inputs, comparison = outcome.loaded.card, outcome.inputs, outcome.comparison
    columns = ["image", "secure"]
    columns += ["plaintext"] if comparison else []
    columns += ["truth"] if inputs.truths else []
    columns += ["difference"] if comparison else []
    table = new_table(*columns, right=("difference",))
    for index in range(min(len(inputs), MOST_ROWS)):
        row = [inputs.names[index], _class(outcome, outcome.outputs[index])]
        row += [_class(outcome, comparison.plain[index])] if comparison else []
        row += [results.class_text(card, inputs.truths[index])] if inputs.truths else []
        row += [f"{comparison.errors[index]:.2g}"] if comparison else []
        table.add_row(*row)
    return table


def _class(outcome: Outcome, output) -> str:
    if output.ndim > 1:
        return f"{'x'.join(map(str, output.shape))} numbers"
    return results.class_text(outcome.loaded.card, int(output.argmax()))


def _segmentations(outcome: Outcome) -> Table:
    card, inputs, comparison = outcome.loaded.card, outcome.inputs, outcome.comparison
    columns = ["image", "largest classes", *(["equal to plaintext", "difference"] if comparison else [])]
    table = new_table(*columns, right=("equal to plaintext", "difference"))
    for index in range(min(len(inputs), MOST_ROWS)):
        _, labels = results.image_labels(inputs, index, outcome.outputs[index], card)
        row = [inputs.names[index], results.largest_classes(labels, card)]
        row += [f"{comparison.agreement[index]:.3%}", f"{comparison.errors[index]:.2g}"] if comparison else []
        table.add_row(*row)
    return table


def summary(report: dict) -> list[str]:
    """The report's main figures, a line each."""
    seconds, sizes = report["seconds"], report["bytes"]
    note = "the phases overlap" if report.get("phases") == "overlapped" else "one after the other"
    lines = [
        f"seconds     offline {seconds['offline']:.2f}   online {seconds['online']:.2f}   total {seconds['total']:.2f}   ({note}; setup, once: {seconds['setup']:.2f})",
        f"megabytes   offline {megabytes(sizes['offline'])}   online {megabytes(sizes['online'])}   total {megabytes(sizes['total'])}   (setup, once: {megabytes(sizes['setup'])})",
    ]
    if "max_abs_error" in report:
        relative = report["max_abs_error"] / report["max_abs_plain"] if report["max_abs_plain"] else 0.0
        lines.append(
            f"plaintext   worst difference {report['max_abs_error']:.2g}, {relative:.3%} of the largest logit; "
            f"PyTorch took {report['plain_seconds']:.2f} s"
        )
    if "accuracy" in report:
        lines.append(f"accuracy    {report['accuracy']:.1%} of {report['images']} images")
    return lines
