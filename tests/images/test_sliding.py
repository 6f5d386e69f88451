"""Windows and the averages of their logits are those of mmsegmentation's own sliding inference."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from threepc.errors import InputError
from threepc.images import sliding as module
from threepc.images.card import ModelCard, Preprocessing, Sliding
from threepc.images.sliding import image_inputs, image_labels, image_logits
from threepc.mmlab.compat import import_mmlab

WEIGHT = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def network(crops):
    """Logits at a quarter of the input's size."""
    return F.conv2d(crops, WEIGHT, stride=4)


def card_of(sliding, window=(16, 32), align_corners=False, **more):
    return ModelCard("net", Preprocessing(window, resize="fit", **more), segmentation=True, align_corners=align_corners, sliding=sliding)


def theirs(image, card):
    """What mmsegmentation's slide_inference gives for an image resized by mmcv: logits (K, H, W) at the image's size."""
    import_mmlab()
    import mmcv
    from mmseg.models import EncoderDecoder

    resized = mmcv.imrescale(image, card.sliding.scale)
    pixels = torch.from_numpy(resized[:, :, ::-1].astype(np.float32).transpose(2, 0, 1).copy())[None]
    resize = lambda maps, size: F.interpolate(maps, size=size, mode="bilinear", align_corners=card.align_corners)
    segmentor = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=card.sliding.stride, crop_size=card.preprocessing.size),
        out_channels=5,
        align_corners=card.align_corners,
        encode_decode=lambda crop, meta: resize(network(crop), crop.shape[2:]),
    )
    meta = [{"img_shape": resized.shape, "ori_shape": image.shape}]
    return EncoderDecoder.slide_inference(segmentor, pixels, meta, True)[0].numpy()


@settings(max_examples=15, deadline=None)
@given(st.integers(40, 90), st.integers(40, 90), st.sampled_from([(60, 48), (100, 40), (48, 48)]), st.integers(5, 16), st.booleans())
def test_logits_and_labels_are_those_of_mmsegmentation(height, width, scale, stride, align_corners):
    image = cv2.blur(np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8), (3, 3))
    sliding = Sliding(scale, (stride, 2 * stride))
    assume(min(sliding.resized_size((height, width))) >= 32)
    card = card_of(sliding, align_corners=align_corners)
    inputs = image_inputs(image, card)
    assert inputs.dtype == np.float32 and inputs.shape[1:] == (3, 16, 32) and len(inputs) <= sliding.most((16, 32))
    outputs = network(torch.from_numpy(inputs)).numpy()
    wanted, logits, labels = (
        theirs(image, card),
        image_logits(outputs, card, sliding, image.shape[:2]),
        image_labels(outputs, card, image.shape[:2]),
    )
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(labels, logits.argmax(0))
    least, most = np.sort(wanted, axis=0)[-2:]
    clear = most - least > 1e-3  # where rounding cannot decide
    assert labels.dtype == np.uint16 and clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], wanted.argmax(0)[clear])


def test_an_image_smaller_than_a_window_is_padded():
    card = card_of(Sliding((24, 24), (8, 8)), (32, 48), std=(2.0,) * 3)
    inputs = image_inputs(np.full((24, 20, 3), 100, np.uint8), card)
    assert inputs.shape == (1, 3, 32, 48)
    assert (inputs[:, :, :24, :20] == 50).all() and not inputs[:, :, 24:].any() and not inputs[:, :, :, 20:].any()
    outputs = np.zeros((1, 2, 32, 48))
    outputs[:, 1, 24:], outputs[:, 1, :, 20:] = 1, 1
    assert image_labels(outputs, card, (24, 20))[:20, :16].max() == 0


@pytest.mark.parametrize("size, count", [((32, 48), 1), ((33, 48), 2), ((40, 48), 2), ((41, 57), 9)])
def test_windows_cover_the_image(size, count):
    card = card_of(Sliding((size[1], size[0]), (8, 8)), (32, 48))
    assert len(image_inputs(np.zeros((*size, 3), np.uint8), card)) == count <= card.sliding.most((32, 48))


def test_logits_that_are_too_many_to_hold(monkeypatch):
    monkeypatch.setattr(module, "MOST_LOGITS", 1000)
    card = card_of(Sliding((48, 32), (8, 8)), (32, 48))
    with pytest.raises(InputError, match=r"^logits of 2 classes for 25x21 pixels are too many to hold: make the image smaller$"):
        image_logits(np.zeros((1, 2, 8, 12)), card, card.sliding, (21, 25))
