"""How glibc keeps what a process frees. Left alone, it hands large arrays back to the system, which faults them in anew for every layer.

That costs a server of ResNet-50 a fifth of its processor time with eight images at once, and next to nothing with one. A process that is a
party's own asks for `keep_freed_memory`; one that has threepc as a library keeps its allocator. Other C libraries have no such settings.
"""

from __future__ import annotations

import ctypes
import os
import threading

SETTINGS = {"mmap_threshold": 1 << 30, "trim_threshold": 1 << 33, "top_pad": 64 << 20, "arena_max": 1}
"""By the names of glibc's tunables, in bytes but for the number of arenas: at most 8 GiB that are free at the heap's end stay there."""
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""For GLIBC_TUNABLES. Only the environment that a process starts with can say it: deploy/, Dockerfile and launch/ do."""

_PARAMETERS = {"mmap_threshold": -3, "trim_threshold": -1, "top_pad": -2, "arena_max": -8}  # of <malloc.h>
_MOST = (1 << 31) - 1  # mallopt takes an int
_MOST_BEFORE_2_35 = 32 << 20  # of mmap_threshold, where glibc refuses more

_kept = threading.Event()


def memory_settings() -> dict[str, str]:
    """Environment in which a process keeps freed memory from its start, in huge pages."""
    return {"GLIBC_TUNABLES": ":".join([*(f"glibc.malloc.{name}={value}" for name, value in SETTINGS.items()), HUGE_PAGES])}


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, up to 2 GiB at the heap's end, but for what GLIBC_TUNABLES says already. False without glibc."""
    libc, said = _glibc(), os.environ.get("GLIBC_TUNABLES", "")
    if libc is None:
        return False
    for name, value in SETTINGS.items():  # the first one first: it is the others that end glibc's own adjusting of it
        if f"glibc.malloc.{name}=" not in said and not libc.mallopt(_PARAMETERS[name], min(value, _MOST)):
            libc.mallopt(_PARAMETERS[name], min(value, _MOST_BEFORE_2_35))
    _kept.set()
    return True


def give_back() -> None:
    """Hand all that is free to the system, where `keep_freed_memory` has kept it. Takes some milliseconds a gigabyte, in which no thread allocates."""
    if _kept.is_set() and (libc := _glibc()):
        libc.malloc_trim(0)


def glibc_version() -> str:
    """Such as "2.36"; "" where the C library is another one."""
    if (libc := _glibc()) is None:
        return ""
    libc.gnu_get_libc_version.restype = ctypes.c_char_p
    return str(libc.gnu_get_libc_version().decode())


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
