"""A table of results, for a terminal and for Markdown, and how numbers are written in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.store import Entry


@dataclass(frozen=True)
class Sheet:
    """A table: title, column names of which `text` are left-justified, rows of text, and lines below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    text: int = 1

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, caption_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index < self.text else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        table.caption = "\n".join(self.notes) or None
        return table

    def markdown(self) -> str:
        """For a file, with a heading of the third level."""
        rule = ["---" if index < self.text else "---:" for index in range(len(self.columns))]
        lines = [f"### {self.title}", ""] + ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])


def in_seconds(seconds: float | None) -> str:
    """A time, in milliseconds below one second."""
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def spread_of(value: Entry | None) -> str:
    """Median, least and largest of `store.spread`."""
    return "" if value is None else f"{in_seconds(value['median'])} ({in_seconds(value['min'])} to {in_seconds(value['max'])})"


def megabytes(count: float) -> str:
    """Bytes as megabytes."""
    return f"{count / 1e6:,.1f}"
