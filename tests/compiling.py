"""The tests that need no kernels go first, while a process of its own compiles the kernels: after a change of them that takes minutes.

Then come those of kernels, protocols and plans, within one process: many of the kernels that they need are needed nowhere else, and what is not
there yet they compile themselves. All others wait until everything is there: their parties would each compile the same, and not answer meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEED_NONE = (
    "tests/benchmarks/test_fuzz.py",
    "tests/deploy/",
    "tests/generated/",
    "tests/graph/",
    "tests/images/",
    "tests/launch/test_launch.py",
    "tests/mmlab/",
    "tests/model/test_load.py",
    "tests/model/test_packages.py",
    "tests/mutations/",
    "tests/reduction/",
    "tests/test_console.py",
    "tests/test_docs.py",
    "tests/test_errors.py",
    "tests/test_files.py",
    "tests/test_house.py",
    "tests/test_site.py",
    "tests/transport/",
)
"""Where no test compiles a kernel."""
COMPILE_THEMSELVES = ("tests/benchmarks/test_kernels.py", "tests/kernels/", "tests/plan/", "tests/protocol/")
"""Where tests may find kernels missing."""


def compiled_here() -> list[str]:
    """The kernels that this process has compiled or loaded."""
    modules = [(name, module) for name, module in list(sys.modules.items()) if name.startswith("threepc.kernels.")]
    return [f"{name}.{each}" for name, module in modules for each, kernel in vars(module).items() if getattr(kernel, "signatures", None)]


def turn(item: pytest.Item) -> int:
    """0 where a test needs no kernels, 1 where it may find some missing, 2 where all have to be there."""
    return 0 if item.nodeid.startswith(NEED_NONE) else 1 if item.nodeid.startswith(COMPILE_THEMSELVES) else 2


class CompilingAhead:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._none_needed = True
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the run ends

    def pytest_configure(self, config: pytest.Config) -> None:
        """Begin, before the tests are looked up, where all run: those that are asked for by name may need no kernels."""
        everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if everything and not config.option.collectonly and not config.option.keyword:
            command = [sys.executable, "-m", "threepc", "compile"]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said)
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """By their turn, and else in their order."""
        if self._process is not None:
            items.sort(key=turn)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Wait, before the first test for which all kernels have to be there."""
        if self._process is None or not (now := turn(item)):
            return
        if self._none_needed:
            self._none_needed = False
            assert not compiled_here(), "tests that are said to need no kernels, in tests/compiling.py, took some"
        if now > 1:
            process, self._process = self._process, None
            status = process.wait()
            self._said.seek(0)
            assert status == 0, self._said.read().decode()

    def pytest_unconfigure(self) -> None:
        """A run that ends early leaves nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._said.close()
