"""What `threepc status` prints."""

from __future__ import annotations

from typing import Any

from threepc.console import new_table, print_table, say
from threepc.transport.framing import printable


def show(status: dict[str, Any]) -> None:
    """A row for each figure; what another process says is shown as text, whatever it is."""
    say(f"the {printable(str(status['role']))} is {printable(str(status['state']))}")
    table = new_table("figure", "value", right=("value",))
    for key, value in status.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        if key not in ("role", "state"):
            for name, part in parts:
                table.add_row(printable(f"{key} {name}".strip().replace("_", " ")), printable(str(part)))
    print_table(table)
