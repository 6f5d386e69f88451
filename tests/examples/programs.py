"""Programs of examples/, loaded as modules, so that a test pays for no interpreter."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def program(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program at a path below examples/; what it finds beside itself is found until the test ends."""
    file = EXAMPLES / path
    monkeypatch.setattr(sys, "path", [*sys.path, str(file.parent)])
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
