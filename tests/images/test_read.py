"""Images become the same input as in mmcls' own test pipeline, and each bad file is refused in one line that names it."""

import dataclasses
import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import load_images, load_labels, preprocess, read_image, resized_size
from threepc.mmlab.compat import import_mmlab
from threepc.mmlab.configs import read_config
from threepc.mmlab.pipeline import classifier_preprocessing, segmentor_preprocessing

import_mmlab()
PLAIN = Preprocessing((4, 6))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """scikit-learn's two photographs as PNG, one upright, and one in grey."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = (image[:, :, ::-1] for image in load_sample_images().images)
    cv2.imwrite(str(folder / "china.png"), china)
    cv2.imwrite(str(folder / "upright.jpg"), np.rot90(flower))
    cv2.imwrite(str(folder / "grey.png"), cv2.cvtColor(flower, cv2.COLOR_BGR2GRAY))
    return [folder / "china.png", folder / "upright.jpg", folder / "grey.png"]


def through_mmcls(config, path):
    from mmcls.datasets.pipelines import Compose

    return Compose(config.data.test.pipeline)({"img_prefix": None, "img_info": {"filename": str(path)}})["img"].numpy()


@pytest.mark.parametrize(
    "name",
    [
        "mmcls:resnet50_8xb32_in1k",  # resizes with OpenCV
        "mmcls:mobilenet-v2_8xb32_in1k",  # resizes with Pillow
        "mmcls:resnet50_8xb256-rsb-a1-600e_in1k",  # Pillow, bicubic, 236 pixels
        "mmcls:resnet50_8xb8_cub",  # a square of 600, 448 cut out
        "mmcls:efficientnet-b1_8xb32_in1k",  # cuts a part of the shorter edge out and resizes that, with OpenCV
        "mmcls:resnest50_32xb64_in1k",  # with Pillow
    ],
)
def test_inputs_are_those_of_mmcls(name, photos):
    config = read_config(name)
    preprocessing = classifier_preprocessing(config)
    ours = load_images(photos, preprocessing)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    for mine, path in zip(ours, photos):
        np.testing.assert_allclose(mine, through_mmcls(config, path), rtol=0, atol=2e-6)


def test_inputs_are_those_of_mmsegmentation_and_padded(photos):
    from mmseg.datasets.pipelines import Compose

    config = read_config("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug")
    config.data.test.pipeline[1].img_scale = (512, 512)
    theirs = Compose(config.data.test.pipeline)({"img_prefix": None, "img_info": {"filename": str(photos[0])}})["img"][0].numpy()
    ours = load_images(photos[:1], segmentor_preprocessing(config))[0]
    height, width = theirs.shape[1:]
    assert ours.shape == (3, 512, 512) and (height, width) == (342, 512)
    np.testing.assert_allclose(ours[:, :height], theirs, rtol=0, atol=2e-6)
    assert not ours[:, height:].any()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 30), st.integers(0, 40))
def test_the_centre_is_what_mmcls_cuts_out(height, width, side, padding):
    from mmcls.datasets.pipelines import CenterCrop

    assume(side / (side + padding) * min(height, width) >= 1)  # mmcls fails where less than a pixel is left
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    crop = CenterCrop(side, efficientnet_style=True, crop_padding=padding, interpolation="nearest")
    theirs = crop({"img": image})["img"].transpose(2, 0, 1)
    ours = preprocess(image, Preprocessing((side, side), to_rgb=False, resize="centre", crop_padding=padding, interpolation="nearest"))
    np.testing.assert_array_equal(ours, theirs)


def test_of_the_smallest_images_a_pixel_is_left():
    for shape in ((1, 1), (1, 9), (9, 1)):
        image = np.full((*shape, 3), 7, np.uint8)
        assert (preprocess(image, Preprocessing((2, 2), resize="centre", crop_padding=30)) == 7).all()


def test_fitted_images_are_made_multiples_as_in_mmsegmentation(photos):
    from mmseg.datasets.pipelines import Compose

    config = read_config("mmseg:fpn_poolformer_s12_8x4_512x512_40k_ade20k")
    config.data.test.pipeline[1].img_scale = (512, 512)
    theirs = Compose(config.data.test.pipeline)({"img_prefix": None, "img_info": {"filename": str(photos[0])}})["img"][0].numpy()
    preprocessing = segmentor_preprocessing(config)
    ours = load_images(photos[:1], preprocessing)[0]
    assert theirs.shape[1:] == (352, 512) == resized_size((427, 640), preprocessing)
    np.testing.assert_allclose(ours[:, :352], theirs, rtol=0, atol=2e-6)
    assert not ours[:, 352:].any()


def test_cifar_images_are_taken_red_first_as_mmcls_stores_them(tmp_path):
    from mmcv import imnormalize

    preprocessing = classifier_preprocessing(read_config("mmcls:resnet18_8xb16_cifar10"))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)  # red first, as in the CIFAR files
    cv2.imwrite(str(tmp_path / "a.png"), pixels[:, :, ::-1])
    expected = imnormalize(pixels, np.array([125.307, 122.961, 113.8575]), np.array([51.5865, 50.847, 51.255]), to_rgb=False)
    np.testing.assert_allclose(load_images([tmp_path / "a.png"], preprocessing)[0], expected.transpose(2, 0, 1), atol=2e-6)


def test_grey_networks_get_one_channel(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((6, 8, 3), 50, np.uint8))
    images = load_images([tmp_path / "a.png"], Preprocessing((3, 4), (30.0,), (2.0,), resize="stretch"))
    np.testing.assert_array_equal(images, np.full((1, 1, 3, 4), 10, np.float32))


def test_images_and_arrays_keep_the_order_given(tmp_path):
    np.save(tmp_path / "two.npy", np.stack([np.full((3, 4, 6), 1), np.full((3, 4, 6), 2)]))
    np.save(tmp_path / "one.npy", np.full((3, 4, 6), 3.0))
    cv2.imwrite(str(tmp_path / "four.bmp"), np.full((4, 6, 3), 4, np.uint8))
    images = load_images([tmp_path / "four.bmp", tmp_path / "two.npy", tmp_path / "one.npy"], PLAIN)
    assert images.dtype == np.float32
    assert [float(image.mean()) for image in images] == [4, 1, 2, 3]


def bad_files(folder):
    """Name to what its message must say."""
    (folder / "text.png").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "folder.png").mkdir()
    cv2.imwrite(str(folder / "small.png"), np.zeros((5, 6, 3), np.uint8))
    np.save(folder / "shape.npy", np.zeros((3, 6, 4)))
    np.save(folder / "vector.npy", np.zeros(72))
    np.save(folder / "nan.npy", np.full((3, 4, 6), np.nan))
    np.save(folder / "huge.npy", np.full((3, 4, 6), 1e300))
    np.save(folder / "complex.npy", np.zeros((3, 4, 6), complex))
    np.save(folder / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "text.npy").write_text("not an array")
    np.save(folder / "none.npy", np.zeros((0, 3, 4, 6)))
    return {
        "missing.png": "does not exist",
        "missing.npy": "does not exist",
        "text.png": "not an image",
        "empty.jpg": "not an image",
        "folder.png": "is not a file",
        "small.png": "has 6x5 pixels, but the model takes exactly 6x4",
        "shape.npy": r"has shape \(3, 6, 4\), but the model takes \(C, H, W\) = \(3, 4, 6\)",
        "vector.npy": "has shape",
        "nan.npy": "NaN",
        "huge.npy": "beyond 32-bit floats",
        "complex.npy": "real numbers",
        "pickled.npy": "not a .npy file of numbers",
        "text.npy": "not a .npy file of numbers",
        "none.npy": "has shape",
    }


def test_each_bad_file_is_refused_in_one_line_that_names_it(tmp_path):
    for name, message in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            load_images([tmp_path / name], PLAIN)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["two.gif", "two.webp", "two.png"])
def test_an_animation_is_refused_and_one_image_of_its_kind_is_read(tmp_path, name):
    first, second = (Image.fromarray(np.full((6, 7, 3), shade, np.uint8)) for shade in (10, 250))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=rf"{name} is an animation of several images: save the one that is meant as a file of its own$"):
        read_image(tmp_path / name)
    first.save(tmp_path / name)
    assert read_image(tmp_path / name).shape == (6, 7, 3)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [20_000, 40_000, 2**31 - 1])
def test_an_image_of_too_many_pixels_is_said_to_be_too_large(tmp_path, side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"a.png is too large: an image may have 178,956,970 pixels"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("shape", [(10**12, 3, 4, 6), (10**6, 3, 4, 6), (10**30, 3, 4, 6)])
def test_a_header_that_claims_more_images_than_the_file_holds(tmp_path, shape):
    with (tmp_path / "many.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(1000))
    with pytest.raises(InputError, match=r"many.npy (says that it holds more than memory does|is not a .npy file of numbers)") as caught:
        load_images([tmp_path / "many.npy"], PLAIN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_half_an_image_is_refused_and_nothing_else_is_said(tmp_path, photos, suffix, capfd):
    encoded = cv2.imencode(suffix, cv2.imread(str(photos[0])))[1].tobytes()
    (tmp_path / f"half{suffix}").write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(InputError, match=f"half{suffix} is not an image that OpenCV can read .* or it is damaged"):
        read_image(tmp_path / f"half{suffix}")
    assert capfd.readouterr() == ("", "")
    (tmp_path / f"whole{suffix}").write_bytes(encoded)
    assert read_image(tmp_path / f"whole{suffix}").shape == (427, 640, 3)


def test_no_image_and_a_model_of_another_shape_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^no image given$"):
        load_images([], PLAIN)
    with pytest.raises(InputError, match="the model takes inputs of shape"):
        load_images([tmp_path / "a.png"], PLAIN, (3, 4, 7))


def test_read_image_gives_pixels(tmp_path):
    pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    assert read_image(tmp_path / "a.png", channels=1).shape == (4, 6)


def test_labels_by_index_and_by_name(tmp_path):
    card = ModelCard("net", PLAIN, classes=("cat", "dog"))
    (tmp_path / "labels.json").write_text(json.dumps({"a.png": 1, "b.png": "cat"}))
    assert load_labels(tmp_path / "labels.json", ["x/b.png", "y/a.png"], card) == [0, 1]
    assert load_labels(tmp_path / "labels.json", ["a.png"], dataclasses.replace(card, classes=())) == [1]


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"b.png": 0}', "no entry 'a.png'"),
        ('{"a.png": 2}', "is no class"),
        ('{"a.png": "cow"}', "is no class"),
        ('{"a.png": -1}', "is no class"),
        ('{"a.png": true}', "is no class"),
        ('{"a.png": [' + "[" * 100_000, "not JSON: nested too deeply"),
    ],
)
def test_bad_labels_are_refused(tmp_path, text, message):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_labels(tmp_path / "labels.json", ["a.png"], ModelCard("net", PLAIN, classes=("cat", "dog")))


@pytest.mark.parametrize("header", (b"{'descr': '<f4', 'shape': (2, 3, 6, 6), } 6, 6), }", b"{'descr': \0 }", b"{'descr': '<f4',\n (("))
def test_a_header_that_is_no_python_is_refused(tmp_path, header):
    """Inputs that fuzzing found: numpy reads the header as Python, and raises what the parser or the tokenizer does."""
    path = tmp_path / "odd.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(InputError, match=r"odd\.npy is not a \.npy file of numbers"):
        load_images([path], PLAIN)
