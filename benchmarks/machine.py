"""The machine that a measurement ran on, and whether it was free for it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.store import Entry
from threepc.kernels.convolution import SHORT_RING
from threepc.kernels.options import has_ifma, vector_bits

BUSY_SHARE = 0.25
"""Load average for each core above which a machine is not free for a measurement."""

PACKAGES = ("threepc", "numpy", "numba", "torch", "pyzmq", "cryptography", "mmcls", "mmsegmentation")
ROOT = Path(__file__).parents[1]


def kernels_of(bits: int) -> str:
    """Which convolution kernels serve the ring of 2^bits on this processor."""
    if bits <= 32:
        return f"plain, 32-bit words, {vector_bits()}-bit vectors"
    if bits <= SHORT_RING and has_ifma():
        return "AVX-512 IFMA, 52-bit products"
    return f"plain, 64-bit words, {vector_bits()}-bit vectors"


def describe(rings: tuple[int, ...] = (64, 48, 32)) -> Entry:
    """Processor, cores, memory, system, versions, kernels by ring, time, and the load averages of this moment."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(total_memory() / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
        "kernels": {str(bits): kernels_of(bits) for bits in rings},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def total_memory() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def warning(description: Entry) -> str | None:
    """A line for people where other programs were running at the start."""
    load = description["load_average"][0]
    if load <= BUSY_SHARE * description["cores"]:
        return None
    return f"the machine was not idle: load average {load:g} on {description['cores']} cores at the start; do not trust these times"


def wait_until_idle(seconds: float, progress: Callable[[str], None]) -> None:
    """Wait until no other programs run, `seconds` at most: a load average takes a minute to forget what has ended."""
    deadline = time.monotonic() + seconds
    while (load := os.getloadavg()[0]) > BUSY_SHARE * cores() and time.monotonic() < deadline:
        progress(f"load average {load:.2f}, until it is {BUSY_SHARE * cores():g}")
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, marked where anything but the results of measurements differs from it."""
    results = [f":(exclude)benchmarks/{name}" for name in ("results", "README.md")]
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        return commit + "-dirty" * bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *results))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout.strip()
