"""The five players as three processes from one configuration file, and in one process: the same answers."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from tests.examples.programs import EXAMPLES, program
from threepc.cli import main

REPOSITORY = Path(__file__).parents[2]
LINE = r"^image \d: says (\d), shows (\d), score (-?\d+\.\d+)$"


def test_three_processes_and_one_give_the_same_scores(tmp_path, monkeypatch):
    players = program("players/players.py", monkeypatch)
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        server, provider = (f"tcp://127.0.0.1:{free.getsockname()[1]}" for free in (one, two))
    assert main.status(["keygen", str(tmp_path / "keys"), "--server", server, "--provider", provider]) == 0
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "players/players.py"), "all", "--deployment", str(tmp_path / "keys"), "--images", "4"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "THREEPC_WEIGHTS": str(tmp_path / "weights")},
    )
    assert done.returncode == 0, done.stderr
    together = CliRunner().invoke(players.main, ["together", "--images", "4"], catch_exceptions=False).output
    apart, here = (re.findall(LINE, text, re.MULTILINE) for text in (done.stdout, together))
    assert len(apart) == len(here) == 4
    for (said, shown, score), (also_said, also_shown, also_score) in zip(apart, here, strict=True):
        assert (said, shown) == (also_said, also_shown) and abs(float(score) - float(also_score)) < 0.02
    assert sum(said == shown for said, shown, _ in apart) >= 3
