"""`threepc compile`: the kernels, compiled before anybody waits for them, for example while an image is built."""

from __future__ import annotations

from collections.abc import Iterable

from threepc.console import Display
from threepc.errors import InputError
from threepc.kernels.options import cache_directory
from threepc.party.warmup import warm_up
from threepc.plan.precision import Precision


def compile_kernels(rings: Iterable[int], display: Display) -> str:
    """Compile what these rings need with their default precision; a line that says where it is kept.

    Raises InputError where compiled kernels cannot be kept.
    """
    directory = cache_directory()
    if directory is None:
        raise InputError("compiled kernels cannot be kept: set THREEPC_CACHE to a folder that you own, of mode 0700")
    for ring in rings:
        with display.stage(f"compiling for the {ring}-bit ring") as progress:
            for varied, labels in ((False, False), (False, True), (True, False)):
                warm_up(Precision.default(ring), progress, varied=varied, labels=labels)
    return f"the kernels are in {directory}, for this kind of processor"
