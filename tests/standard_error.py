"""What a command says on standard error: one line where it fails, and before it progress, which a slow machine has more of."""

import re
from collections.abc import Iterable

_PROGRESS = re.compile(r"[^:]+( \.\.\.|: .+)|connecting to .+: (waiting for|the server has this client wait) .+")


def failure(lines: Iterable[str]) -> str:
    """The one line that says what went wrong."""
    (line,) = (line for line in lines if line.startswith("threepc: ") or not _PROGRESS.fullmatch(line))
    assert line.startswith("threepc: "), line
    return line
