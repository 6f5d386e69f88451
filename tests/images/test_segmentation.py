"""Labels are those of torch's resizes, as mmsegmentation does them; the picture shows them with a legend."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import resized_size
from threepc.images.segmentation import pixel_labels, write_overlay


def card_of(size, align_corners=False, resize="fit", **fields):
    return ModelCard("net", Preprocessing(size, resize=resize), segmentation=True, align_corners=align_corners, **fields)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("image_size", [(64, 96), (200, 131), (17, 90)])
def test_labels_are_those_of_mmsegmentation(image_size, align_corners):
    card = card_of((64, 96), align_corners)
    logits = np.random.default_rng(1).normal(size=(7, 8, 12)).astype(np.float32)
    height, width = resized_size(image_size, card.preprocessing)
    at_input = interpolate(torch.from_numpy(logits)[None], size=(64, 96), mode="bilinear", align_corners=align_corners)[
        :, :, :height, :width
    ]
    at_image = interpolate(at_input, size=image_size, mode="bilinear", align_corners=align_corners)[0]
    labels = pixel_labels(logits, card, image_size)
    assert labels.shape == image_size and labels.dtype == np.uint16
    top_two = at_image.topk(2, dim=0).values
    clear = (top_two[0] - top_two[1]).numpy() > 1e-5  # where rounding cannot decide
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], at_image.argmax(0).numpy()[clear])


def test_revealed_classes_are_repeated_to_the_nearest_pixel():
    classes = np.array([[0, 1, 2], [3, 4, 5]])
    labels = pixel_labels(classes, card_of((16, 24)), (32, 48))
    np.testing.assert_array_equal(labels, classes.repeat(16, 0).repeat(16, 1))


def test_padding_takes_no_part():
    classes = np.zeros((4, 4), int)
    classes[2:] = 9  # an image twice as wide as high fills the upper half only
    assert not pixel_labels(classes, card_of((32, 32)), (50, 100)).any()


@pytest.mark.parametrize(
    "fields",
    [{"resize": "short_edge", "short_edge": 40}, {"resize": "centre", "crop_padding": 4}, {"resize": "stretch", "stretched": (40, 40)}],
)
def test_a_cut_image_is_refused(fields):
    preprocessing = Preprocessing((32, 32), **fields)
    with pytest.raises(InputError, match="preprocessing cuts off a part of the image"):
        pixel_labels(np.zeros((4, 4), int), ModelCard("net", preprocessing, segmentation=True), (50, 60))


@pytest.mark.parametrize("image_shape", [(60, 80, 3), (60, 80), (300, 40, 3)])
def test_overlay_shows_image_labels_and_legend(tmp_path, image_shape):
    image = np.full(image_shape, 200, np.uint8)
    labels = np.zeros(image_shape[:2], int)
    labels[:, image_shape[1] // 2 :] = 2
    card = card_of((32, 32), classes=("sky", "sea", "sand"), palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    write_overlay(tmp_path / "map.png", image, labels, card)
    page = cv2.imread(str(tmp_path / "map.png"))
    height, width = image_shape[:2]
    assert page.shape == (max(height, 2 * 24 + 8), width + 300, 3)
    np.testing.assert_array_equal(page[0, 0], [80, 80, 233])  # red over grey, blue first
    np.testing.assert_array_equal(page[0, width - 1], [233, 80, 80])
    swatches = page[:56, width + 8 : width + 25].reshape(-1, 3).tolist()
    assert [0, 0, 255] in swatches and [255, 0, 0] in swatches and [0, 255, 0] not in swatches
    assert (page[:56, width + 32 :] < 128).any()  # text
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_colours_without_a_palette_are_distinct(tmp_path):
    labels = np.arange(32).repeat(4)[None].repeat(2, 0)
    write_overlay(tmp_path / "map.png", np.zeros((2, 128, 3), np.uint8), labels, card_of((32, 32)))
    page = cv2.imread(str(tmp_path / "map.png"))
    assert len({tuple(colour) for colour in page[0, :128].tolist()}) == 32
    assert page.shape[0] == 13 * 24 + 8  # twelve classes, and how many more there are
    assert (page[-30:, 128 + 32 :] < 128).any() and (page[-30:, 128:150] == 255).all()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"^cannot write {tmp_path}/file/map.png: "):
        write_overlay(tmp_path / "file" / "map.png", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int), card_of((4, 4)))
