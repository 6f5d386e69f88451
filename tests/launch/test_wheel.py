"""The wheel: what is in it, what pip fetches beside it, and a client that runs from it where nothing else of threepc is.

The client's environment holds the wheel and, linked from the environment of the tests, the packages that the wheel asks for and all that these
ask for: so torch is really absent, and a requirement that setup.cfg forgot is, too.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, distributions
from pathlib import Path

import cv2
import numpy as np
import pytest
from numba.core.caching import _CacheLocator
from packaging.requirements import Requirement

from tests.end_to_end.conftest import FACTORIES
from tests.end_to_end.processes import REPOSITORY, Running, write_deployment
from threepc.kernels.options import cache_directory
from threepc.party.warmup import warm_up
from threepc.plan.precision import Precision

LARGEST_WHEEL = 3 * 10**6
PYTHONS = ("3.11", "3.12", "3.13")
NO_INDEX = "(from versions: none)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of what it is built from."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "threepc", source / "threepc", ignore=shutil.ignore_patterns("__pycache__"))
    pip(["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(source / "dist"), str(source)])
    (built,) = (source / "dist").glob("*.whl")
    return built


def pip(words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if NO_INDEX in done.stderr:
        pytest.skip("no package index answers here")
    assert done.returncode == 0, done.stderr
    return done


def needed(requirements: list[str], found: dict[str, Requirement] | None = None) -> Iterator[str]:
    """The packages of the base and all that they ask for, by the name of their distributions."""
    found = {} if found is None else found
    for text in requirements:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name.lower() not in found:
            found[requirement.name.lower()] = requirement
            yield requirement.name
            yield from needed(distribution(requirement.name).requires or [], found)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """bin/ of an environment with the wheel and what it asks for."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    pip(["--python", str(environment / "bin" / "python"), "install", "--no-deps", "--no-compile", str(wheel)])
    (own,) = distributions(name="threepc", path=[str(site)])
    for name in needed(own.requires):
        for file in {file.parts[0] for file in distribution(name).files if file.parts[0] not in ("..", "__pycache__")}:
            if not (site / file).exists():
                (site / file).symlink_to(distribution(name).locate_file(file))
    _share_kernels(site / "threepc" / "kernels", environment / "cache")
    return environment / "bin"


def _share_kernels(folder: Path, cache: Path) -> None:
    """Let what is compiled for the tests count in a cache of the wheel's, or each run would compile for minutes.

    numba knows a kernel by folder, time and size of its source; the sources are the same, and only the wheel's own code is ever run.
    """
    warm_up(Precision.default(48))
    place = lambda path: _CacheLocator.get_suitable_cache_subpath(str(path / "gate.py"))
    known, mine = Path(cache_directory()), REPOSITORY / "threepc" / "kernels"
    shutil.copytree(known / place(mine), cache / known.name / place(folder))
    for path in (cache, cache / known.name):
        path.chmod(0o700)
    for source in mine.glob("*.py"):
        times = source.stat()
        os.utime(folder / source.name, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_wheel_is_small_and_holds_the_package_alone(wheel):
    assert wheel.stat().st_size <= LARGEST_WHEEL
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "threepc").rglob("*")
        if path.suffix in (".py", ".json", ".pth", ".png", ".html", ".typed")
    }
    assert sources <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"threepc"}
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.parametrize("version", PYTHONS)
def test_pip_finds_the_base_for_every_python(wheel, tmp_path, version):
    """Wheels for all of it, and no torch."""
    where = [
        "--retries",
        "1",
        "--timeout",
        "10",
        "--python-version",
        version,
        "--only-binary=:all:",
        "--target",
        str(tmp_path),
        "--report",
        str(tmp_path / "r.json"),
    ]
    pip(["install", "--dry-run", "--ignore-installed", *where, str(wheel)])
    names = {item["metadata"]["name"].lower() for item in json.loads((tmp_path / "r.json").read_text())["install"]}
    assert {"threepc", "numpy", "numba", "pyzmq"} <= names and not names & {"torch", "mmcls", "scipy", "matplotlib"}


def test_a_client_from_the_wheel(installed, tmp_path):
    """In an environment without torch it asks a server and a provider of the source tree, by the command and from Python."""
    path = write_deployment(tmp_path / "keys")
    (tmp_path / "factories.py").write_text(FACTORIES)
    cv2.imwrite(str(tmp_path / "one.png"), np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8))

    def run(program: str, *words: str, status: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["THREEPC_CACHE"] = str(installed.parent / "cache")
        done = subprocess.run([installed / program, *words], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "No module named 'torch'" in run("python", "-c", "import torch", status=1)
    assert run("python", "-c", "import threepc; print(threepc.__file__)").startswith(str(installed.parent))
    assert "pip install 'threepc[server]'" in run("threepc", "run", "factories:small", "--input", "one.png", status=2)
    parties = [
        Running(words, tmp_path)
        for words in (["provider", "--deployment", str(path)], ["server", "factories:small", "--deployment", str(path)])
    ]
    try:
        for party in parties:
            party.wait_for("listens at")
        shown = run("threepc", "client", "--deployment", str(path), "--input", "one.png", "--report", "r.json")
        (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
        assert result["class"] in ("ant", "bee", "cow", "dog") and result["class"] in shown
        program = f"import threepc; print(int(threepc.Client({str(path)!r}).predict('one.png').argmax()))"
        assert int(run("python", "-c", program)) == result["label"]
    finally:
        for party in parties:
            party.stop()
