"""A party's own process keeps freed memory while it is busy, and gives it back afterwards; a library's process is left alone."""

import os
import subprocess
import sys

import pytest

from threepc.party import allocator

pytestmark = pytest.mark.skipif(not allocator.glibc_version(), reason="the settings are glibc's")

PROGRAM = """
import mmap, pathlib, sys
import numpy as np
from threepc.party import allocator

PAGE_MB = mmap.PAGESIZE / 1e6

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB

before = resident()
if sys.argv[1] == "keep":
    assert allocator.keep_freed_memory()
arrays = [np.ones(50_000_000, np.uint8) for _ in range(4)]
small = [np.ones(8) for _ in range(2)]  # these lie above the arrays, so that the heap's end is not free
del arrays
kept = resident() - before
allocator.give_back()
print(kept, resident() - before)
"""


def megabytes(what: str, tunables: str = "") -> tuple[float, float]:
    """How much more a process of its own has after 200 MB of arrays than before them; and after that was given back."""
    environment = os.environ | {"GLIBC_TUNABLES": tunables}
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], env=environment, capture_output=True, text=True, check=True)
    kept, given_back = map(float, done.stdout.split())
    return kept, given_back


@pytest.mark.parametrize("tunables", ("", allocator.HUGE_PAGES, allocator.memory_settings()["GLIBC_TUNABLES"]), ids=("none", "huge", "all"))
def test_freed_memory_is_kept_until_it_is_given_back(tunables):
    kept, given_back = megabytes("keep", tunables)
    assert kept > 195 and given_back < 20


def test_a_process_that_did_not_ask_keeps_nothing():
    kept, _ = megabytes("leave")
    assert kept < 20


def test_what_the_environment_says_stays():
    kept, _ = megabytes("keep", "glibc.malloc.mmap_threshold=1048576")
    assert kept < 20
