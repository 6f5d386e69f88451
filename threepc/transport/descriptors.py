"""How many files this process may open: each connection takes some, and libzmq ends the process when it runs out of them at a bad moment."""

from __future__ import annotations

import os
import resource

from threepc.errors import RunError

_SPARE = 32  # what one more connection of this party's own takes, with room
_ENOUGH = 1 << 16


def raise_limit() -> int:
    """Let this process open as many files as the system allows; how many that are."""
    soft, hard = (_ENOUGH if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(hard, _ENOUGH)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(soft, wanted)


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
