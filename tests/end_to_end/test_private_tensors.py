"""The job of docs/howto/private_tensors.md, taken from there, as four processes: three parties of a deployment and a data owner."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.processes import REPOSITORY, write_deployment
from threepc.errors import InputError, RunError
from threepc.tensors import Asking, trace

PAGE = (REPOSITORY / "docs/howto/private_tensors.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def start(folder: Path, role: str) -> subprocess.Popen[str]:
    """A party or the data owner; none of them may load torch."""
    (folder / "job.py").write_text(BLOCKS[1] + "\nassert 'torch' not in sys.modules\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "job.py", role, "keys"], cwd=folder, env=environment(), text=True, **pipes)


@pytest.fixture
def folder(tmp_path):
    """Where a provider and a server of the page's job run."""
    write_deployment(tmp_path / "keys")
    bank = start(tmp_path, "bank")
    assert bank.communicate(timeout=60)[0] == "" and bank.returncode == 0
    running = {role: start(tmp_path, role) for role in ("provider", "server")}
    for process in running.values():
        assert process.stdout.readline() == "Enter ends it\n"
    yield tmp_path, running
    for process in running.values():
        process.kill()
        process.communicate()


def test_the_job_of_the_page(folder):
    path, running = folder
    for _ in range(2):
        client = start(path, "client")
        said, _ = client.communicate(timeout=120)
        assert client.returncode == 0, said
        scores = [float(number) for number in re.findall(r"\d\.\d*", said)]
        assert scores == pytest.approx([1.5, 0.5] * 3, abs=1e-3)
    for role, process in running.items():
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(60)
        said = process.stdout.read()
        assert process.returncode == 0, said
        assert ("'total'" in said) == (role == "server")


def test_a_client_with_another_policy_or_another_job(folder):
    path, _ = folder
    scope = {"__name__": "job"}
    exec(BLOCKS[1].partition("role, keys")[0], scope)
    program = trace(scope["score"])
    with pytest.raises(InputError, match="policy: nothing called 'total' may be revealed, and the job reveals it to the server"):
        Asking(path / "keys", program, {"score": "client"})
    other = trace(lambda p: p.reveal(p.input("data", (2,), "client") * 2, "client", "score"))
    with pytest.raises((RunError, InputError), match="policy: nothing called 'total' may be revealed"):
        Asking(path / "keys", other, {"score": "client"})


def test_the_first_example_of_the_page():
    run = subprocess.run([sys.executable, "-c", BLOCKS[0]], env=environment(), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert [round(float(number)) for number in re.findall(r"[\d.]+", run.stdout)] == [1, 1] * 3
