"""Settings of all tests: one torch thread, hypothesis without deadlines, since a first call may compile a kernel, kernels ahead, and `--fast`."""

import os
import shutil
import tempfile

import hypothesis
import pytest
import torch

from tests.compiling import CompilingAhead

LEFT_OUT = {
    "tests/end_to_end/": "whole runs over three processes, and over hosts",
    "tests/launch/": "the launch scripts",
    "tests/benchmarks/": "the benchmarks",
    "tests/mmlab/test_build.py": "MMLab's own networks, in full size",
    "tests/mmlab/test_compat.py": "MMLab imported by processes of their own",
    "tests/mmlab/test_recipes.py": "the paper's networks, in full size",
    "tests/graph/test_mmlab_networks.py": "every block of MMLab's networks, imported and compared",
    "tests/reduction/test_finetune.py": "training with MMLab's loops",
    "tests/kernels/test_options.py": "kernels compiled for other processors",
    "tests/model/test_hostile.py": "models that a hostile server describes, in large numbers",
    "tests/party/test_waiting.py": "clients that wait in a queue",
    "tests/tasks/test_run_report.py::test_in_a_browser": "a page in a browser",
    "tests/protocol/test_streams.py": "every block of the streams of whole inferences",
    "tests/tensors/test_examples.py": "thousands of steps of a job",
    "tests/transport/test_attacks.py": "floods over sockets",
    "tests/transport/test_diagnosis.py": "peers over sockets that are something else",
    "tests/transport/test_silence.py": "hosts that vanish",
    "tests/transport/test_zmq.py": "parties that are killed, over sockets",
}
"""What `launch/test.sh --fast` does not run, and what that is; every room keeps tests of its own."""

os.environ["THREEPC_WEIGHTS"] = tempfile.mkdtemp(prefix="threepc-weights-")  # no test reads or fills the user's own

torch.set_num_threads(1)
hypothesis.settings.register_profile("threepc", deadline=None, print_blob=True)
hypothesis.settings.register_profile("fast", deadline=None, print_blob=True, max_examples=20)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="the tests for every save: tests/conftest.py names what is left out")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("fast" if config.getoption("fast") else "threepc")
    config.pluginmanager.register(CompilingAhead())


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["THREEPC_WEIGHTS"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("fast"):
        return
    deselected = [item for item in items if item.nodeid.startswith(tuple(LEFT_OUT))]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in set(deselected)]
