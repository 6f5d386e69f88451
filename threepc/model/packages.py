"""Networks of timm and torchvision by name, with the preprocessing and the names of classes that their packages state for them.

Nothing is downloaded: without a checkpoint the weights are random (seeded).
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from threepc.errors import InputError, missing
from threepc.images.card import INTERPOLATIONS, ModelCard, Preprocessing, is_text
from threepc.mmlab.checkpoint import load_checkpoint
from threepc.mmlab.compat import import_torchvision
from threepc.mmlab.configs import did_you_mean
from threepc.mmlab.random_weights import settle

PACKAGES = ("timm", "torchvision")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(config: str, checkpoint: str | Path | None, seed: int, size: tuple[int, int] | None) -> tuple[nn.Module, ModelCard]:
    """The network of `timm:NAME` or `torchvision:NAME` in evaluation mode, with the weights of `checkpoint` or seeded random ones.

    size: (H, W) of the input in pixels where it shall not be the network's own.
    Raises InputError for a package that is not installed, a name that it does not have, preprocessing that a client cannot apply, and as
    `load_checkpoint` does.
    """
    package, _, name = config.partition(":")
    if importlib.util.find_spec(package) is None or not import_torchvision():
        absent = package if importlib.util.find_spec(package) is None else "torchvision"
        raise missing(absent)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions to come, and of initialisations: what these packages warn of while they build
        torch.manual_seed(seed)
        module, card = (_timm if package == "timm" else _torchvision)(name, config)
        if size is not None:
            card = replace(card, preprocessing=card.preprocessing.with_size(size))
        if checkpoint is None:
            settle(module, card.preprocessing.shape, any_size=True)
    if checkpoint is not None:
        load_checkpoint(module, checkpoint)
    return module.eval().requires_grad_(False), card


def _timm(name: str, config: str) -> tuple[nn.Module, ModelCard]:
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset

    architecture = name.partition(".")[0]
    _check_name(architecture, timm.list_models(), config)
    try:
        module = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # a tag that the architecture does not have
        raise InputError(f"{config}: {' '.join(str(error).split())}") from None
    described: Mapping[str, Any] = module.pretrained_cfg
    _, height, width = described["input_size"]
    crop, mode = described.get("crop_pct") or 1.0, described.get("crop_mode") or "center"
    if mode not in ("center", "squash") or (mode == "squash" and crop != 1):
        raise InputError(f"{config}: its images are cropped by crop_mode {mode!r}, which threepc's client cannot apply")
    resize = {"resize": "stretch"} if mode == "squash" else {"resize": "short_edge", "short_edge": math.floor(max(height, width) / crop)}
    subset = infer_imagenet_subset(module)
    classes = ImageNetInfo(subset).label_descriptions() if subset else ()
    shown = described.get("mean", _IMAGENET_MEAN), described.get("std", _IMAGENET_STD), described.get("interpolation", "bilinear")
    return module, _card(config, (height, width), shown, resize, classes)


def _torchvision(name: str, config: str) -> tuple[nn.Module, ModelCard]:
    from torchvision import models

    _check_name(name, models.list_models(module=models), config)
    described = models.get_model_weights(name).DEFAULT
    module, transform = models.get_model(name, weights=None), described.transforms()
    (side,), (short_edge,) = transform.crop_size, transform.resize_size
    shown = transform.mean, transform.std, transform.interpolation.value
    resize = {"resize": "short_edge", "short_edge": short_edge}
    return module, _card(config, (side, side), shown, resize, described.meta.get("categories", ()))


def _check_name(name: str, known: list[str], config: str) -> None:
    if name not in known:
        package = config.partition(":")[0]
        raise InputError(f"{package} has no model {name!r}{did_you_mean(name, {each: f'{package}:{each}' for each in known})}")


def _card(
    name: str, size: tuple[int, int], shown: tuple[Iterable[float], Iterable[float], str], resize: dict[str, Any], classes: Iterable[str]
) -> ModelCard:
    """shown: mean and deviation, of pixels from 0 to 1, and the interpolation, which is Pillow's."""
    mean, std = (tuple(255 * float(value) for value in values) for values in shown[:2])
    if shown[2] not in INTERPOLATIONS["pillow"]:
        raise InputError(f"{name}: its images are resized by {shown[2]!r} interpolation, which threepc's client cannot apply")
    preprocessing = Preprocessing(size, mean, std, interpolation=shown[2], backend="pillow", **resize)
    named = tuple(classes)
    return ModelCard(name, preprocessing, classes=named if all(map(is_text, named)) else ())
