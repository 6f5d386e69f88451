"""Networks of timm and torchvision, with their preprocessing; the packages' own transforms say what it must be."""

import importlib.util

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from threepc.errors import InputError
from threepc.images.read import load_images
from threepc.model.load import load_model


@pytest.fixture
def photo(tmp_path):
    """A PNG of 70 x 90 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.resize(pixels, (90, 70), interpolation=cv2.INTER_CUBIC))
    return tmp_path / "photo.png"


def test_a_network_of_timm_and_its_preprocessing(photo):
    model = load_model("timm:resnet18", seed=3)
    import timm

    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=timm.create_model("resnet18"), use_test_size=False))
    assert model.name == "timm:resnet18" and model.weights_source == "seeded random weights (no checkpoint given)"
    assert model.card.class_name(1) == "goldfish, Carassius auratus" and not model.assumed_card
    expected = transform(Image.open(photo)).numpy()
    np.testing.assert_allclose(load_images([photo], model.preprocessing)[0], expected, atol=1e-5)
    outputs = model.module(torch.from_numpy(expected)[None])
    assert outputs.shape == (1, 1000) and 0.1 < outputs.abs().max() < 100
    assert torch.equal(outputs, load_model("timm:resnet18", seed=3).module(torch.from_numpy(expected)[None]))
    assert not torch.equal(outputs, load_model("timm:resnet18", seed=4).module(torch.from_numpy(expected)[None]))


def test_a_network_of_torchvision_and_its_preprocessing(photo):
    model = load_model("torchvision:squeezenet1_1")
    from torchvision.models import SqueezeNet1_1_Weights

    expected = SqueezeNet1_1_Weights.DEFAULT.transforms()(Image.open(photo)).numpy()
    np.testing.assert_allclose(load_images([photo], model.preprocessing)[0], expected, atol=1e-5)
    assert model.card.class_name(0) == "tench"


def test_checkpoints_and_sizes(tmp_path):
    from safetensors.torch import save_file

    model = load_model("timm:resnet18", seed=1, size=(40, 48))
    assert model.example_shape == (1, 3, 40, 48)
    save_file(model.module.state_dict(), tmp_path / "a.safetensors")
    loaded = load_model("timm:resnet18", tmp_path / "a.safetensors")
    assert torch.equal(loaded.module.fc.weight, model.module.fc.weight) and loaded.weights_source == "weights of the checkpoint"
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"b.safetensors is damaged or not a safetensors file$"):
        load_model("timm:resnet18", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "config, said",
    [
        ("timm:resnte18", r"^timm has no model 'resnte18'; did you mean timm:resnet18 or "),
        ("timm:resnet18.nowhere", r"^timm:resnet18.nowhere: Invalid pretrained tag \(nowhere\) for resnet18.$"),
        ("torchvision:fcn_resnet50", r"^torchvision has no model 'fcn_resnet50'; did you mean torchvision:resnet50 "),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(config, said):
    with pytest.raises(InputError, match=said):
        load_model(config)


@pytest.mark.parametrize("missing", ["timm", "torchvision"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(
        InputError, match=rf"^the package {missing} is needed for this and is not installed: pip install 'threepc\[timm\]'$"
    ):
        load_model("timm:resnet18")
