"""The one place that sets numba's options: how a kernel is compiled, where its machine code is kept, what this processor can do.

Set THREEPC_CACHE to keep compiled kernels elsewhere than in ~/.cache/threepc, THREEPC_NO_IFMA=1 to do without AVX-512 IFMA.
"""

import contextlib
import functools
import hashlib
import os
import platform
import stat
import warnings
from pathlib import Path

import numba
from llvmlite import binding as llvm
from numba.core import caching, config

_OPTIONS = {"nogil": True, "error_model": "numpy"}


@functools.cache
def cpu_features() -> frozenset[str]:
    """LLVM's names of the features this processor and operating system offer, such as "avx2" or "avx512ifma"."""
    named = config.CPU_FEATURES
    if named is None:
        return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    return frozenset(name[1:] for name in named.split(",") if name.startswith("+"))


def cpu_name() -> str:
    """LLVM's name of this processor, such as "znver4"."""
    return config.CPU_NAME or llvm.get_host_cpu_name()


def has_avx512() -> bool:
    """Whether vectors of 512 bits and 32 vector registers are there."""
    return "avx512f" in cpu_features() and "avx512dq" in cpu_features()


def has_ifma() -> bool:
    """Whether the 52-bit multiply-add of AVX-512 IFMA is there and not switched off by THREEPC_NO_IFMA=1."""
    return has_avx512() and "avx512ifma" in cpu_features() and os.environ.get("THREEPC_NO_IFMA", "0") in ("", "0")


def vector_bits() -> int:
    """Width of the widest integer vectors: 512, 256 or 128 bits."""
    if has_avx512():
        return 512
    return 256 if "avx2" in cpu_features() else 128


def vector_registers() -> int:
    """Number of vector registers that compiled code can name."""
    return 32 if has_avx512() or platform.machine() in ("aarch64", "arm64") else 16


def _sources_digest() -> str:
    """Short hash of everything a kernel's machine code depends on: all sources here, and the choices that the environment makes.

    numba renews its cache when the file of a function changes, but not when a file that it imports does.
    """
    digest = hashlib.sha256(f"{numba.__version__} ifma={has_ifma()} vector={vector_bits()}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_directory() -> str | None:
    """Directory of compiled kernels, readable and writable by this user only; None, with a warning, where there can be none.

    Machine code is loaded from it, so a directory that somebody else owns or can write to is not used.
    """
    root = Path(os.environ.get("THREEPC_CACHE") or "~/.cache/threepc").expanduser()
    directory = root / f"kernels-{_sources_digest()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        owned = status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
        reason = "" if owned and os.access(directory, os.W_OK) else "it must be writable, owned by you, and of mode 0700"
    except OSError as error:
        reason = str(error)
    if reason:
        warnings.warn(f"kernels are compiled anew in every process: no cache in {directory}: {reason}; set THREEPC_CACHE", stacklevel=2)
        return None
    return str(directory)


def _use_wide_vectors() -> None:
    """Let plain loops use 512-bit vectors also on processors where LLVM would hold to 256 bits.

    The preference dates from processors that lowered their clock for 512-bit arithmetic; those with IFMA or VAES hardly do.
    """
    if has_avx512() and config.CPU_FEATURES is None and config.CPU_NAME is None:
        config.CPU_FEATURES = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"


class _FilesByKey(caching.IndexDataCacheFile):
    """numba's compiled overloads of one function, each in a file whose name follows from what it was compiled for.

    numba numbers these files by an index that it does not lock. Two processes that compile one function for different arguments at the same moment
    could give both one number, and a third would run the machine code of the wrong one. Here they can at worst lose a line of the index,
    and compile again. The index names a file only once it is whole.
    """

    def save(self, key, data):
        name = f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(self._dump(key)).hexdigest()[:32]}.nbc"
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


@contextlib.contextmanager
def _kept():
    """Whether what numba decorates meanwhile is kept, in `cache_directory`."""
    # numba reads the directory when it decorates, so that the setting of other users of numba in this process stays theirs.
    others, directory = config.CACHE_DIR, cache_directory()
    config.CACHE_DIR = directory or others
    try:
        yield directory is not None
    finally:
        config.CACHE_DIR = others


def kernel(function):
    """Compile a function at its first call, without the interpreter lock, and keep its machine code in `cache_directory`."""
    with _kept() as kept:
        compiled = numba.njit(cache=kept, **_OPTIONS)(function)
    if kept:
        cache = compiled._cache
        cache._cache_file = _FilesByKey(cache.cache_path, cache._impl.filename_base, cache._impl.locator.get_source_stamp())
    return compiled


def callback(signature):
    """Compile a function at once into one of C, which libraries may call from threads that know no interpreter; its `address` is what they take."""

    def compiled(function):
        with _kept() as kept:
            return numba.cfunc(signature, cache=kept)(function)

    return compiled


def inline(function):
    """Compile a helper of kernels within each of its callers; alone it is never compiled, which would take as long again."""
    return numba.njit(inline="always", **_OPTIONS)(function)


_use_wide_vectors()
