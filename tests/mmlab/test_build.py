"""MMLab configs become torch modules: the paper's networks, their names, their weights, and what is refused."""

import pytest
import torch

from threepc.errors import InputError
from threepc.mmlab.build import build
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced
from threepc.mmlab.configs import read_config

import_mmlab()

from mmcv import Config  # noqa: E402
from mmseg.models.builder import HEADS  # noqa: E402

TINY = """
from threepc.mmlab.configs import packaged
_base_ = packaged("mmcls:resnet18_8xb16_cifar10")
model = dict(backbone=dict(stem_channels=8, base_channels=8{extra}), head=dict(in_channels=64))
"""


@pytest.fixture
def tiny(tmp_path):
    """A config of a ResNet-18 with eight channels; `extra` goes into its backbone."""

    def read(extra=""):
        path = tmp_path / "tiny.py"
        path.write_text(TINY.format(extra=extra))
        return read_config(str(path))

    return read


@pytest.fixture
def tiny_segmentor():
    """The config of a MobileNetV2-DeepLabV3 for ADE20K with few channels."""
    config = read_config("mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k")
    config.model.backbone.widen_factor = 0.25
    config.model.decode_head.update(in_channels=80, channels=8)
    return config


@pytest.mark.parametrize(
    "config, classes, output",
    [
        ("mmcls:resnet50_8xb32_in1k", 1000, (1, 1000)),
        ("mmcls:resnet18_8xb16_cifar10", 10, (1, 10)),
        ("mmcls:mobilenet-v2_8xb32_in1k", 1000, (1, 1000)),
        ("mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k", 150, (1, 150, 8, 8)),
        ("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug", 21, (1, 21, 8, 8)),
    ],
)
def test_the_five_networks_build_run_and_export(config, classes, output):
    module, card = build(read_config(config), config, None, 0)
    images = torch.randn(1, 3, 64, 64)
    logits = module(images)
    assert logits.shape == output and not module.training
    assert 0.3 < logits.abs().max() < 300  # neither faded nor exploded
    assert len(card.classes) == classes and card.segmentation == config.startswith("mmseg")
    assert len(card.palette) == (classes if card.segmentation else 0)
    exported = torch.export.export(module, (images,)).module()
    torch.testing.assert_close(exported(images), logits)


def test_parts_keep_the_names_of_mmcls(tiny):
    from mmcls.models import build_classifier

    module, _ = build(tiny(), "tiny", None, 0)
    assert list(module.state_dict()) == list(build_classifier(tiny().model).state_dict())


def test_logits_are_those_of_mmcls_before_its_softmax(tiny):
    from mmcls.models import build_classifier

    module, _ = build(tiny(), "tiny", None, 0)
    classifier = build_classifier(tiny().model).eval()
    classifier.load_state_dict(module.state_dict())
    images = torch.randn(2, 3, 32, 32)
    probabilities = torch.from_numpy(classifier.simple_test(images, None, post_process=False).detach().numpy())
    torch.testing.assert_close(module(images).softmax(1), probabilities)


def assert_logits_of(module, card, settings):
    """Resized, a built module's logits are those of mmsegmentation's own network of these settings with the same weights."""
    from mmseg.models import build_segmentor

    with known_warnings_silenced():
        segmentor = build_segmentor(settings).eval()
    segmentor.load_state_dict(module.state_dict())
    images = torch.randn(1, 3, 64, 64)
    resized = torch.nn.functional.interpolate(module(images), size=(64, 64), mode="bilinear", align_corners=card.align_corners)
    torch.testing.assert_close(resized, segmentor.encode_decode(images, None).detach())


def test_logits_are_those_of_mmsegmentation_before_its_resize(tiny_segmentor):
    module, card = build(tiny_segmentor, "tiny", None, 0)
    settings = tiny_segmentor.model
    settings.pretrained = settings.auxiliary_head = None
    for part in (settings.backbone, settings.decode_head):
        part.norm_cfg.type = "BN"
    assert_logits_of(module, card, settings)


@pytest.mark.parametrize("name", ["resnet50_8xb16-mixup_cifar10", "vgg16_8xb16_voc"])
def test_multi_label_heads_give_logits_before_their_sigmoid(name):
    from mmcls.models import build_classifier

    config = read_config(f"mmcls:{name}")
    if "cifar" in name:
        config.model.backbone.update(depth=18, stem_channels=8, base_channels=8)
        config.model.head.in_channels = 64
    else:
        config.model.backbone.update(depth=11)
        config.data.test.pipeline[1].size, config.data.test.pipeline[2].crop_size = (32, -1), 32
    module, card = build(config, name, None, 0, size=(224, 224) if "voc" in name else None)
    classifier = build_classifier(config.model).eval()
    classifier.load_state_dict(module.state_dict())
    images = torch.randn(2, *card.preprocessing.shape)
    said = classifier.simple_test(images, None, post_process=False).detach()
    torch.testing.assert_close(module(images).sigmoid(), said)
    assert card.multi_label == ("voc" in name)  # CIFAR's images have one class each, whatever the loss


def test_a_cascade_gives_the_logits_of_its_last_head(tiny_segmentor):
    settings = tiny_segmentor.model
    head = settings.decode_head
    refining = dict(type="FCNHead", in_channels=80, channels=8, num_convs=1, num_classes=150, norm_cfg=dict(type="BN"))
    settings.update(type="CascadeEncoderDecoder", num_stages=2, decode_head=[refining, head])
    HEADS.register_module(name="AddingHead", module=_adding(HEADS.get(head.type)), force=True)
    head.type = "AddingHead"
    module, card = build(tiny_segmentor, "tiny", None, 0)
    settings.pretrained = settings.auxiliary_head = None
    settings.backbone.norm_cfg.type = head.norm_cfg.type = "BN"
    assert_logits_of(module, card, settings)


def _adding(head: type) -> type:
    """A decode head of a cascade: adds the map of the one before."""

    def forward_test(self, inputs, previous, img_metas, test_cfg):
        return self.forward(inputs) + previous

    return type("AddingHead", (head,), {"forward_test": forward_test})


def test_points_that_depend_on_the_image_are_refused_by_name():
    with pytest.raises(InputError, match=r"^net: PointHead refines those points of which the map itself is least sure"):
        build(read_config("mmseg:pointrend_r50_512x512_160k_ade20k"), "net", None, 0)


@pytest.mark.parametrize("task", ["classifier", "segmentor"])
def test_random_weights_follow_the_seed_alone_and_leave_torch_alone(tiny, tiny_segmentor, task):
    config = tiny() if task == "classifier" else tiny_segmentor
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build(config, "tiny", None, 7)[0].state_dict()
    assert torch.equal(torch.rand(1), expected)
    second = build(config, "tiny", None, 7)[0].state_dict()
    third = build(config, "tiny", None, 8)[0].state_dict()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    convolutions = [name for name, value in first.items() if value.ndim == 4]
    assert [name for name in convolutions if torch.equal(first[name], third[name])] == []


def test_no_random_layer_is_without_effect(tiny):
    module, _ = build(tiny(), "tiny", None, 0)
    images = torch.randn(1, 3, 32, 32)
    logits = module(images)
    for name, parameter in module.named_parameters():
        before = parameter.clone()
        parameter.mul_(1.5).add_(0.1)
        assert not torch.equal(module(images), logits), name
        parameter.copy_(before)


def test_a_checkpoint_brings_weights_and_classes(tiny, tmp_path):
    module, _ = build(tiny(), "tiny", None, 3)
    names = [f"kind {index}" for index in range(10)]
    torch.save({"state_dict": module.state_dict(), "meta": {"CLASSES": names}}, tmp_path / "a.pth")
    loaded, card = build(tiny(), "tiny", tmp_path / "a.pth", 0)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in module.state_dict().items())
    assert card.classes == tuple(names)
    for bad in (["only one"], 10, [1] * 10):
        torch.save({"state_dict": module.state_dict(), "meta": {"CLASSES": bad}}, tmp_path / "b.pth")
        assert build(tiny(), "tiny", tmp_path / "b.pth", 0)[1].classes[3] == "cat"  # the dataset's own


def test_a_segmentation_checkpoint_with_an_auxiliary_head_loads(tiny_segmentor, tmp_path):
    module, _ = build(tiny_segmentor, "tiny", None, 0)
    torch.save({"state_dict": module.state_dict() | {"auxiliary_head.conv_seg.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    loaded, _ = build(tiny_segmentor, "tiny", tmp_path / "a.pth", 1)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(images), module(images))


def test_nothing_pretrained_is_fetched(tiny, monkeypatch):
    fetched = []
    monkeypatch.setattr("mmcv.runner.checkpoint.load_url", lambda *args, **kwargs: fetched.append(args) or {"state_dict": {}})
    config = tiny(", init_cfg=dict(type='Pretrained', checkpoint='https://example.org/a.pth')")
    build(config, "tiny", None, 0)
    assert not fetched
    monkeypatch.setattr("threepc.mmlab.build._pretrained", lambda _: False)
    build(config, "tiny", None, 0)
    assert fetched  # so that what would fetch is what is watched


@pytest.mark.parametrize(
    "model, message",
    [
        (dict(type="DINO"), "model type 'DINO' is not supported"),
        (dict(type="ImageClassifier", backbone=dict(type="NoNet")), "net: the model cannot be built: KeyError: .*NoNet"),
        (dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=51)), "cannot be built: KeyError: .*invalid depth 51"),
        (dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=18)), "has no head"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_line(model, message):
    settings = read_config("mmcls:resnet50_8xb32_in1k")
    with pytest.raises(InputError, match=message) as caught:
        build(Config(dict(model=model, data=settings.data)), "net", None, 0)
    assert "\n" not in str(caught.value)


def test_random_weights_settle_at_the_only_size_that_a_network_takes():
    config = read_config("mmcls:repmlp-base_8xb64_in1k")  # fails for images of any other size, in spite of its average pooling
    config.model.backbone.arch = dict(channels=[4, 8, 8, 8], depths=[1, 1, 1, 1], sharesets_nums=[1, 2, 2, 2])
    config.model.head.in_channels = 8
    module, card = build(config, "tiny", None, 0)
    assert module(torch.randn(1, *card.preprocessing.shape)).shape == (1, 1000)


def test_a_size_that_a_network_cannot_take_is_refused_with_what_it_raised():
    config = read_config("mmcls:repmlp-base_8xb64_in1k")
    config.model.backbone.arch = dict(channels=[4, 8, 8, 8], depths=[1, 1, 1, 1], sharesets_nums=[1, 2, 2, 2])
    config.model.head.in_channels = 8
    with pytest.raises(InputError, match=r"^the network cannot take images of 80x80 \(height x width\), it raised \w+: \S.*$"):
        build(config, "tiny", None, 0, (80, 80))
