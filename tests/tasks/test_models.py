"""models.yaml: what it may say, and what a change in it does."""

import dataclasses
import logging
import os
from pathlib import Path

import pytest
import torch

from tests.party.parties import small_model
from threepc.console import Display
from threepc.errors import InputError, RunError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.load import LoadedModel
from threepc.party.deployment import Budgets, Deployment, Party
from threepc.party.offered import Offer
from threepc.party.session import log
from threepc.tasks.models import GivenModel, ModelOptions, Models, read_models


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models.yaml"


def test_everything_may_be_set(path):
    (path.parent / "net.py").touch()
    path.write_text(
        "models:\n  - config: net.py\n    checkpoint: a.pth\n    relu_spec: spec.json\n    size: 32x48\n    calibration: [one.png]\n    margin: 3\n"
        "    allow_error: true\n    name: net.v2\n  - config: mmcls:resnet18_8xb16_cifar10\n"
    )
    folder = path.parent
    assert read_models(path) == [
        ModelOptions(str(folder / "net.py"), folder / "a.pth", folder / "spec.json", (32, 48), (folder / "one.png",), 3, "net.v2", True),
        ModelOptions("mmcls:resnet18_8xb16_cifar10"),
    ]


@pytest.mark.parametrize(
    "messages, ahead, quick, late",
    [("4", 0, (), ()), ("2", 0, ("0",), ()), ("6", 0, (), ("0",)), ("auto-online", 10**6, ("0",), ()), ("auto-online", 1, (), ())],
)
def test_a_deployment_says_how_many_messages_relus_take_and_what_may_lie_ahead_for_that(messages, ahead, quick, late):
    network = torch.nn.Sequential(torch.nn.ReLU())
    loaded = LoadedModel(network, ModelCard("relu", Preprocessing((4, 4), (0.0,) * 3, (1.0,) * 3)), "none", random_weights=False)
    party = Party("tcp://127.0.0.1:1", "tcp://127.0.0.1:1", b"")
    budgets = Budgets(provider=ahead)
    deployment = Deployment(Path("deployment.yaml"), party, party, {}, relu_messages=messages, network="wan352", budgets=budgets)
    public = GivenModel(loaded).load(deployment, Display()).public
    assert (public.quick, public.late) == (quick, late)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("models: []", "models: must be a list of models"),
        ("models: {config: a}", "models: must be a list of models"),
        ("models: [a]", r"models\[0\] must be a mapping"),
        ("models: [{checkpoint: a}]", r"models\[0\]\.config: is missing"),
        ("models: [{config: 3}]", r"models\[0\]\.config: is 3: write CONFIG"),
        ("models: [{config: a, size: 3}]", r"models\[0\]\.size: is 3: write HxW"),
        ("models: [{config: a, allow_error: 1}]", r"models\[0\]\.allow_error: is 1: write true or false"),
        ("models: [{config: a, name: a@b}]", r"models\[0\]\.name: is 'a@b': write 1 to 64 letters"),
        ("models: [{config: a, calibration: b.png}]", r"models\[0\]\.calibration: is 'b\.png': write a list"),
        ("models: [{config: a, margin: -1}]", r"models\[0\]\.margin: is -1: write a whole number"),
        ("models: [{config: a, colour: red}]", r"models\[0\]\.colour: is not a key"),
        ("models: [{config: a}]\nmodel: 3", "model: is not a key"),
    ],
)
def test_what_is_wrong_is_named(path, text, reason):
    path.write_text(text)
    with pytest.raises(InputError, match=rf"models\.yaml: {reason}"):
        read_models(path)


def test_a_file_that_is_not_there(path):
    with pytest.raises(InputError, match=r"models\.yaml: cannot be read: No such file"):
        read_models(path)


def test_models_come_and_go(path, caplog):
    caplog.set_level(logging.INFO, log.name)
    loaded, offer = [], Offer()

    def load(options):
        if options.config == "bad":
            raise InputError("bad is no model")
        loaded.append(options.config)
        model = small_model(channels=4 + len(options.config))
        card = dataclasses.replace(model.public.card, name=options.config)
        return dataclasses.replace(model, public=dataclasses.replace(model.public, card=card))

    def look(text):
        if text:
            path.write_text(text)
            os.utime(path, ns=(len(loaded) * 10**9, len(text) * 10**9))
        models.look(offer)
        if models._work is not None:
            models._work.join(60)

    path.write_text("models: [{config: ant}, {config: bee}]")
    models = Models(path, load)
    offer.set(models.offered)
    ant = offer.find("ant")
    look("")
    assert loaded == ["ant", "bee"]
    look("models: [{config: moth}, {config: ant}]")
    assert loaded == ["ant", "bee", "moth"]
    assert offer.find().public.card.name == "moth"
    assert offer.find("ant") is ant
    with pytest.raises(RunError, match="no model 'bee'"):
        offer.find("bee")
    assert sorted(line.split("@")[0] for line in caplog.messages) == ["model bee", "model moth"]
    look("models: [{config: bad}]")
    assert caplog.messages[-1] == "the models stay as they were: bad is no model"
    assert offer.find("ant") is ant
