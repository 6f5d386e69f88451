"""What `threepc run` and `threepc client` print of their outcome."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table

from threepc.console import MOST_ROWS, links_table, megabytes, new_table, paths_line, print_table, say
from threepc.tasks import results
from threepc.tasks.results import Outcome
from threepc.tasks.several import named

if TYPE_CHECKING:
    from threepc.party.debug import Trace


def show(outcome: Outcome, way: str = "secure", by_server: bool = False) -> None:
    """Print the results, the seconds, the megabytes and the difference to plaintext.

    way: what the outputs are called. by_server: the error to expect is what a server says of its model; otherwise it was printed before.
    """
    say()
    print_table(_outputs(outcome, way) if outcome.is_several else _segmentations(outcome) if outcome.is_map else _classes(outcome, way))
    if len(outcome.inputs.names) > MOST_ROWS:
        say(f"... and {len(outcome.inputs.names) - MOST_ROWS} more: --report and --output write them all")
    say()
    if "links" in outcome.report:
        print_table(_figures(outcome.report))
    for line in [*remarks(outcome.report), *([_expectation(outcome)] if by_server and outcome.card.expected_error is not None else [])]:
        say(line)
    if "links" in outcome.report:
        say()
        print_table(links_table(outcome.report["links"]))
    if outcome.outside:
        say()
        _show_outside(outcome)
    if outcome.trace is not None:
        say()
        _show_layers(outcome.trace, outcome.every_layer)
    if outcome.written:
        say()
        say(paths_line(outcome.written))


def _expectation(outcome: Outcome) -> str:
    """What the server says of the results' error."""
    card = outcome.card
    return f"Error to expect, says the server: {card.expected_error:.2%} of the largest result, on {card.expected_images or 'images of its own'}."


def _show_outside(outcome: Outcome) -> None:
    """How many values of each layer its ring or gate cannot hold, for all images."""
    table = new_table("layer", "values out of range", right=("values out of range",))
    for name, count in outcome.outside.items():
        table.add_row(name, f"{count:,}")
    print_table(table)


FEW_LAYERS = 10
"""Layers that are shown unless all are asked for: those that lose most."""


def _show_layers(trace: Trace, every: bool) -> None:
    """The layers' differences, in the network's order, the first that is more than rounding, and the one that loses most."""
    chosen = trace.rows if every else sorted(trace.rows, key=lambda row: -row.lost)[:FEW_LAYERS]
    left_out = len(trace.rows) - len(chosen)
    right = ("largest", "diff", "expected", "off", "spare")
    table = new_table("layer", "kind", *right, right=right)
    for row in (row for row in trace.rows if row in chosen):
        differences = ["" if number is None else f"{number:.2g}" for number in (row.clear_error, row.expected)]
        spare = f"{row.room:.1f}" if math.isfinite(row.room) else ""
        table.add_row(row.name if row.ok else f"* {row.name}", row.kind, f"{row.largest:.3g}", *differences, str(row.error), spare)
    print_table(table)
    if left_out:
        say(f"These lose most; {left_out} more layers: --layers shows all.")
    say("diff: to the real numbers, in this run; expected: of its cleartext twin; off: units of the last place that the step is off")
    say("on its own inputs; spare: bits between the largest value and what the ring holds")
    fault = trace.first_fault
    if fault is None:
        say("Every layer computes what its fixed-point arithmetic says.")
    else:
        say(f"First layer that differs by more than its rounding: {fault.name} (all such layers: *).")
    worst = trace.worst
    say(f"Layer that loses most against the real numbers: {worst.name}, {worst.lost:.3%} of its largest value.")


def _classes(outcome: Outcome, way: str) -> Table:
    card, inputs, comparison = outcome.card, outcome.inputs, outcome.comparison
    errors = comparison.errors if comparison else None
    columns = ["image", way] + ["plaintext"] * bool(comparison) + ["truth"] * bool(inputs.truths) + ["difference"] * (errors is not None)
    table = new_table(*columns, right=("difference",))
    found = outcome.classes
    for index in range(min(len(inputs.names), MOST_ROWS)):
        row = [inputs.names[index], _text(outcome, found[index])]
        row += [_text(outcome, comparison.classes[index])] if comparison else []
        row += [results.class_text(card, inputs.truths[index])] if inputs.truths else []
        row += [f"{errors[index]:.2g}"] if errors is not None else []
        table.add_row(*row)
    return table


def _outputs(outcome: Outcome, way: str) -> Table:
    """A row for each of several outputs of each image."""
    comparison = outcome.comparison
    columns = ["image", "output", way] + ["plaintext", "difference"] * bool(comparison)
    table = new_table(*columns, right=("difference",))
    for index in range(min(len(outcome.inputs.names), MOST_ROWS)):
        for place, one in enumerate(named(outcome.model, outcome.outputs)):
            row = [outcome.inputs.names[index] if not place else "", one.name]
            row += [
                _text(outcome, one.classes[index])
                if one.says_class or one.labels
                else f"{'x'.join(map(str, one.values.shape[1:]))} numbers"
            ]
            if comparison:
                part = comparison.parts[place]
                row += [_text(outcome, part.classes[index])] if one.says_class or one.labels else [""]
                row += ["" if part.errors is None else f"{part.errors[index]:.2g}"]
            table.add_row(*row)
    return table


def _text(outcome: Outcome, found: Any) -> str:
    """What was found of one image: a class, classes, or a map of them."""
    if found.ndim == 0:
        return results.class_text(outcome.card, int(found))
    if found.dtype == bool:
        return ", ".join(results.class_text(outcome.card, index) for index, chosen in enumerate(found.tolist()) if chosen) or "none"
    return f"a map of {'x'.join(map(str, found.shape))}"


def _segmentations(outcome: Outcome) -> Table:
    inputs, comparison = outcome.inputs, outcome.comparison
    errors = comparison.errors if comparison else None
    columns = ["image", "largest classes"] + ["as plaintext"] * bool(comparison) + ["difference"] * (errors is not None)
    table = new_table(*columns, right=("as plaintext", "difference"))
    for index in range(min(len(inputs.names), MOST_ROWS)):
        _, labels = results.pixel_classes(outcome, index)
        row = [inputs.names[index], results.largest_classes(labels, outcome.card)]
        row += [f"{comparison.agreement[index]:.2%}"] if comparison else []
        row += [f"{errors[index]:.2g}"] if errors is not None else []
        table.add_row(*row)
    return table


def _figures(report: dict[str, Any]) -> Table:
    phases = ("offline", "online", "total", "setup")
    table = new_table("", *phases[:3], "setup, once", right=(*phases, "setup, once"), words=("",))
    table.add_row("seconds", *(f"{report['seconds'][phase]:.2f}" for phase in phases))
    table.add_row("megabytes", *(megabytes(report["bytes"][phase]) for phase in phases))
    return table


def remarks(report: dict[str, Any]) -> list[str]:
    """What else there is to say, a line each."""
    lines = []
    if "incomplete" in report:
        lines.append(f"The figures lack what a party did not say any more: {report['incomplete']}.")
    if report.get("phases") == "overlapped":
        lines.append("The offline phase runs ahead of the online one, so the total is less than their sum.")
    if "max_abs_error" in report:
        relative = report["max_abs_error"] / report["max_abs_plain"] if report["max_abs_plain"] else 0.0
        worst, largest = report["max_abs_error"], report["max_abs_plain"]
        lines.append(f"Worst difference to plaintext: {worst:.2g}, {relative:.3%} of the largest logit ({largest:.4g}).")
    if "plain_seconds" in report:
        same = "everywhere" if report["argmax_equal"] else f"in {report['argmax_agreement']:.3%}"
        lines.append(f"Same argmax as plaintext: {same}. Plaintext PyTorch took {report['plain_seconds']:.2f} s.")
    if "accuracy" in report:
        lines.append(f"Classified as labelled: {report['accuracy']:.1%} of {report['images']} images.")
    return lines
