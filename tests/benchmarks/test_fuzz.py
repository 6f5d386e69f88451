"""A short run of the fuzzing whose long run docs/reliability.md shows, and every input that once broke something, again."""

import random

import pytest

from benchmarks.reliability import fuzz
from benchmarks.reliability.fuzz_targets import TARGETS
from threepc.errors import ThreepcError
from threepc.transport.framing import MalformedError


def refused_or_read(read, data):
    try:
        read(data)
    except (ThreepcError, MalformedError):
        return True
    return False


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # numpy evaluates a damaged header
@pytest.mark.parametrize("name", TARGETS)
def test_readers_refuse_by_name_or_read(name, tmp_path):
    """Whatever else is raised fails the test; mutations of what is valid, and of what once broke something."""
    target, chance, again = TARGETS[name], random.Random(len(name)), fuzz.kept(name)
    seeds, read = target.seeds(), target.reader(tmp_path)
    inputs = again + [fuzz.mutated(chance.choice(seeds + again), chance) for _ in range(60 if target.native else 300)]
    assert sum(refused_or_read(read, data) for data in inputs) > 0


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_mutated_was_valid(name, tmp_path):
    target = TARGETS[name]
    read = target.reader(tmp_path)
    assert not any(refused_or_read(read, data) for data in target.seeds())


def test_the_corpus_is_read():
    folders = {path.name for path in fuzz.CORPUS.iterdir()}
    assert folders and folders <= {fuzz.folder_of(name) for name in TARGETS}


def test_what_breaks_a_reader_is_kept(tmp_path):
    found = fuzz.Found("model cards", bad=[("a crash", b"once"), ("a crash", b"again")])
    fuzz.keep([found], tmp_path)
    assert {path.read_bytes() for path in (tmp_path / "model_cards").iterdir()} == {b"once", b"again"}
