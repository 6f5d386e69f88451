"""The examples of launch/three_hosts and of the README."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from threepc.party.deployment import load
from threepc.party.keygen import generate

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "launch" / "three_hosts"


def test_the_example_deployment_is_valid(tmp_path):
    generate(tmp_path)
    shutil.copy(EXAMPLES / "deployment.yaml", tmp_path)
    deployment = load(tmp_path / "deployment.yaml")
    assert deployment.server.address == "tcp://192.0.2.10:7001" and deployment.server.listen == "tcp://0.0.0.0:7001"
    assert [deployment.key_pair(name).public for name in ("server", "provider", "client")] == [
        deployment.server.public_key,
        deployment.provider.public_key,
        *deployment.clients.values(),
    ]


@pytest.mark.parametrize("role, words", [("provider", []), ("server", ["mmcls:x", "x.pth"]), ("client", ["--input", "a photo.jpg"])])
def test_a_script_sets_up_and_starts_its_party(tmp_path, role, words):
    root = tmp_path / "a copy"
    shutil.copytree(EXAMPLES, root / "launch" / "three_hosts")
    (root / ".venv" / "bin").mkdir(parents=True)
    for path, program in ((root / "launch" / "setup.sh", "echo set up"), (root / ".venv" / "bin" / "threepc", 'printf "%s\\n" "$@"')):
        path.write_text(f"#!/bin/bash\n{program}\n")
        path.chmod(0o755)
    script = root / "launch" / "three_hosts" / f"{role}.sh"
    done = subprocess.run([script, "my keys", *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines() == ["set up", role, "--deployment", "my keys", *words]
    without_keys = subprocess.run([script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert without_keys.returncode != 0 and "which folder holds the keys?" in without_keys.stderr


def test_the_readme_example_runs(tmp_path):
    (program,) = [p for p in re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL) if "threepc.local" in p]
    local = program[: program.index("logits = threepc.Client")]
    done = subprocess.run(
        [sys.executable, "-c", local], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'setup': ")
