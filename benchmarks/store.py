"""Results as JSON: one file a section, one line a case, written anew after every case, so that an interrupted run keeps what it has."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from threepc.errors import InputError
from threepc.files import read_json, write_atomically

FOLDER = Path(__file__).parent / "results"

Entry = dict[str, Any]
"""What was measured of one case, or what a machine is: JSON-plain."""
Sections = dict[str, dict[str, Any]]
"""Name -> `section`, `machine` and `cases`, a list of entries."""


class Section:
    """The results of one section: the machine, and a list of cases, each a JSON-plain dictionary with a `case` that names it."""

    def __init__(self, folder: Path, name: str, machine: Entry, resume: bool = False) -> None:
        """resume: keep the cases of the file that is there, where they come from the same processor and commit."""
        self.path = folder / f"{name}.json"
        self.data: dict[str, Any] = {"section": name, "machine": machine, "cases": []}
        if resume and self.path.exists():
            before = read_json(self.path, "the results")
            if all(before["machine"].get(key) == machine.get(key) for key in ("processor", "cores", "commit")):
                self.data["cases"] = before["cases"]

    def has(self, case: str) -> bool:
        """Whether a case is there already."""
        return any(entry["case"] == case for entry in self.data["cases"])

    def add(self, entry: Entry) -> None:
        """Add a case, in the place of one of its name, and write the file."""
        kept = [case for case in self.data["cases"] if case["case"] != entry["case"]]
        self.data["cases"] = [*kept, entry]
        head = {key: value for key, value in self.data.items() if key != "cases"}
        cases = ",\n".join(json.dumps(case, allow_nan=False) for case in self.data["cases"])
        text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}") + f',\n "cases": [\n{cases}\n]}}\n'
        write_atomically(self.path, text.encode())


def load(folder: Path) -> Sections:
    """All sections of a folder by name. Raises InputError for a file that holds something else."""
    sections = {}
    for path in sorted(folder.glob("*.json")):
        try:
            data = read_json(path, "the results")
            sections[data["section"]] = data
        except (InputError, KeyError, TypeError):
            raise InputError(f"{path} holds no benchmark results: remove it") from None
    return sections


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, least, largest and number of several measurements."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values)}
