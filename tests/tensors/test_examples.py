"""The examples of private tensors, as their README runs them."""

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples/private_tensors"


@pytest.fixture
def run(monkeypatch):
    """The `main` of an example."""
    return lambda name: runpy.run_path(str(FOLDER / name))["main"]


def test_products(run, capsys):
    assert max(run("products.py")()) < 1e-3
    assert "largest errors" in capsys.readouterr().out


def test_federated_averaging_reaches_the_accuracy_of_the_plain_one(run, capsys):
    private, plain, difference = run("federated.py")(2000)
    assert private == plain > 0.94 and difference < 0.01
    assert capsys.readouterr().out.startswith("2,000 steps of 5 hospitals")


def test_the_score_of_a_hidden_model(run):
    found, wanted = run("score.py")()
    assert abs(found - wanted) < 1e-3 and wanted > 0.9


def test_the_readme_names_every_example_and_no_other():
    named = re.findall(r"python examples/private_tensors/(\w+\.py)", (FOLDER / "README.md").read_text())
    assert sorted(set(named)) == sorted(path.name for path in FOLDER.glob("*.py"))
