"""Warming up leaves nothing to compile for the inferences that follow."""

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from tests.graph.building import bent, gated, mobile, residual
from tests.party.parties import assert_close, images, small_model
from tests.protocol.harness import network_trio, run_network
from threepc import kernels
from threepc.console import Display
from threepc.party.one_host import ThreeThreads
from threepc.party.warmup import warm_up
from threepc.plan.messages import LATE_KINDS, candidates
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.tasks.compile import compile_kernels


def compiled():
    """How often each kernel has been compiled or loaded."""
    modules = [importlib.import_module(f"threepc.kernels.{module.name}") for module in pkgutil.iter_modules(kernels.__path__)]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and kernel.__module__ == module.__name__
    }


@pytest.mark.parametrize("messages", (4, 2, 6))
def test_an_inference_after_it_compiles_nothing(messages):
    model = small_model()
    if messages > 4:
        late = candidates(model.public.graph, LATE_KINDS)
        model = dataclasses.replace(model, public=dataclasses.replace(model.public, late=late))
    if messages == 2:
        every = tuple(node.name for node in model.public.graph.nodes if node.kind in ("relu", "maxpool"))
        model = dataclasses.replace(model, public=dataclasses.replace(model.public, quick=every))
    warm_up(model.public.precision, varied=model.public.is_varied)
    before = compiled()
    with ThreeThreads(model) as parties:
        assert_close(model, images(), parties.infer(images())[0])
    assert compiled() == before
    assert messages == 4 or (before["threepc.kernels.labels.deal_labels"] and before["threepc.kernels.late_lift.deal_lifts"])


def test_a_session_that_reveals_labels_compiles_nothing():
    model = small_model()
    model = dataclasses.replace(model, public=dataclasses.replace(model.public, reveal="label"))
    warm_up(model.public.precision, labels=model.public.reveals_labels)
    before = compiled()
    with ThreeThreads(model) as parties:
        parties.infer(images())
    assert compiled() == before


def test_networks_of_all_kinds_compile_nothing_after_threepc_compile():
    """With another kernel for labels, for pieces or for two images, a first client would wait while it is compiled."""
    compile_kernels([48], Display())
    before = compiled()
    for build in (residual, mobile, gated, bent):
        graph, weights = build()
        for options in ({"reveal": "label"}, {"quick": candidates(graph), "piece": 60, "batch": 2}):
            plan = schedule(graph, Precision.default(48), **options)
            run_network(network_trio(plan, weights), plan, np.zeros((plan.batch, *graph.input.shape)))
            assert compiled() == before, (build.__name__, options)
