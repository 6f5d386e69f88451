"""Rehearsals: once for each role and model, with keys of their own, and never longer than others wait."""

import tracemalloc

import numpy as np
import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.party import rehearsal
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.session import Options
from threepc.prf import Keystream

OPTIONS = Options(timeout=60.0)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(rehearsal, "_done", set())


@pytest.fixture
def drawn(monkeypatch):
    """Every attempt that a stream of a rehearsal begins, by the stream's key."""
    keys = []

    class Noted(Keystream):
        def __init__(self, key: bytes):
            keys.append(key)
            super().__init__(key)

    monkeypatch.setattr(rehearsal, "Keystream", Noted)
    return keys


def steps_seen(monkeypatch, name):
    seen = []
    plain = getattr(rehearsal.inference, name)

    def act(role, plan, *arguments, **given):
        note = arguments[-1]
        return plain(role, plan, *arguments[:-1], lambda index, step, seconds: (note(index, step, seconds), seen.append(step)), **given)

    monkeypatch.setattr(rehearsal.inference, name, act)
    return seen


def test_each_role_rehearses_a_model_once_and_a_session_is_as_ever(drawn):
    model, connector = small_model(), MemoryConnector()
    with serving(connector, model, OPTIONS):
        for _ in range(2):
            with ClientSession(connector, OPTIONS) as session:
                assert_close(model, images(), session.infer(images())[0])
    assert rehearsal._done == {(role, model.public.fingerprint) for role in ("client", "server", "provider")}
    assert len(drawn) == len(set(drawn)) == 4  # the provider has two, and no key twice


def test_every_step_of_every_phase_is_rehearsed(monkeypatch):
    model, connector = small_model(), MemoryConnector()
    with serving(connector, model, OPTIONS):
        seen = {name: steps_seen(monkeypatch, name) for name in ("deal", "prepare", "serve", "infer")}
        ClientSession(connector, OPTIONS).close()
    names = [step.name for step in model.public.plan(1).steps]
    assert {name: [step.name for step in steps] for name, steps in seen.items()} == dict.fromkeys(seen, names)


def test_a_rehearsal_ends_at_its_limit(monkeypatch):
    model, connector = small_model(), MemoryConnector()
    monkeypatch.setattr(rehearsal, "LIMIT_S", -1.0)
    with serving(connector, model, OPTIONS):
        seen = {name: steps_seen(monkeypatch, name) for name in ("deal", "prepare", "serve", "infer")}
        with ClientSession(connector, OPTIONS) as session:
            assert not any(seen.values())
            assert_close(model, images(), session.infer(images())[0])


def test_what_does_not_fit_in_memory_is_not_rehearsed():
    model = small_model().public
    assert rehearsal._first("server", model, 1) is None
    assert rehearsal._first("server", model, 1 << 40) is not None
    assert rehearsal._first("server", model, 1 << 40) is None


@pytest.mark.parametrize(("spare", "budget"), [(0, 1 << 30), (1000, 1 << 30), (1 << 30, 1 << 30), (1 << 30, 1000)])
def test_the_server_s_memory_holds_what_comes_ahead_of_its_use(monkeypatch, spare, budget):
    public, held = small_model().public, []
    plan = public.plan(1)
    sizes = [plan.cost.offline[f"{party}->server"] for party in ("provider", "client")]
    ahead = sum(sizes)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        monkeypatch.setattr(rehearsal.inference, "serve", lambda *_, **__: held.append(tracemalloc.get_traced_memory()[0] - before))
        rehearsal.rehearse_server(public, {}, {}, plan.held_bytes + spare, budget, 1)
    finally:
        tracemalloc.stop()
    expected = min(sum(min(size, budget) for size in sizes), spare)
    assert ahead > 10_000 and expected <= held[0] < expected + 0.5 * ahead  # beside it some objects of Python


def test_nobody_says_zeros_in_the_layout_asked_for():
    (words, rest) = rehearsal._Nobody().receive(0, [(np.uint8, (3,)), (np.uint64, (2, 1))])
    assert words.shape == (3,) and words.dtype == np.uint8 and rest.shape == (2, 1) and not words.any() and not rest.any()
