"""The debug run: every fault is found where it is made, a seed gives the same bits again, and only in one process."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.graph import building
from threepc.errors import InputError
from threepc.graph.clear import evaluate
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel, ServedModel
from threepc.party import debug
from threepc.party.one_host import ThreeThreads
from threepc.plan.calibration import calibrate
from threepc.protocol.linear import Linear

CARD = ModelCard("small", Preprocessing(size=(8, 8)))


def served(bits=48, network=building.residual):
    graph, weights = network()
    return ServedModel(PublicModel(graph, calibrate(graph, weights, images(), bits), None, CARD), weights)


def images(size=1.0):
    return (size * np.random.default_rng(3).normal(size=(1, 3, 21, 19)).clip(-3, 3)).astype(np.float32)


def test_a_fault_is_found_at_the_step_that_makes_it(monkeypatch):
    model, right = served(), Linear.apply
    broken = model.public.plan(1).linear[3]

    def wrong(self, weights, x, bias, threads):
        result = right(self, weights, x, bias, threads)
        if self.op == broken.op and bias is not None and weights is not None and len(x) == 1:
            calls.append(1)
            if len(calls) == 1:  # the server's product; the twin's, later, is right
                result[0, 0, 0, 0] += result.dtype.type(12345)
        return result

    calls = []
    monkeypatch.setattr(Linear, "apply", wrong)
    run = debug.trace(model, images())
    fault = run.first_fault
    assert fault.name == broken.name and fault.error == 12345 and fault.bound == 0
    later = run.rows[[row.name for row in run.rows].index(fault.name) + 1 :]
    assert all(row.error <= row.bound for row in later)


@pytest.mark.parametrize("reveal", ["logits", "label", "label,logits,label"])
def test_each_of_several_outputs_is_compared(reveal):
    graph, weights = building.heads()
    pixels = np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32)
    model = ServedModel(PublicModel(graph, calibrate(graph, weights, pixels, 48), None, CARD, reveal), weights)
    run = debug.trace(model, pixels)
    assert run.first_fault is None
    assert [row.name for row in run.rows if row.kind in ("output", "argmax")] == ["output/logits", "output/features", "output/boxes"]
    found = model.public.network_outputs(run.outputs)
    real = evaluate(graph, weights, torch.from_numpy(pixels))
    for array, node, what in zip(found, graph.outputs, model.public.reveals, strict=True):
        expected = real[node.name].numpy() if node.shape[1:] != (1, 1) else real[node.name].numpy()[:, :, 0, 0]
        if what == "logits":
            np.testing.assert_allclose(array, expected, atol=1e-3)
        else:
            assert array.dtype == np.int64 and array.shape == (2, *expected.shape[2:])
            top = np.sort(expected, axis=1)
            clear = top[:, -1] - top[:, -2] > 1e-3
            assert (array == expected.argmax(axis=1))[clear].all() and clear.any()
    np.testing.assert_array_equal(debug.infer(model, pixels, 7), debug.trace(model, pixels, seed=7).outputs)


def test_values_that_do_not_fit_are_named():
    model = served(32)
    assert debug.trace(model, images()).first_fault is None
    fault = debug.trace(model, images(12.0)).first_fault
    assert fault.room < 0 and fault.name in dict.fromkeys(step.name for step in model.public.plan(1).steps)


def test_a_seed_gives_the_same_bits_again():
    model = served(32)
    first, again, other, fresh = (debug.infer(model, images(), seed) for seed in (7, 7, 8, None))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, debug.trace(model, images(), seed=7).outputs)
    assert not np.array_equal(first, other) and not np.array_equal(fresh, debug.infer(model, images(), None))


def test_it_is_what_the_parties_compute():
    model = served(48)
    with ThreeThreads(model) as parties:
        secure, _ = parties.infer(images())
    run = debug.trace(model, images())
    np.testing.assert_allclose(run.outputs, secure, atol=2 * run.rows[-1].clear_error + 2.0**-14)


def test_a_label_is_compared_too():
    model = served(48)
    labelled = ServedModel(dataclasses.replace(model.public, reveal="label"), model.weights)
    run = debug.trace(labelled, images())
    assert run.first_fault is None and run.outputs.shape == (1, 1, 1, 1)
    assert run.outputs.item() == debug.infer(model, images(), 0).argmax()


def test_errors_of_a_role_end_the_run(monkeypatch):
    def fails(self, server):
        raise ArithmeticError("the server's error")

    monkeypatch.setattr("threepc.protocol.input_output.Input.serve", fails)
    with pytest.raises(ArithmeticError, match="the server's error"):
        debug.infer(served(), images(), 1)


def test_a_seed_is_refused_outside_one_process():
    debug.refuse_unless_local(None, "tcp")
    debug.refuse_unless_local(3, "memory")
    for transport in ("ipc", "tcp"):
        with pytest.raises(InputError, match="--debug-seed"):
            debug.refuse_unless_local(3, transport)
