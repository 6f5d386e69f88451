"""The paper's recipes in configs/: what they change, and nothing else."""

import functools
from pathlib import Path

import pytest
import torch
from torch import nn

from threepc.graph.importer import import_module
from threepc.graph.ir import relu_names
from threepc.mmlab.compat import import_mmlab
from threepc.mmlab.configs import read_config
from threepc.model.load import load_model

import_mmlab()

from mmseg.models import build_backbone  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"


@functools.cache
def load(name, size=None):
    return load_model(str(CONFIGS / f"{name}.py"), size=size)


@pytest.mark.parametrize(
    "name, size, kinds, relus, classes",
    [
        ("resnet50_avgpool_in1k", (64, 64), {"conv", "relu", "avgpool", "add"}, 49, 1000),
        ("resnet18_cifar100", None, {"conv", "relu", "avgpool", "add"}, 17, 100),
        ("deeplabv3_mobilenetv2_relu_ade20k", (64, 96), {"conv", "relu", "avgpool", "add", "concat", "resize"}, 40, 150),
        ("deeplabv3_resnet50_avgpool_voc", (64, 64), {"conv", "relu", "avgpool", "add", "concat", "resize"}, 57, 21),
    ],
)
def test_the_recipe_is_made_of_the_operations_and_relus_of_the_paper(name, size, kinds, relus, classes):
    model = load(name, size)
    graph, _ = import_module(model.module, torch.zeros(model.example_shape))
    assert {node.kind for node in graph.nodes} == kinds | {"input", "output"}
    assert len(relu_names(graph)) == relus
    assert len(model.card.classes) == graph.nodes[-1].shape[0] == classes


def test_only_the_stems_pool_differs_from_mmcls(tmp_path):
    ours, theirs = load("resnet50_avgpool_in1k", (64, 64)), load_model("mmcls:resnet50_8xb32_in1k", seed=1, size=(64, 64))
    assert ours.preprocessing == theirs.preprocessing and ours.card.classes == theirs.card.classes
    torch.save({"state_dict": theirs.module.state_dict()}, tmp_path / "a.pth")
    loaded = load_model(str(CONFIGS / "resnet50_avgpool_in1k.py"), tmp_path / "a.pth", size=(64, 64)).module
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(loaded(images), theirs.module(images))
    loaded.backbone.maxpool = theirs.module.backbone.maxpool
    torch.testing.assert_close(loaded(images), theirs.module(images))


def test_only_the_stems_pool_differs_from_mmsegmentation():
    ours = load("deeplabv3_resnet50_avgpool_voc", (64, 64)).module.backbone
    settings = read_config("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug").model.backbone
    settings.norm_cfg.type = "BN"
    theirs = build_backbone(settings)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in theirs.state_dict().items()}
    assert isinstance(ours.maxpool, nn.AvgPool2d) and isinstance(theirs.maxpool, nn.MaxPool2d)


def test_the_stems_average_divides_by_nine_everywhere():
    pool = load("resnet50_avgpool_in1k", (64, 64)).module.backbone.maxpool
    ones = pool(torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(ones, torch.tensor([[[[4 / 9, 6 / 9], [6 / 9, 1.0]]]]))
