"""What people see in a terminal: progress on standard error, tables on standard output."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

QUIET_S, MOST_QUIET_S = 2.0, 60.0
MOST_ROWS = 100
PIPE_WIDTH = 200
LEAST_WIDTH = 80


class Display:
    """Progress for whoever waits. Without a terminal: a line for what takes longer than two seconds, and then ever more rarely how far it is."""

    def __init__(self, console: Console | None = None, *, notes_apart: bool = False) -> None:
        """notes_apart: notes go to standard error too, where a program reads standard output."""
        self.console, self._notes_apart = console or Console(stderr=True, highlight=False), notes_apart

    def note(self, text: str) -> None:
        """Something worth knowing before the result, on standard output."""
        if self._notes_apart:
            self.console.print(text, markup=False, soft_wrap=True)
        else:
            say(text)

    def warn(self, text: str) -> None:
        """Something that must not be overlooked, on standard error."""
        self.console.print(text, style="bold red", markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """While something takes long; the function that it gives tells a detail."""
        if not self.console.is_terminal:
            with _Lines(self.console, name) as lines:
                yield lines.tell
            return
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name)
            yield lambda detail: progress.update(task, description=f"{name}: {detail}")

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """While `total` things are done; the function that it gives counts some of them."""
        if not self.console.is_terminal:
            with _Lines(self.console, name) as lines:
                yield lambda count: lines.count(count, total)
            return
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=total)
            yield lambda count: progress.advance(task, count)


class _Lines:
    """Lines about one thing that takes long. The first is said after QUIET_S even if nothing is told until then; pauses grow to MOST_QUIET_S."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name, self._pause, self._done = console, name, QUIET_S, 0
        self._next = time.monotonic() + QUIET_S
        self._first = threading.Timer(QUIET_S, self._say, [f"{name} ..."])
        self._first.daemon = True

    def __enter__(self) -> Self:
        self._first.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._first.cancel()

    def tell(self, text: str) -> None:
        """Say it, unless something was said a moment ago."""
        if time.monotonic() >= self._next:
            self._first.cancel()
            self._pause = min(2 * self._pause, MOST_QUIET_S)
            self._next = time.monotonic() + self._pause
            self._say(f"{self._name}: {text}")

    def count(self, more: int, total: int) -> None:
        """So many more are done."""
        self._done += more
        self.tell(f"{self._done:,} of {total:,}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def say(text: str = "") -> None:
    """A line, or several, on standard output."""
    print(text, flush=True)  # noqa: T201 - the one place that prints


@contextmanager
def printing_apart(apart: bool) -> Iterator[None]:
    """While it lasts, what anybody prints goes to standard error, where `apart`: a network's own code may print, and a program reads standard output."""
    with redirect_stdout(sys.stderr) if apart else nullcontext():
        yield


def say_json(value: object) -> None:
    """For programs, on standard output."""
    say(json.dumps(value, indent=1, allow_nan=False))


def new_table(*columns: str, right: Sequence[str] = (), words: Sequence[str] = ()) -> Table:
    """A table in the style of all of them; `right` names the columns of numbers, `words` those of single words. Other texts are folded where it is too wide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in (*right, *words))
    return table


def print_table(table: Table) -> None:
    """On standard output; into a file or a pipe with lines as long as they need to be, and with all of LEAST_WIDTH where words do not fit a terminal."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    # what looks like markup in a cell is a name that somebody chose
    console = Console(highlight=False, width=width, markup=False, emoji=False)
    if console.width < min(console.measure(table, options=console.options.update(max_width=LEAST_WIDTH)).minimum, LEAST_WIDTH):
        # the terminal wraps such lines; rich would leave out columns, the names of rows first
        console = Console(highlight=False, width=LEAST_WIDTH, markup=False, emoji=False)
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
