"""From an MMLab config to one torch module: image in, logits out, named as mmcls and mmsegmentation name their parts."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threepc.card import ModelCard
from threepc.errors import InputError
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced
from threepc.mmlab.pipeline import classifier_preprocessing, segmentor_preprocessing

# A residual branch whose last batch norm starts at zero, as MMLab's do, contributes nothing: random networks start it at this
# instead, small enough that sixteen blocks keep the activations within one order of magnitude.
RESIDUAL_GAMMA = 0.5
CALIBRATION_IMAGES = 8
CALIBRATION_SIDE = 96


class ClassifierLogits(nn.Module):
    """An mmcls classifier without its softmax: (N, C, H, W) to logits (N, K)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone = classifier.backbone
        if classifier.with_neck:
            self.neck = classifier.neck
        self.head = classifier.head
        self._no_activation = {"sigmoid": False} if hasattr(classifier.head, "thr") else {"softmax": False}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        if hasattr(self, "neck"):
            features = self.neck(features)
        return self.head.simple_test(features, post_process=False, **self._no_activation)


class SegmentorLogits(nn.Module):
    """An mmsegmentation encoder and decoder before its resize to the image: (N, 3, H, W) to the decode head's logits (N, K, h, w)."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.backbone = segmentor.backbone
        if segmentor.with_neck:
            self.neck = segmentor.neck
        self.decode_head = segmentor.decode_head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        if hasattr(self, "neck"):
            features = self.neck(features)
        return self.decode_head(features)


def build(
    config: Any, name: str, checkpoint: str | Path | None, seed: int = 0, size: tuple[int, int] | None = None
) -> tuple[nn.Module, ModelCard]:
    """Build the network of an `mmcv.Config` in evaluation mode, with the weights of `checkpoint` or, without one, seeded random ones.

    size: (H, W) of the input in pixels where it shall not be the config's own.
    Nothing is downloaded: pretrained parts that the config names are left out. Synchronised batch norms become plain ones.
    Raises InputError for a model type, layer or transform that is not known, and as `load_checkpoint` does.
    """
    import_mmlab()
    from mmcls.models import CLASSIFIERS
    from mmseg.models import SEGMENTORS

    settings = _plain(config.model.to_dict() if hasattr(config.model, "to_dict") else dict(config.model))
    kind = settings.get("type")
    if kind == "ImageClassifier":
        registry, wrapper = CLASSIFIERS, ClassifierLogits
        settings.pop("train_cfg", None)
        preprocessing = classifier_preprocessing(config, settings["backbone"].get("in_channels", 3), size)
    elif kind == "EncoderDecoder":
        registry, wrapper = SEGMENTORS, SegmentorLogits
        settings.pop("auxiliary_head", None)
        preprocessing = segmentor_preprocessing(config, size)
    else:
        supported = "ImageClassifier of mmcls and EncoderDecoder of mmsegmentation are"
        raise InputError(f"{name}: model type {kind!r} is not supported ({supported})")
    settings["pretrained"] = None
    model = _construct(registry, settings, name)
    if checkpoint is None:
        _initialise(model, wrapper(model), seed, preprocessing.shape)
        meta = {}
    else:
        meta = load_checkpoint(model, checkpoint, ignore=("auxiliary_head.",))
    segmentation = kind == "EncoderDecoder"
    head = model.decode_head if segmentation else model.head
    dataset = _dataset_class(config, segmentation)
    names, colours = ((meta.get(key), getattr(dataset, key, None)) for key in ("CLASSES", "PALETTE"))
    card = ModelCard(
        name=name,
        preprocessing=preprocessing,
        classes=tuple(map(str, _one_for_each_output(names, head))),
        segmentation=segmentation,
        align_corners=bool(getattr(head, "align_corners", False)),
        palette=tuple(tuple(map(int, colour)) for colour in _one_for_each_output(colours, head)) if segmentation else (),
    )
    return wrapper(model).eval().requires_grad_(False), card


def _plain(settings: Any) -> Any:
    """A copy in which nothing is pretrained or synchronised between devices."""
    if isinstance(settings, dict):
        settings = {key: _plain(value) for key, value in settings.items() if key != "init_cfg" or not _pretrained(value)}
        if settings.get("type") in ("SyncBN", "MMSyncBN"):
            settings["type"] = "BN"
        return settings
    if isinstance(settings, (list, tuple)):
        return type(settings)(_plain(value) for value in settings)
    return settings


def _pretrained(init_cfg: Any) -> bool:
    return isinstance(init_cfg, dict) and init_cfg.get("type") == "Pretrained"


def _construct(registry: Any, settings: dict[str, Any], name: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]), known_warnings_silenced():  # constructors draw weights too, which are then replaced
            model = registry.build(settings)
    except InputError:
        raise
    except Exception as error:  # whatever a layer of the config raises
        raise InputError(f"{name}: the model cannot be built: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not hasattr(model, "decode_head" if settings["type"] == "EncoderDecoder" else "head"):
        raise InputError(f"{name}: the model has no head, so it has no logits")
    return model


def _initialise(model: nn.Module, forward: nn.Module, seed: int, shape: tuple[int, int, int]) -> None:
    """Random weights as MMLab starts a training, and batch norms that know the statistics of random images.

    Without the latter, activations fade layer by layer (MobileNetV2's logits to 1e-9), and a comparison with such a network shows nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.random.fork_rng(devices=[]), _quiet("mmcv"), torch.no_grad():
        torch.manual_seed(seed)
        model.init_weights()
        for norm in norms:
            if not norm.weight.any():
                nn.init.constant_(norm.weight, RESIDUAL_GAMMA)
        model.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # the plain average, here of one batch
        forward(_random_images(shape, any_size=any(isinstance(module, nn.AdaptiveAvgPool2d) for module in forward.modules())))
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


def _random_images(shape: tuple[int, int, int], any_size: bool) -> torch.Tensor:
    """Normalised images of coarse random patches, of different brightness and contrast, so that even their global averages vary."""
    channels, height, width = shape
    if any_size:
        height, width = min(height, CALIBRATION_SIDE), min(width, CALIBRATION_SIDE)
    count = CALIBRATION_IMAGES
    patches = torch.randn(count, channels, 8, 8) * torch.rand(count, 1, 1, 1) + torch.randn(count, channels, 1, 1)
    return nn.functional.interpolate(patches, size=(height, width)) + 0.1 * torch.randn(count, channels, height, width)


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """mmcv reports every parameter's initialisation; nobody asked."""
    logger = logging.getLogger(logger_name)
    disabled = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = disabled


def _dataset_class(config: Any, segmentation: bool) -> type | None:
    from mmcls.datasets import DATASETS as CLS_DATASETS
    from mmseg.datasets import DATASETS as SEG_DATASETS

    name = config.get("data", {}).get("test", {}).get("type")
    return (SEG_DATASETS if segmentation else CLS_DATASETS).get(name) if isinstance(name, str) else None


def _one_for_each_output(candidates: Iterable[Any], head: nn.Module) -> Sequence[Any]:
    """The first of the candidates that is a list with one entry for every output of the head, or ()."""
    count = getattr(head, "num_classes", None)
    return next((values for values in candidates if isinstance(values, (list, tuple)) and len(values) == count), ())
