"""Warming up leaves nothing to compile for the inferences that follow."""

import dataclasses
import importlib
import pkgutil

import pytest
from numba.core.dispatcher import Dispatcher

from tests.party.parties import assert_close, images, small_model
from threepc import kernels
from threepc.party.one_host import ThreeThreads
from threepc.party.warmup import warm_up


def compiled():
    """How often each kernel has been compiled or loaded."""
    modules = [importlib.import_module(f"threepc.kernels.{module.name}") for module in pkgutil.iter_modules(kernels.__path__)]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and kernel.__module__ == module.__name__
    }


@pytest.mark.parametrize("messages", (4, 2))
def test_an_inference_after_it_compiles_nothing(messages):
    model = small_model()
    if messages == 2:
        every = tuple(node.name for node in model.public.graph.nodes if node.kind in ("relu", "maxpool"))
        model = dataclasses.replace(model, public=dataclasses.replace(model.public, quick=every))
    warm_up(model.public.precision, quick=messages == 2)
    before = compiled()
    with ThreeThreads(model) as parties:
        assert_close(model, images(), parties.infer(images())[0])
    assert compiled() == before
    assert messages == 4 or before["threepc.kernels.labels.deal_labels"]
