"""Test pipelines are read as preprocessing, or refused by the name of the transform; tests/test_imaging.py compares the inputs."""

import pytest

from threepc.errors import InputError
from threepc.images.card import Preprocessing, Sliding
from threepc.mmlab.compat import import_mmlab
from threepc.mmlab.configs import read_config
from threepc.mmlab.pipeline import classifier_preprocessing, segmentor_preprocessing, sliding_windows

import_mmlab()

from mmcv import Config  # noqa: E402

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "to_rgb": True}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet50_8xb32_in1k", Preprocessing((224, 224), **IMAGENET, resize="short_edge", short_edge=256)),
        ("mobilenet-v2_8xb32_in1k", Preprocessing((224, 224), **IMAGENET, resize="short_edge", short_edge=256, backend="pillow")),
        ("resnet18_8xb16_cifar10", Preprocessing((32, 32), (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255), True)),
        ("efficientnet-b0_8xb32_in1k", Preprocessing((224, 224), **IMAGENET, resize="centre", crop_padding=32, interpolation="bicubic")),
        ("resnet50_8xb8_cub", Preprocessing((448, 448), **IMAGENET, resize="stretch", stretched=(600, 600))),
        ("lenet5_mnist", Preprocessing((32, 32), (33.46,), (78.87,), resize="stretch")),
    ],
)
def test_classifiers(name, expected):
    assert classifier_preprocessing(read_config(f"mmcls:{name}"), channels=len(expected.mean)) == expected


@pytest.mark.parametrize(
    "name, size",
    [
        ("deeplabv3_m-v2-d8_512x512_160k_ade20k", (512, 512)),
        ("deeplabv3_r50-d8_512x512_20k_voc12aug", (512, 512)),
        ("deeplabv3_r50-d8_512x1024_40k_cityscapes", (512, 1024)),
        ("deeplabv3_r50-d8_480x480_40k_pascal_context", (480, 480)),
    ],
)
def test_segmentors_take_the_size_they_were_trained_with(name, size):
    assert segmentor_preprocessing(read_config(f"mmseg:{name}")) == Preprocessing(size, **IMAGENET, resize="fit")


def config_of(*steps):
    return Config(dict(model=dict(type="ImageClassifier"), data=dict(test=dict(type="ImageNet", pipeline=list(steps)))))


def test_without_normalisation_pixels_stay_as_files_hold_them():
    config = config_of(dict(type="LoadImageFromFile"), dict(type="Resize", size=(20, 30)))
    assert classifier_preprocessing(config) == Preprocessing((20, 30), to_rgb=False, resize="stretch")


@pytest.mark.parametrize(
    "step",
    [
        dict(type="LoadImageFromFile", color_type="grayscale"),
        dict(type="Pad", size_divisor=32),
        dict(type="Albu", transforms=[]),
        dict(type="Resize", size=(256, -1), adaptive_side="long"),
    ],
)
def test_a_transform_that_threepc_lacks_is_refused_by_name(step):
    with pytest.raises(InputError, match=f"test pipeline has {step['type']}.*cannot apply"):
        classifier_preprocessing(config_of(dict(type="LoadImageFromFile"), step))


def test_a_crop_larger_than_what_is_resized_is_refused():
    with pytest.raises(InputError, match=r"^model card: short_edge must be an integer from the larger side of size to 16384$"):
        classifier_preprocessing(config_of(dict(type="Resize", size=(200, -1)), dict(type="CenterCrop", crop_size=224)))


def test_a_config_that_does_not_say_the_size_is_refused():
    with pytest.raises(InputError, match=r"does not say the size.*--size"):
        classifier_preprocessing(config_of(dict(type="LoadImageFromFile")))
    assert classifier_preprocessing(config_of(dict(type="LoadImageFromFile")), size=(20, 30)).size == (20, 30)
    with pytest.raises(InputError, match=r"no data.test.pipeline"):
        classifier_preprocessing(Config(dict(model=dict(type="ImageClassifier"))))


def test_two_crops_one_after_the_other_are_refused():
    crop = dict(type="CenterCrop", crop_size=240, efficientnet_style=True)
    with pytest.raises(InputError, match=r"test pipeline has CenterCrop\(crop_size=240, efficientnet_style=True\)"):
        classifier_preprocessing(config_of(dict(type="LoadImageFromFile"), dict(type="Resize", size=256), crop))


def test_a_network_of_grey_images_may_read_them_so():
    config = config_of(dict(type="LoadImageFromFile", color_type="grayscale"), dict(type="Resize", size=(20, 30)))
    assert classifier_preprocessing(config, channels=1).shape == (1, 20, 30)


def test_resizing_to_multiples_is_known_for_segmentation():
    config = read_config("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug")
    transforms = config.data.test.pipeline[1].transforms
    transforms.insert(1, dict(type="ResizeToMultiple", size_divisor=16))
    assert segmentor_preprocessing(config).multiple == 16
    transforms[1]["interpolation"] = "nearest"
    with pytest.raises(InputError, match="ResizeToMultiple"):
        segmentor_preprocessing(config)


@pytest.mark.parametrize(
    "name, sliding",
    [
        ("pspnet_unet_s5-d16_128x128_40k_stare", Sliding((605, 700), (85, 85))),
        ("upernet_r50_769x769_40k_cityscapes", Sliding((2049, 1025), (513, 513))),
        ("fcn_r50-d8_512x512_80k_ade20k", None),
    ],
)
def test_windows_that_slide(name, sliding):
    assert sliding_windows(read_config(f"mmseg:{name}")) == sliding


@pytest.mark.parametrize("change", [{"img_scale": [(60, 40), (90, 60)]}, {"img_scale": None}, {"img_ratios": [0.5, 1.0]}])
def test_windows_that_slide_over_images_of_several_sizes_are_refused(change):
    config = read_config("mmseg:pspnet_unet_s5-d16_128x128_40k_stare")
    config["data"]["test"]["pipeline"][1].update(change)
    with pytest.raises(InputError, match=r"does not say one size of the image \(img_scale\)|MultiScaleFlipAug\("):
        sliding_windows(config)


def test_windows_that_leave_gaps_are_refused():
    config = read_config("mmseg:pspnet_unet_s5-d16_128x128_40k_stare")
    config["model"]["test_cfg"]["stride"] = (128, 129)
    with pytest.raises(InputError, match=r"windows of 128x128 pixels leave gaps at a stride of 128x129$"):
        sliding_windows(config)
