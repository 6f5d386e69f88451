"""How many files this process may open: each connection takes some, and libzmq ends the process when it runs out of them at a bad moment."""

from __future__ import annotations

import contextlib
import os
import resource

from threepc.errors import RunError

_SPARE = 32  # what one more connection of this party's own takes, with room
_ENOUGH = 1 << 16


def raise_limit() -> int:
    """Let this process open as many files as it may, or as are ever needed; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_ENOUGH, hard):
        if resource.RLIM_INFINITY != soft < wanted:
            with contextlib.suppress(ValueError, OSError):  # that is more than the hard limit, or a sandbox does not let it change
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return wanted
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def check_spare() -> None:
    """Raises RunError when one more connection could run out of files."""
    spare: list[int] = []
    try:
        while len(spare) < _SPARE:
            spare.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RunError(f"this process can open no more connections: {error.strerror}: raise its limit ('ulimit -n')") from None
    finally:
        for descriptor in spare:
            os.close(descriptor)
