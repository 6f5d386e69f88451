"""The tests that `launch/test.sh --fast` leaves out: each is there, and each room keeps some. And those that go while kernels are compiled."""

from pathlib import Path

import numpy as np

from tests.compiling import COMPILE_THEMSELVES, NEED_NONE, compiled_here
from tests.conftest import LEFT_OUT
from threepc.kernels import elementwise

TESTS = Path(__file__).parents[1]
WHOLE = {"benchmarks", "end_to_end", "launch"}
"""Folders that are left out whole; none of them is a room of the package."""


def test_what_is_left_out_is_there():
    assert all((TESTS.parent / path.partition("::")[0]).exists() for path in LEFT_OUT)


def test_what_goes_while_kernels_compile_is_there():
    assert all((TESTS.parent / path).exists() for path in NEED_NONE + COMPILE_THEMSELVES)


def test_a_kernel_that_was_taken_is_noticed():
    elementwise.add_multiple(np.ones(2, np.uint64), np.ones(2, np.uint64), np.uint64(3))
    assert "threepc.kernels.elementwise.add_multiple" in compiled_here()


def test_every_room_keeps_tests():
    kept = {
        path.parent.name for path in TESTS.glob("*/test_*.py") if not path.relative_to(TESTS.parent).as_posix().startswith(tuple(LEFT_OUT))
    }
    assert kept == {path.parent.name for path in TESTS.glob("*/test_*.py")} - WHOLE
