"""Notebooks without Jupyter: their cells one after the other, as plain Python."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any


def code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that are code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: dict[str, Any], **instead: str) -> Iterator[str]:
    """What each cell prints, all in one namespace; magics are no Python and fail. instead: words of the cells, to be read as others."""
    names: dict[str, Any] = {}
    for cell in code(notebook):
        source = "".join(cell["source"])
        for word, other in instead.items():
            source = source.replace(word.removeprefix("_"), other)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(source, cell["id"], "exec"), names)
        yield said.getvalue()
