"""What people see in a terminal: progress on standard error, tables on standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

QUIET_S = 2.0
MOST_ROWS = 100
PIPE_WIDTH = 200


class Display:
    """Progress for whoever waits. Without a terminal: one line for each stage that takes longer than two seconds, and at times a detail."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Something worth knowing before the result, on standard output."""
        say(text)

    def warn(self, text: str) -> None:
        """Something that must not be overlooked, on standard error."""
        self.console.print(text, style="bold red", markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """While something takes long; the function that it gives tells a detail."""
        if not self.console.is_terminal:
            yield _Lines(self.console, name).detail
            return
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name)
            yield lambda detail: progress.update(task, description=f"{name}: {detail}")

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """While `total` things are done; the function that it gives counts some of them."""
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(name, total=total)
            yield lambda count: progress.advance(task, count)


class _Lines:
    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name, self._last = console, name, time.monotonic()

    def detail(self, text: str) -> None:
        """Say it, unless something was said a moment ago."""
        if time.monotonic() - self._last > QUIET_S:
            self._console.print(f"{self._name}: {text}", markup=False, soft_wrap=True)
            self._last = time.monotonic()


def say(text: str = "") -> None:
    """A line, or several, on standard output."""
    print(text, flush=True)  # noqa: T201 - the one place that prints


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table in the style of all of them; `right` names the columns of numbers. Texts are folded where it is too wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in right)
    return table


def print_table(table: Table) -> None:
    """On standard output; into a file or a pipe with lines as long as they need to be."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    # what looks like markup in a cell is a name that somebody chose
    console = Console(highlight=False, width=width, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    say("\n".join(line.rstrip() for line in capture.get().splitlines()))


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e6:,.2f}" if count < 100e6 else f"{count / 1e6:,.0f}"


def links_table(links: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    """The report's `links` in megabytes."""
    table = new_table(
        "link", "setup", "offline", "online", "total MB", "messages", right=("setup", "offline", "online", "total MB", "messages")
    )
    sums = dict.fromkeys(("setup", "offline", "online"), 0)
    messages = 0
    for link, phases in links.items():
        sizes = {phase: phases.get(phase, {}).get("bytes", 0) for phase in sums}
        online = phases.get("online", {}).get("messages", 0)
        sums = {phase: sums[phase] + size for phase, size in sizes.items()}
        messages += online
        table.add_row(link.replace("->", " -> "), *map(_size, sizes.values()), _size(sizes["offline"] + sizes["online"]), str(online or ""))
    table.add_row("all", *map(_size, sums.values()), _size(sums["offline"] + sums["online"]), str(messages))
    return table


def _size(count: int) -> str:
    return megabytes(count) if count else ""


def paths_line(paths: Sequence[Path]) -> str:
    """What was written, shortened where it is much."""
    shown = ", ".join(map(str, paths[:4]))
    return f"wrote {shown}" + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
