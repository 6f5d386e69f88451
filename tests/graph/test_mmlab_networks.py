"""MMLab's networks import under their own names, and compute the same: on small images, since operations and not sizes differ."""

import pytest
import torch

from tests.graph.networks import Wrapped, assert_same_function, randomize
from threepc.graph.importer import import_module
from threepc.graph.ir import relu_names
from threepc.graph.passes import standard_passes
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced


def build(side=32, **config):
    import_mmlab()
    from mmcls.models import build_backbone

    torch.manual_seed(0)
    with known_warnings_silenced():
        backbone = build_backbone(config)
    model = Wrapped(lambda self, x: self.backbone(x)[-1], backbone=backbone)
    randomize(model)
    return model, torch.randn(1, 3, side, side, dtype=torch.float64)


def relus(model, x):
    graph, weights = import_module(model, x)
    assert_same_function(model, graph, weights, x)
    assert_same_function(model, *standard_passes(graph, weights), x)
    return graph, [name for name, _, _ in relu_names(graph)]


@pytest.mark.parametrize(
    ("config", "per_block", "blocks"),
    [
        ({"type": "ResNet", "depth": 18}, 2, (2, 2, 2, 2)),
        ({"type": "ResNet", "depth": 50}, 3, (3, 4, 6, 3)),
        ({"type": "ResNet_CIFAR", "depth": 18}, 2, (2, 2, 2, 2)),
        ({"type": "ResNeXt", "depth": 50, "groups": 32, "width_per_group": 4}, 3, (3, 4, 6, 3)),
    ],
)
def test_residual_networks(config, per_block, blocks):
    graph, names = relus(*build(**config))
    expected = [
        f"backbone.layer{stage}.{block}.relu/{call}"
        for stage, count in enumerate(blocks, start=1)
        for block in range(count)
        for call in range(1, per_block + 1)
    ]
    assert names == ["backbone.relu", *expected]
    assert not any("bn" in node.name for node in graph.nodes)
    assert graph["backbone.conv1"].kind == "conv" and graph["backbone.layer1.0.add"].kind == "add"


def test_resnet_with_average_pooling_downsampling():
    graph, names = relus(*build(type="ResNetV1d", depth=50))
    assert names[:3] == ["backbone.stem.0.activate", "backbone.stem.1.activate", "backbone.stem.2.activate"]
    assert next(node.name for node in graph.nodes if node.kind == "avgpool") == "backbone.layer2.0.downsample.0"


@pytest.mark.filterwarnings("ignore:Unnecessary conv bias before batch/instance norm:UserWarning")  # mmcv, of mmcls' own VGG
def test_vgg():
    model, x = build(type="VGG", depth=11, norm_cfg={"type": "BN"})
    graph, names = relus(model, x)
    assert len(names) == 8 and names[0] == "backbone.features.0.activate"
    assert sum(node.kind == "maxpool" for node in graph.nodes) == 5


def test_mobilenet_v2():
    graph, names = relus(*build(type="MobileNetV2"))
    assert len(names) == 35 and names[:2] == ["backbone.conv1.activate", "backbone.layer1.0.conv.0.activate"]
    assert all(graph[name].kind == "clip" and graph[name].attrs == {"max": 6.0} for name in names)
    assert graph["backbone.layer1.0.conv.0.conv"].attrs["groups"] == 32


def test_densenet_whose_batch_norms_come_first():
    arch = {"growth_rate": 4, "depths": [2, 2], "init_channels": 8}
    graph, names = relus(*build(type="DenseNet", arch=arch, out_indices=(1,)))
    norms = [node.name for node in graph.nodes if ".stages.0.block.0.norm" in node.name]
    assert norms == ["backbone.stages.0.block.0.norm1"] and graph[norms[0]].kind == "conv"  # norm2 is folded into conv1
    assert names[1:3] == ["backbone.stages.0.block.0.act/1", "backbone.stages.0.block.0.act/2"]


def test_squeeze_and_excitation():
    graph, _ = relus(*build(type="SEResNet", depth=50))
    assert sum(node.kind == "multiply" for node in graph.nodes) == sum(node.kind == "smooth" for node in graph.nodes) == 16


def test_deeplab():
    import_mmlab()
    from mmseg.models import build_backbone, build_head

    head = {"type": "ASPPHead", "in_channels": 96, "in_index": 0, "channels": 8, "dilations": (1, 3, 6), "num_classes": 4}
    with known_warnings_silenced():
        parts = {
            "backbone": build_backbone({"type": "MobileNetV2", "strides": (1, 2, 2, 1, 1, 1, 1), "out_indices": (4,)}),
            "head": build_head(head | {"norm_cfg": {"type": "BN"}}),
        }

    def forward(self, x):
        logits = self.head([self.backbone(x)])
        return torch.nn.functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)

    model = Wrapped(forward, **parts)
    randomize(model)
    graph, names = relus(model, torch.randn(1, 3, 64, 64, dtype=torch.float64))
    assert graph.output.attrs == {"resize": [64, 64, False]} and graph.output.shape == (4, 8, 8)
    assert names[-5:] == ["head.image_pool.1.activate", *(f"head.aspp_modules.{i}.activate" for i in range(3)), "head.bottleneck.activate"]
    assert [graph[f"head.{name}"].kind for name in ("image_pool.0", "upsample_bilinear2d", "cat")] == ["avgpool", "resize", "concat"]
