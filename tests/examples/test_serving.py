"""The serving notebook: its cells run, and print what it shows."""

import json
import socket

from tests.examples.notebooks import code, run
from tests.examples.programs import EXAMPLES


def test_the_notebook_s_cells_print_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("THREEPC_WEIGHTS", str(tmp_path / "weights"))
    notebook = json.loads((EXAMPLES / "serving" / "serving.ipynb").read_text())
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        ports = [str(free.getsockname()[1]) for free in (one, two)]
    shown = ["".join("".join(output["text"]) for output in cell["outputs"]) for cell in code(notebook)]
    printed = list(run(notebook, _7001=ports[0], _7002=ports[1]))
    for port, usual in zip(ports, ("7001", "7002"), strict=True):
        printed = [text.replace(port, usual) for text in printed]
    assert printed == shown
    assert [cell["execution_count"] for cell in code(notebook)] == list(range(1, len(shown) + 1))
