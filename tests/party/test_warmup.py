"""Warming up leaves nothing to compile for the inferences that follow."""

import dataclasses
import importlib
import pkgutil
import threading

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from tests.graph.building import bent, gated, mobile, residual
from tests.party.parties import assert_close, images, small_model
from tests.plan.test_averages import PATCHES, classifier
from tests.protocol.harness import network_trio, run_network
from threepc import console, kernels, tensors
from threepc.console import Display
from threepc.party import warmup
from threepc.party.one_host import ThreeThreads
from threepc.party.warmup import warm_up, warm_up_in_session
from threepc.plan.messages import LATE_KINDS, candidates
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.tasks.compile import compile_kernels
from threepc.tensors import parties


def compiled():
    """What each kernel has been compiled or loaded for."""
    modules = [importlib.import_module(f"threepc.kernels.{module.name}") for module in pkgutil.iter_modules(kernels.__path__)]
    return {
        (f"{module.__name__}.{name}", signature)
        for module in modules
        for name, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher) and kernel.__module__ == module.__name__
        for signature in kernel.signatures
    }


def since(before):
    """The kernels that were compiled or loaded since then."""
    return sorted({name for name, _ in compiled() - before})


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
    with ThreeThreads(model) as threads:
        assert_close(model, images(), threads.infer(images())[0])
    assert not since(before)
    assert messages == 4 or {"threepc.kernels.labels.deal_labels", "threepc.kernels.late_lift.deal_lifts"} <= {name for name, _ in before}


def test_a_session_that_reveals_labels_compiles_nothing():
    model = small_model()
    model = dataclasses.replace(model, public=dataclasses.replace(model.public, reveal="label"))
    warm_up(model.public.precision, labels=model.public.reveals_labels)
    before = compiled()
    with ThreeThreads(model) as threads:
        threads.infer(images())
    assert not since(before)


def precisions(graph, ring):
    """One with each kind of truncation: by as many bits as usual, by few, and by more than half a word of 32 bits masks."""
    usual = Precision.default(ring)
    yield usual
    for fraction, removed in ((4, 4), (usual.fraction - 2, 18)):
        own = {node.name: removed for node in graph.nodes if node.kind == "conv"}
        yield Precision(ring, fraction, own, truncation=max(removed, 16))


def test_layers_truncated_early_compile_nothing():
    graph, weights = classifier()
    precision = Precision(32, 11, {"conv1": 13}, early=("relu2",))
    warm_up(precision, varied=True)
    before = compiled()
    for sizes in (None, {"relu2": PATCHES}):
        for options in ({}, {"quick": ("relu2",)}, {"late": ("relu2",)}):
            plan = schedule(graph, precision, sizes, **options)
            run_network(network_trio(plan, weights), plan, np.zeros((1, *graph.input.shape)))
            assert compiled() == before, (sizes, options)


def test_networks_of_all_kinds_compile_nothing_after_threepc_compile():
    """With another kernel for labels, for pieces or for two images, a first client would wait while it is compiled."""
    compile_kernels([40], Display())
    before = compiled()
    for build in (residual, mobile, gated, bent):
        graph, weights = build()
        blocks = {
            node.name: ((2, 2), (0, 1), (1, 0), *((1, 1),) * (node.shape[0] - 3))
            for node in graph.nodes
            if node.kind == "relu" and node.shape[1] > 1
        }
        for precision in precisions(graph, 40):
            for options in ({"reveal": "label", "sizes": blocks}, {"quick": candidates(graph), "piece": 60, "batch": 2}):
                plan = schedule(graph, precision, **options)
                run_network(network_trio(plan, weights), plan, np.zeros((plan.batch, *graph.input.shape)))
                assert not since(before), (build.__name__, precision, options)


@pytest.mark.parametrize("ring", (64, 40, 32))
def test_jobs_of_all_kinds_compile_nothing_after_threepc_compile(ring):
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 9, (3, 4)) / 8 for _ in range(2))
    jobs = {
        "chosen": lambda x, y: tensors.where(x > y, x, tensors.maximum(y, 0) * y),
        "products": lambda x, y: (x @ y.T + x.max() * 0.5).clip(-1, 0.5),
        "matrices": lambda x, _: x @ y.T,
        "number": lambda x, y: x[0] @ np.arange(4.0) + y.mean(),
        "curve": lambda x, y: tensors.concatenate([x.apply("tanh"), y.apply("sigmoid") ** 2], 0),
        "best": lambda x, y: (x - y).argmax(1),
    }
    compile_kernels([ring], Display())
    before = compiled()

    def job(p):
        ours = p.input("x", (3, 4), "bank"), p.input("y", (3, 4), "server")
        for name, of_job in jobs.items():
            p.reveal(of_job(*ours), "client", name)
        p.reveal(ours[0] * 2, "server", "shown")

    with tensors.local(tensors.trace(job, ring), dict.fromkeys(jobs, "client") | {"shown": "server"}) as local:
        local.run(server={"y": y}, owners={"x": x})
    assert not since(before)


def test_a_session_says_that_it_compiles(monkeypatch):
    said, lines = threading.Event(), []
    monkeypatch.setattr(warmup, "QUIET_S", 0.0)
    monkeypatch.setattr(warmup.log, "info", lambda line: (lines.append(line), said.set()))
    monkeypatch.setattr(warmup, "warm_up_for", lambda _: said.wait(30))
    warm_up_in_session(small_model().public)
    assert lines == ["compiling kernels of the 48-bit ring; 'threepc compile' does so ahead"]


@pytest.mark.parametrize("quiet, said", ((0.0, "preparing kernels: relu"), (1e9, "")))
def test_a_job_on_this_machine_says_that_it_compiles(monkeypatch, capsys, quiet, said):
    monkeypatch.setattr(console, "QUIET_S", quiet)
    monkeypatch.setattr(parties, "warm_up_for", lambda _, progress: progress("relu"))
    with tensors.local(tensors.trace(lambda p: p.reveal(p.input("x", (2,), "client"), "client", "x")), {"x": "client"}):
        pass
    assert said in capsys.readouterr().err if said else not capsys.readouterr().err


def test_no_role_gives_up_while_another_one_compiles(monkeypatch):
    """A kernel takes minutes on a busy machine."""
    waited = []
    monkeypatch.setattr(warmup.ThreeRoles, "new_channel", lambda *_, timeout=0.0, **__: waited.append(timeout))
    with pytest.raises(AttributeError):  # those are no channels
        warmup._Patient()
    assert waited and set(waited) == {None}
