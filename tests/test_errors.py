"""What only some commands need: in the extras of setup.cfg, not in the way of a client, and named where it is missing."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from threepc.errors import EXTRAS, InputError, missing

ROOT = Path(__file__).parents[1]
CLIENT = (
    "threepc.api",
    "threepc.tasks.ask",
    "threepc.cli.parties",
    "threepc.cli.show_run",
    "threepc.images.segmentation",
    "threepc.party.client",
    "threepc.party.one_host",
    "threepc.party.three_hosts",
    "threepc.plan.schedule",
    "threepc.model.served",
)
"""What a client and a provider load."""

WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({list(EXTRAS)}))\n"


def without_extras(program: str) -> subprocess.CompletedProcess[str]:
    """Run Python as if nothing of the extras were installed."""
    environment = {"PYTHONPATH": str(ROOT), "THREEPC_LOG": "CRITICAL"}
    return subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS + program], capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("module", CLIENT)
def test_a_client_needs_no_extra(module):
    done = without_extras(f"import {module}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words, package",
    [
        (["run", "x:y", "--input", "a.png"], "torch"),
        (["server", "x:y", "--deployment", "keys"], "torch"),
        (["inspect", "x:y"], "torch"),
        (["finetune", "a.py", "--work-dir", "w"], "torch"),
    ],
)
def test_a_command_that_needs_an_extra_says_which(words, package):
    done = without_extras(f"from threepc.cli.main import status; sys.exit(status({words}))")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"threepc: the package {package} is needed for this and is not installed: pip install 'threepc[{EXTRAS[package]}]'\n"
    )


def test_any_other_module_that_is_missing_is_no_question_of_extras():
    done = without_extras(
        "sys.modules['click.testing'] = None\n"
        "from threepc.cli import main\n"
        "def fail(*_, **__): import click.testing\n"
        "main.threepc.main = fail\n"
        "sys.exit(main.status([]))"
    )
    assert done.returncode == 1 and "unexpected ModuleNotFoundError: import of click.testing halted" in done.stderr


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_named_with_its_extra(package):
    error = missing(package)
    assert (
        isinstance(error, InputError) and str(error).startswith(f"the package {package} ") and f"threepc[{EXTRAS[package]}]" in str(error)
    )


def test_the_extras_are_those_of_setup_cfg():
    """Each package of EXTRAS is in its extra, but mmcv, which no extra can name; none is in the base."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = lambda text: {name.lower().replace("-", "_") for name in re.findall(r"^([\w-]+)", text, re.MULTILINE)}
    extras = {name: listed(text) for name, text in config["options.extras_require"].items()}
    modules = {"mmsegmentation": "mmseg"}
    homes = {modules.get(package, package): extra for extra in set(EXTRAS.values()) for package in extras[extra] if package != "threepc"}
    assert homes == {package: extra for package, extra in EXTRAS.items() if package != "mmcv"}
    assert not listed(config["options"]["install_requires"]) & set(EXTRAS)
