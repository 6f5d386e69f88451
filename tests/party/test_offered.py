"""Several models of one server: which one is meant, each with weights and masks of its own, and what a withdrawal leaves running."""

import dataclasses

import pytest

from tests.party.parties import assert_close, images, serving, small_model
from threepc.errors import InputError, RunError
from threepc.model.served import ServedModel
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.offered import Offer, OfferedModel, is_meant
from threepc.party.provider import KEPT_MASKS
from threepc.party.session import Options

OPTIONS = Options(timeout=60.0)


def called(name: str, channels: int = 4, seed: int = 0) -> ServedModel:
    model = small_model(channels=channels, seed=seed)
    card = dataclasses.replace(model.public.card, name=name)
    return ServedModel(dataclasses.replace(model.public, card=card), model.weights)


ANT, ANT_2, BEE = called("ant"), called("ant", 5), called("bee", seed=1)


def session(connector, model=""):
    return ClientSession(connector, dataclasses.replace(OPTIONS, model=model))


def test_each_client_gets_the_model_that_it_asks_for():
    connector = MemoryConnector()
    with serving(connector, ANT, OPTIONS) as parties:
        parties[0].offer.set(map(OfferedModel, (ANT, ANT_2, BEE)))
        wanted = {"": ANT, "ant": ANT, "bee": BEE, ANT_2.public.called: ANT_2, f"ant@{ANT_2.public.fingerprint}": ANT_2}
        for name, model in wanted.items():
            with session(connector, name) as opened:
                assert opened.model.called == model.public.called
                assert_close(model, images(), opened.infer(images())[0])
        for name in ("cat", "bee@0000", "ant@", "@", "x" * 1000):
            with pytest.raises(
                RunError, match=r"this server has no model .{1,80}: it has ant@[0-9a-f]{12}, ant@[0-9a-f]{12}, bee@[0-9a-f]{12}$"
            ):
                session(connector, name)


def test_a_withdrawn_model_ends_with_its_last_session():
    connector = MemoryConnector()
    with serving(connector, ANT, OPTIONS) as parties, session(connector) as before:
        parties[0].offer.set([OfferedModel(BEE)])
        with session(connector) as after:
            assert_close(BEE, images(), after.infer(images())[0])
            assert_close(ANT, images(), before.infer(images())[0])
            with pytest.raises(RunError, match="this server has no model 'ant': it has bee@"):
                session(connector, "ant")
            assert_close(ANT, images(), before.infer(images())[0])


def test_masks_are_each_models_own():
    models = [OfferedModel(model) for model in (ANT, ANT, BEE)]
    assert len({model.key for model in models}) == 3
    first, again = (next(iter(model.masked.values())) for model in models[:2])
    assert (first != again).any()


def test_the_provider_keeps_masks_of_few_models():
    connector = MemoryConnector()
    many = [called(f"model{number}", seed=number) for number in range(KEPT_MASKS + 2)]
    with serving(connector, ANT, OPTIONS) as parties:
        parties[0].offer.set(map(OfferedModel, many))
        for model in [*many, many[0]]:
            with session(connector, model.public.card.name) as opened:
                assert_close(model, images(), opened.infer(images())[0])
        assert len(parties[1]._packed) == KEPT_MASKS


def test_two_of_one_name_and_fingerprint_are_refused_and_nothing_changes():
    offer = Offer()
    offer.set([OfferedModel(BEE)])
    with pytest.raises(InputError, match=r"2 models are called ant@[0-9a-f]{12}: give each a name of its own"):
        offer.set(map(OfferedModel, (ANT, ANT)))
    assert offer.find().public is BEE.public
    offer.set([])
    with pytest.raises(RunError, match="it has none at the moment"):
        offer.find()


def test_a_server_that_answers_with_another_model_is_found_out(monkeypatch):
    connector = MemoryConnector()
    with serving(connector, ANT, OPTIONS) as parties:
        find = parties[0].offer.find
        monkeypatch.setattr(parties[0].offer, "find", lambda wanted: find())
        with pytest.raises(RunError, match=r"the server answers with ant@[0-9a-f]{12}, and not with bee"):
            session(connector, "bee")


def test_what_a_name_means():
    fingerprint = ANT.public.fingerprint
    for wanted in ("", "ant", f"ant@{fingerprint}", f"ant@{fingerprint[:3]}"):
        assert is_meant(ANT.public, wanted)
    for wanted in ("an", "ant@", f"bee@{fingerprint}", f"@{fingerprint}", fingerprint):
        assert not is_meant(ANT.public, wanted)
