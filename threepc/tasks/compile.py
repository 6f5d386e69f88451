"""`threepc compile`: the kernels, compiled before anybody waits for them, for example while an image is built."""

from __future__ import annotations

from collections.abc import Iterable

from threepc.console import Display
from threepc.errors import InputError
from threepc.kernels.options import cache_directory
from threepc.party.warmup import warm_up_ring


def compile_kernels(rings: Iterable[int], display: Display) -> str:
    """Compile all that any network and any job may need in these rings; a line that says where it is kept.

    Raises InputError where compiled kernels cannot be kept.
    """
    directory = cache_directory()
    if directory is None:
        raise InputError("compiled kernels cannot be kept: set THREEPC_CACHE to a folder that you own, of mode 0700")
    for ring in rings:
        with display.stage(f"compiling for the {ring}-bit ring") as progress:
            warm_up_ring(ring, progress)
    return f"the kernels are in {directory}, for this kind of processor"
