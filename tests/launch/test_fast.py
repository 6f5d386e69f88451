"""The tests that `launch/test.sh --fast` leaves out: each is there, and each room keeps some."""

from pathlib import Path

from tests.conftest import LEFT_OUT

TESTS = Path(__file__).parents[1]
WHOLE = {"benchmarks", "end_to_end", "launch"}
"""Folders that are left out whole; none of them is a room of the package."""


def test_what_is_left_out_is_there():
    assert all((TESTS.parent / path.partition("::")[0]).exists() for path in LEFT_OUT)


def test_every_room_keeps_tests():
    kept = {
        path.parent.name for path in TESTS.glob("*/test_*.py") if not path.relative_to(TESTS.parent).as_posix().startswith(tuple(LEFT_OUT))
    }
    assert kept == {path.parent.name for path in TESTS.glob("*/test_*.py")} - WHOLE
