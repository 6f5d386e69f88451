"""The commands of docs/tutorial.md do what the page says, one after the other, as they are written there."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- tested(, goes on|: [\w.]+|) -->\n```(\w+)\n(.*?)```", re.DOTALL)
ENDS_WITHIN_S = 300


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder as the checkout is to the reader: with the examples, and a `threepc` and a `python` of this environment."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, command in (("threepc", "-m threepc "), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {command}"$@"\n')
        (tools / name).chmod(0o755)
    return tmp_path


def take_free_ports(deployment: Path) -> None:
    """Other programs may use the ports of the page."""
    text = deployment.read_text()
    with socket.socket() as one, socket.socket() as two:
        for taken, port in ((one, "7001"), (two, "7002")):
            taken.bind(("127.0.0.1", 0))
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{taken.getsockname()[1]}")
    deployment.write_text(text)


def test_the_commands_of_the_tutorial(folder):
    blocks = BLOCK.findall((REPOSITORY / "docs/tutorial.md").read_text())
    environment = os.environ | {
        "PATH": f"{folder / 'tools'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "THREEPC_WEIGHTS": str(folder / "weights"),
    }
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options = {"cwd": folder, "env": environment, "text": True, **streams}
    said, going_on = [], []
    try:
        for how, language, text in blocks:
            if how.startswith(":"):
                (folder / how[2:]).write_text(text)
            elif how:
                going_on.append(subprocess.Popen(["bash", "-ec", f"exec {text}"], **options))
            else:
                assert language == "bash"
                done = subprocess.run(["bash", "-ec", text], **options, timeout=ENDS_WITHIN_S)
                assert done.returncode == 0, f"{text}{done.stdout}"
                said.append(done.stdout)
                if "keygen" in text:
                    take_free_ports(folder / "keys/deployment.yaml")
    finally:
        for party in going_on:
            party.send_signal(signal.SIGTERM)  # a background job, as tests may be, hears no SIGINT
        told = [party.communicate(timeout=ENDS_WITHIN_S)[0] for party in going_on]
    first, own, local, keys, _, answer = said
    assert re.search(r"^digit_3\.png +3 +3 ", first, re.MULTILINE) and "Same argmax as plaintext" in first
    assert "random" not in first and "Same argmax as plaintext" in own
    assert float(local.split(":")[1]) < 0.01
    assert "wrote keys/deployment.yaml" in keys
    assert json.loads((folder / "second.json").read_text())["images"] == json.loads((folder / "first.json").read_text())["images"] == 1
    second = json.loads((folder / "second.json").read_text())["results"][0]
    assert re.fullmatch(r"\[\d\]", answer.split("\n")[-2]) and int(answer.split("\n")[-2][1]) == second["label"]
    assert [party.returncode for party in going_on] == [0, 0], told
    assert all("session" in text and "image" in text for text in told)
