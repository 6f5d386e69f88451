"""The launch scripts, in a copy of the repository whose Python is a stand-in that writes down what it is asked to do.

What the real one installs is seen by every run of these tests: launch/test.sh makes the environment that they run in.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]

# Behaves as python3.11 and as .venv/bin/python: writes its arguments to $CALLS, makes environments that consist of itself, and "installs".
STAND_IN = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
    *version_info*) exit "${WRONG_VERSION:-0}" ;;
    *ensurepip*) exit "${NO_VENV:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "#!$3/bin/python" >"$3/bin/pip" ;;
    *install*"${FAILS:-nothing fails}"*) echo "ERROR: no such wheel"; exit 1 ;;
    *install*"${KILLED:-nothing is killed}"*) kill -KILL $$ ;;
    *install*) echo "Collecting something" ;;
    *"${BROKEN:-nothing is broken}"*) exit 1 ;;
esac
"""


@pytest.fixture
def copy(tmp_path):
    """A folder with the launch scripts and what they read, and a PATH on which the stand-in is the only Python."""
    root = tmp_path / "a copy"
    for folder in ("launch", ".ci"):
        shutil.copytree(REPOSITORY / folder, root / folder)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, root)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "sha256sum", "flock", "grep", "rm", "mkdir", "mv", "cp", "touch", "tee", "awk", "tail"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "python3.11").write_text(STAND_IN)
    (tools / "python3.11").chmod(0o755)
    return root


def run(copy, script="setup.sh", *arguments, cwd=None, **settings):
    environment = {"PATH": str(copy.parent / "tools"), "CALLS": str(copy.parent / "calls"), **settings}
    command = [copy / "launch" / script, *arguments]
    return subprocess.run(command, check=False, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)


def calls(copy):
    """What Python was asked since the last look, one line a call."""
    log = copy.parent / "calls"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def installs(copy):
    return [line.split("constraints.txt ")[1] for line in calls(copy) if "pip install" in line]


ALL_STEPS = [
    "setuptools wheel",
    "torch opencv-python-headless",
    "--no-build-isolation mmcv",
    "--no-build-isolation --editable {}[mmlab,test,dev]",
]


def test_setup_installs_in_order_and_then_rests(copy):
    result = run(copy)
    assert result.returncode == 0, result.stderr
    assert result.stderr == "" and result.stdout.endswith("setup: ready\n")
    assert installs(copy) == [step.format(copy) for step in ALL_STEPS]
    again = run(copy)
    assert (again.returncode, again.stdout, again.stderr, calls(copy)) == (0, "", "", [])


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml", "launch/constraints.txt", "launch/setup.sh"])
def test_a_changed_requirement_is_installed_into_the_same_environment(copy, name):
    run(copy)
    calls(copy)
    with (copy / name).open("a") as file:
        file.write("# changed\n")
    assert run(copy).returncode == 0
    made = calls(copy)
    assert sum("pip install" in line for line in made) == len(ALL_STEPS) and not any("-m venv" in line for line in made)


def test_a_failed_step_is_named_with_the_end_of_its_output_and_can_be_repeated(copy):
    result = run(copy, FAILS="mmcv")
    assert result.returncode == 1
    assert "setup: mmcv . failed" in result.stdout and "ready" not in result.stdout
    assert "ERROR: no such wheel" in result.stderr
    assert f'setup: the step "mmcv" failed (above: the end of {copy}/.venv/setup.log)' in result.stderr
    calls(copy)
    assert run(copy).returncode == 0
    assert not any("-m venv" in line for line in calls(copy))


def test_an_environment_in_which_pip_was_killed_is_made_anew(copy):
    assert run(copy, KILLED="torch").returncode == 1
    calls(copy)
    assert run(copy).returncode == 0
    assert any("-m venv" in line for line in calls(copy))


def test_a_moved_environment_is_made_anew(copy):
    run(copy)
    calls(copy)
    moved = copy.rename(copy.parent / "elsewhere")
    assert run(moved).returncode == 0
    assert f"-m venv {moved}/.venv" in calls(moved)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"WRONG_VERSION": "1"}, "setup: Python 3.11 not found; install it, or name it: PYTHON="),
        ({"NO_VENV": "1"}, "setup: python3.11 is Python 3.11 but lacks the venv module; install it"),
        ({"PYTHON": "/no/python"}, "setup: PYTHON=/no/python is not Python 3.11"),
    ],
)
def test_without_a_fitting_python_it_says_so(copy, settings, message):
    result = run(copy, **settings)
    assert result.returncode == 1 and result.stderr.startswith(message)
    assert not (copy / ".venv" / "setup.stamp").exists()


@pytest.fixture
def ready(copy):
    """A copy whose environment is complete, with a `threepc` that prints its arguments, one a line."""
    run(copy)
    calls(copy)
    threepc = copy / ".venv" / "bin" / "threepc"
    threepc.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    threepc.chmod(0o755)
    return copy


def test_local_3pc_passes_arguments_and_folder_on(ready, tmp_path):
    result = run(ready, "local_3pc.sh", "mmcls:x", "--input", "my photo.jpg", cwd=tmp_path)
    assert result.stdout.splitlines() == ["run", "mmcls:x", "--input", "my photo.jpg"]


def test_local_3pc_alone_is_threepc_run_alone(ready, tmp_path):
    assert run(ready, "local_3pc.sh", cwd=tmp_path).stdout.splitlines() == ["run"]


def test_test_sh_runs_pytest_in_the_repository(ready, tmp_path):
    assert run(ready, "test.sh", "tests/graph", "-k", "a b", cwd=tmp_path).returncode == 0
    assert calls(ready) == ["-m pytest tests/graph -k a b"]


CHECKS = ["-m ruff format --check .", "-m ruff check .", "-m mypy"]


@pytest.mark.parametrize("broken", ["nothing", *CHECKS])
def test_check_sh_makes_every_check_and_fails_with_any(ready, tmp_path, broken):
    result = run(ready, "check.sh", cwd=tmp_path, BROKEN=broken)
    assert calls(ready) == CHECKS and result.returncode == (broken in CHECKS)


@pytest.mark.parametrize("broken", ["nothing", "-m mypy", "-m pytest"])
def test_continuous_integration_makes_all_checks_and_runs_all_tests(ready, tmp_path, broken):
    result = run(ready, "../.ci/run", cwd=tmp_path, BROKEN=broken)
    assert calls(ready) == [*CHECKS, "-m pytest"] and result.returncode == (broken != "nothing")


def test_the_hook_before_a_commit_is_check_sh():
    ((repository,),) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text()).values()
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local" and (REPOSITORY / hook["entry"]).samefile(REPOSITORY / "launch" / "check.sh")
