"""From an MMLab config to one torch module: image in, logits out, named as mmcls and mmsegmentation name their parts."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threepc.errors import InputError
from threepc.images.card import ModelCard, Sliding, is_text
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced
from threepc.mmlab.pipeline import classifier_preprocessing, segmentor_preprocessing, sliding_windows
from threepc.mmlab.random_weights import initialise

SEGMENTOR_KINDS = ("EncoderDecoder", "CascadeEncoderDecoder")


class ClassifierLogits(nn.Module):
    """An mmcls classifier without its softmax or sigmoid: (N, C, H, W) to logits (N, K)."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        from mmcls.models.heads import MultiLabelClsHead

        self.backbone: Any = classifier.backbone
        if classifier.with_neck:
            self.neck: Any = classifier.neck
        self.head: Any = classifier.head
        self._no_activation = {"sigmoid" if isinstance(self.head, MultiLabelClsHead) else "softmax": False}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        features = self.backbone(images)
        if hasattr(self, "neck"):
            features = self.neck(features)
        return self.head.simple_test(features, post_process=False, **self._no_activation)


class SegmentorLogits(nn.Module):
    """An mmsegmentation encoder and decoder, or cascade of these, before the resize to the image: (N, 3, H, W) to logits (N, K, h, w)."""

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.backbone: Any = segmentor.backbone
        if segmentor.with_neck:
            self.neck: Any = segmentor.neck
        self.decode_head: Any = segmentor.decode_head
        self._test_cfg = segmentor.test_cfg

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, the last head's."""
        features = self.backbone(images)
        if hasattr(self, "neck"):
            features = self.neck(features)
        cascade = isinstance(self.decode_head, nn.ModuleList)
        first, *others = self.decode_head if cascade else [self.decode_head]
        logits = first.forward_test(features, None, self._test_cfg)
        for head in others:
            logits = head.forward_test(features, logits, None, self._test_cfg)
        return logits


def build(
    config: Any, name: str, checkpoint: str | Path | None, seed: int = 0, size: tuple[int, int] | None = None
) -> tuple[nn.Module, ModelCard]:
    """Build the network of an `mmcv.Config` in evaluation mode, with the weights of `checkpoint` or, without one, seeded random ones.

    size: (H, W) of the input in pixels where it shall not be the config's own.
    Nothing is downloaded: pretrained parts that the config names are left out. Synchronised batch norms become plain ones.
    Raises InputError for a model type, layer or transform that is not known, and as `load_checkpoint` does.
    """
    import_mmlab()
    from mmcls.datasets import MultiLabelDataset
    from mmcls.models import CLASSIFIERS
    from mmseg.models import SEGMENTORS

    settings = _plain(config.model.to_dict() if hasattr(config.model, "to_dict") else dict(config.model))
    kind = settings.get("type")
    if kind == "ImageClassifier":
        registry: Any = CLASSIFIERS
        wrapper: type[nn.Module] = ClassifierLogits
        settings.pop("train_cfg", None)
        preprocessing = classifier_preprocessing(config, settings["backbone"].get("in_channels", 3), size)
    elif kind in SEGMENTOR_KINDS:
        if any(_type(head) == "PointHead" for head in _listed(settings.get("decode_head"))):
            raise InputError(
                f"{name}: PointHead refines those points of which the map itself is least sure: places that depend on the image"
            )
        registry, wrapper = SEGMENTORS, SegmentorLogits
        settings.pop("auxiliary_head", None)
        preprocessing = segmentor_preprocessing(config, size)
    else:
        supported = "ImageClassifier of mmcls, EncoderDecoder and CascadeEncoderDecoder of mmsegmentation are"
        raise InputError(f"{name}: model type {kind!r} is not supported ({supported})")
    settings["pretrained"] = None
    model = _construct(registry, settings, name, seed)
    segmentation = kind in SEGMENTOR_KINDS
    if checkpoint is None:
        any_size = segmentation or any(isinstance(module, nn.AdaptiveAvgPool2d) for module in model.modules())
        initialise(model, wrapper(model), seed, preprocessing.shape, any_size)
        meta = {}
    else:
        meta = load_checkpoint(model, checkpoint, ignore=("auxiliary_head.",))
    head = _listed(model.decode_head)[-1] if segmentation else model.head
    outputs = getattr(head, "num_classes", None) or getattr(model.backbone, "num_classes", None)
    dataset = _dataset_class(config, segmentation)
    palette = _labels((meta.get("PALETTE"), getattr(dataset, "PALETTE", None)), outputs, _is_colour) if segmentation else ()
    card = ModelCard(
        name=name,
        preprocessing=preprocessing,
        classes=_labels((meta.get("CLASSES"), getattr(dataset, "CLASSES", None)), outputs, is_text),
        segmentation=segmentation,
        align_corners=bool(getattr(head, "align_corners", False)),
        palette=tuple(map(tuple, palette)),
        multi_label=dataset is not None and issubclass(dataset, MultiLabelDataset),
        sliding=_sliding(config) if segmentation and size is None else None,
    )
    return wrapper(model).eval().requires_grad_(False), card


def _sliding(config: Any) -> Sliding | None:
    try:
        return sliding_windows(config)
    except InputError as error:
        raise InputError(f"{error}; with --size HxW the network is shown whole images instead") from None


def _listed(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, list | tuple | nn.ModuleList) else [heads]


def _type(settings: Any) -> Any:
    return settings.get("type") if isinstance(settings, dict) else None


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


def _construct(registry: Any, settings: dict[str, Any], name: str, seed: int) -> Any:
    try:
        with torch.random.fork_rng(devices=[]), known_warnings_silenced():
            torch.manual_seed(seed)  # constructors draw weights too, and `init_weights` leaves some of them
            model = registry.build(settings)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: the model cannot be built: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not hasattr(model, "decode_head" if settings["type"] in SEGMENTOR_KINDS else "head"):
        raise InputError(f"{name}: the model has no head, so it has no logits")
    return model


def _dataset_class(config: Any, segmentation: bool) -> type | None:
    from mmcls.datasets import DATASETS as CLS_DATASETS
    from mmseg.datasets import DATASETS as SEG_DATASETS

    name = config.get("data", {}).get("test", {}).get("type")
    return (SEG_DATASETS if segmentation else CLS_DATASETS).get(name) if isinstance(name, str) else None


def _labels(candidates: Iterable[Any], outputs: int | None, valid: Callable[[Any], bool]) -> tuple[Any, ...]:
    """The first of the candidates that is a list with one valid entry for every output of the network, or ()."""
    for values in candidates:
        if isinstance(values, (list, tuple)) and len(values) == outputs and all(map(valid, values)):
            return tuple(values)
    return ()


def _is_colour(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value)
