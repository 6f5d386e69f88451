"""Configs are found by name and by path, and every mistake is one line with a hint."""

import sys

import pytest

from threepc.errors import InputError
from threepc.mmlab.configs import packaged, read_config


def test_a_packaged_config_is_found_by_name():
    assert packaged("mmcls:resnet50_8xb32_in1k").endswith("resnet50_8xb32_in1k.py")
    assert read_config("mmcls:resnet50_8xb32_in1k").model.backbone.depth == 50
    assert read_config("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug").model.decode_head.num_classes == 21


def test_a_config_of_a_network_that_is_deployed_lies_a_folder_deeper():
    assert read_config("mmcls:repvgg-A0_deploy_4xb64-coslr-120e_in1k").model.backbone.deploy
    with pytest.raises(InputError, match="no config 'imagenet_bs32'"):  # of those that others inherit from
        packaged("mmcls:imagenet_bs32")


def test_a_config_of_ones_own_inherits_from_a_packaged_one(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        "from threepc.mmlab.configs import packaged\n"
        "_base_ = packaged('mmcls:resnet50_8xb32_in1k')\n"
        "model = dict(backbone=dict(depth=101))\n"
    )
    read = read_config(str(config))
    assert (read.model.backbone.depth, read.model.backbone.type, read.model.head.num_classes) == (101, "ResNet", 1000)
    assert "packaged" not in read


@pytest.mark.parametrize(
    "name, hint",
    [
        ("mmcls:resnet50_8xb32_in1", "did you mean mmcls:resnet50_8xb32_in1k or"),
        ("mmseg:deeplabv3_r50_512x512_20k_voc12aug", "did you mean mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug"),
        ("mmcls:qqqq", "no config 'qqqq'$"),
        ("mmdet:resnet50", "a packaged config is mmcls:NAME or mmseg:NAME"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(InputError, match=hint):
        packaged(name)


def test_a_missing_file_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"nowhere/resnet50_8xb32_in1.py does not exist; did you mean mmcls:resnet50_8xb32_in1k"):
        read_config("nowhere/resnet50_8xb32_in1.py")


@pytest.mark.parametrize(
    "text, message",
    [
        ("model = dict(", "SyntaxError"),
        ("model = undefined", "NameError: name 'undefined' is not defined"),
        ("_base_ = './absent.py'", "FileNotFoundError"),
        ("optimizer = dict(type='SGD')", "no MMLab config of a network: it has no `model`"),
    ],
)
def test_a_config_that_fails_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    before = list(sys.path)
    with pytest.raises(InputError, match=message) as caught:
        read_config(str(tmp_path / "bad.py"))
    assert "\n" not in str(caught.value) and "bad.py" in str(caught.value)
    assert sys.path == before
