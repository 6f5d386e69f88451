"""The catalogue fits the tree: each mutation applies to exactly one place, changes it to valid Python, and names tests that exist."""

import ast
from pathlib import Path

import pytest

from tests.mutations.catalogue import MUTATIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation_applies(mutation):
    original = (ROOT / mutation.file).read_text()
    mutated = mutation.applied(original)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(original))
    for test in mutation.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()


def test_there_are_enough_and_names_are_unique():
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 40
