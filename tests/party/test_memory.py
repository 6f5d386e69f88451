"""How many images go at once follows from what the plan declares, and every party holds to it."""

import dataclasses
import tracemalloc
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder
from tests.party.parties import CARD, assert_close, images, serving, small_model
from threepc.errors import InputError, RunError
from threepc.model.served import PublicModel
from threepc.party import inference
from threepc.party.batches import fitting
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.in_process import ThreeRoles, share_weights
from threepc.party.memory import MAX_BATCH, check_batch, largest_batch
from threepc.party.session import Options
from threepc.party.warmup import warm_up
from threepc.plan.precision import Precision
from threepc.prf import new_key
from threepc.protocol.linear import Linear
from threepc.ring import word_of

MODEL = small_model()
PUBLIC = MODEL.public
OPTIONS = Options(timeout=60.0)


def layer(kind: str, bits: int):
    """A network of little but one layer that travels."""
    net = Builder(3, 64, 64)
    x = net.conv("input", 8, 1)
    graph, weights = net.output(net.maxpool(x, 3, 2, 1) if kind == "maxpool" else getattr(net, kind)(x))
    return PublicModel(graph, Precision.default(bits), None, CARD), weights


@pytest.mark.parametrize("bits", (48, 32))
@pytest.mark.parametrize("kind", ("relu", "clip", "maxpool"))
def test_no_party_takes_more_than_is_said(kind, bits):
    model, weights = layer(kind, bits)
    warm_up(model.precision)
    plan, masks = model.plan(8), []
    with ThreeRoles(share_weights(plan, weights, new_key())) as roles:

        def peak(act) -> int:
            tracemalloc.reset_peak()
            begun = tracemalloc.get_traced_memory()[0]
            act()
            return tracemalloc.get_traced_memory()[1] - begun

        tracemalloc.start()
        try:
            kept = []
            dealt = peak(lambda: inference.deal(roles.provider, plan))
            prepared = peak(lambda: kept.append(inference.prepare(roles.client, plan, masks.append)))
            words = np.zeros((8, 3, 64, 64), word_of(bits))
            infer = partial(inference.infer, plan=plan, x=words, prepared=SimpleNamespace(mask=masks[0], kept=kept[0]))
            online = peak(lambda: roles.together(lambda server: inference.serve(server, plan), infer))
        finally:
            tracemalloc.stop()
    said = plan.held_bytes
    assert dealt < said < 4 * dealt
    assert prepared < said
    assert online + dealt + prepared < 2 * said  # of two parties, with what lies ready for them


@given(st.integers(0, 4 * PUBLIC.plan(MAX_BATCH).held_bytes // 3))
def test_the_largest_batch_is_the_largest_that_fits(memory):
    most = largest_batch(PUBLIC, memory)
    assert not most or PUBLIC.plan(most).held_bytes <= memory
    assert most == MAX_BATCH or PUBLIC.plan(most + 1).held_bytes > memory


def test_what_no_plan_may_allocate_does_not_fit():
    net = Builder(3, 1024, 1024)
    model = PublicModel(net.output(net.relu(net.conv("input", 4)))[0], Precision.default(48), None, CARD)
    assert 1 < largest_batch(model, 1 << 60) < MAX_BATCH


def test_the_refusal_says_what_to_do():
    with pytest.raises(InputError, match=r"^a batch of 9 takes \d+ MB, but here has \d+ MB for a session: send at most 4 at once$"):
        check_batch(PUBLIC, 9, PUBLIC.plan(4).held_bytes, "here")
    with pytest.raises(InputError, match=r"raise budgets\.memory in deployment\.yaml$"):
        check_batch(PUBLIC, 1, 1000, "here")


@pytest.mark.parametrize("tight", ("client", "server", "provider"))
def test_every_party_refuses_a_batch_beyond_its_memory(tight, monkeypatch):
    """So the largest message that a party makes or takes is bounded, too: it is among what a batch needs."""
    connector, little = MemoryConnector(), dataclasses.replace(OPTIONS, memory=PUBLIC.plan(4).held_bytes)
    work = {"client": "prepare", "server": "serve", "provider": "deal"}[tight]
    with serving(connector, MODEL, OPTIONS) as parties:
        for party in parties:
            if party.role == tight:
                party._options = little
        with ClientSession(connector, little if tight == "client" else OPTIONS) as session:
            assert_close(MODEL, images(4), session.infer(images(4))[0])
            kind = InputError if tight == "client" else RunError
            with monkeypatch.context() as patch:
                patch.setattr(inference, work, lambda *_: pytest.fail("it began"))
                with pytest.raises(kind, match=f"but the {tight} has 0 MB for a session: send at most 4 at once"):
                    session.infer(images(5))
            if tight == "client":
                assert session.largest_batch == 4
                with pytest.raises(InputError, match="images at once, not 1000000000000"):  # nor are they converted
                    session.infer(np.broadcast_to(images(1), (10**12, *images(1).shape[1:])))
                assert_close(MODEL, images(1), session.infer(images(1))[0])


@pytest.mark.parametrize("tight", ("client", "provider"))
def test_weights_beyond_a_party_s_memory_are_refused_before_they_come(tight, monkeypatch):
    connector, little = MemoryConnector(), dataclasses.replace(OPTIONS, memory=1000)
    monkeypatch.setattr(Linear, {"client": "client_weights", "provider": "provider_weights"}[tight], lambda *_: pytest.fail("they came"))
    with serving(connector, MODEL, OPTIONS) as parties:
        if tight == "provider":
            parties[1]._options = little
        with pytest.raises(RunError, match=rf"the model's weights take 0 MB, but the {tight} has 0 MB: see budgets\.memory$"):
            ClientSession(connector, little if tight == "client" else OPTIONS)


@pytest.mark.parametrize(
    "batch, count, most, used", [(8, 100, 64, 8), (64, 10, 32, 64), (64, 100, 32, 32), (2, 2, 1, 1), (1, 5, 0, 1), (9, 9, 0, 9)]
)
def test_a_batch_that_is_too_large_is_cut_aloud(batch, count, most, used):
    said = []
    assert fitting(batch, count, most, said.append) == used
    assert bool(said) == (used != batch)
    assert all(f"--batch {batch} does not fit" in line and f"--batch {used} says so" in line for line in said)
