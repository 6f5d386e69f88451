"""CONFIG and CHECKPOINT of the command line: packaged configs, files, factories, and what is refused."""

import pytest
import torch
from torch import nn

from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.load import IMAGENET, load_model

FACTORIES = """
from torch import nn
from threepc.card import ModelCard, Preprocessing

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def described():
    module = plain()
    module.model_card = ModelCard("grey", Preprocessing((8, 9), (0.0,), (255.0,)), classes=("cat", "dog"))
    return module

def number():
    return 3

def misdescribed():
    module = plain()
    module.model_card = "grey"
    return module

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())

constant = 1
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """The name of a module in the current folder, new for each test."""
    name = f"factories_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    (tmp_path / f"{name}_broken.py").write_text("raise ValueError('broken on purpose')")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_packaged_config_without_checkpoint_is_random_and_says_so():
    model = load_model("mmcls:resnet18_8xb16_cifar10")
    assert model.name == "mmcls:resnet18_8xb16_cifar10" and model.random_weights and not model.assumed_card
    assert model.weights_source == "seeded random weights (no checkpoint given)"
    assert model.example_shape == (1, 3, 32, 32)
    assert model.module(torch.zeros(model.example_shape)).shape == (1, 10)
    assert model.card.classes[3] == "cat"


def test_another_size(factories):
    model = load_model("mmcls:resnet18_8xb16_cifar10", size=(40, 33))
    assert model.example_shape == (1, 3, 40, 33)
    assert load_model(f"{factories}:plain", size=(97, 131)).preprocessing.short_edge == 150


def test_a_factory(factories):
    model = load_model(f"{factories}:plain", seed=4)
    assert model.card == ModelCard(f"{factories}:plain", IMAGENET) and model.random_weights
    assert model.weights_source == "the factory's own weights (no checkpoint given)" and model.assumed_card
    assert not model.module.training and not any(parameter.requires_grad for parameter in model.module.parameters())
    assert torch.equal(load_model(f"{factories}:plain", seed=4).module[0].weight, model.module[0].weight)
    assert not torch.equal(load_model(f"{factories}:plain", seed=5).module[0].weight, model.module[0].weight)


def test_a_factory_with_a_checkpoint(factories, tmp_path):
    torch.save(load_model(f"{factories}:plain", seed=4).module.state_dict(), tmp_path / "a.pth")
    model = load_model(f"{factories}:plain", tmp_path / "a.pth", seed=5)
    assert not model.random_weights and model.weights_source == "weights of the checkpoint"
    assert torch.equal(load_model(f"{factories}:plain", seed=4).module[0].weight, model.module[0].weight)


def test_a_factory_may_describe_its_module(factories):
    model = load_model(f"{factories}:described")
    assert not model.assumed_card
    assert model.card.classes == ("cat", "dog") and model.name == "grey"
    assert model.preprocessing == Preprocessing((8, 9), (0.0,), (255.0,)) and model.example_shape == (1, 1, 8, 9)


def test_what_a_factory_may_not_do(factories):
    for name, message in {
        f"{factories}:number": "returned an int, not a torch module",
        f"{factories}:misdescribed": "model_card must be a threepc.card.ModelCard",
        f"{factories}:lazy": f"what {factories}:lazy returned has lazy modules that have seen no input yet: call it once",
        f"{factories}:constant": "has no function constant",
        f"{factories}:absent": "has no function absent",
        f"{factories}_broken:plain": "ValueError: broken on purpose",
        "no_such_module:plain": "ModuleNotFoundError",
    }.items():
        with pytest.raises(InputError, match=message):
            load_model(name)


@pytest.mark.parametrize(
    "config, message",
    [
        ("resnet50_8xb32_in1", "unknown config resnet50_8xb32_in1; did you mean mmcls:resnet50_8xb32_in1k or"),
        ("", "unknown config"),
        (
            "a/b",
            "it is mmcls:NAME, mmseg:NAME, timm:NAME, torchvision:NAME, the path of an MMLab config or an ONNX file, or package.module:factory",
        ),
        ("mmcls:", "mmcls has no config ''"),
        ("nowhere/net.py", "config nowhere/net.py does not exist"),
    ],
)
def test_an_unknown_config_is_refused_with_a_hint(config, message):
    with pytest.raises(InputError, match=message):
        load_model(config)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"is for another model: 1\d\d missing \(backbone.conv1.weight, .*\); 2 unexpected \(weight, bias\)"
    ):
        load_model("mmcls:resnet18_8xb16_cifar10", tmp_path / "a.pth")
