"""Images to measure distortions on: some of a config's own training images, as the network sees them at test time."""

from __future__ import annotations

from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.images.card import ModelCard
from threepc.images.read import preprocess
from threepc.mmlab.compat import import_mmlab
from threepc.mmlab.configs import read_config


def load_samples(config: str, card: ModelCard, count: int, part: str = "train") -> np.ndarray:
    """`count` images of a config's dataset, evenly spread over it: float32 (count, C, H, W).

    `config`: "mmcls:NAME", "mmseg:NAME" or a file; `card` is its model's; `part` "train", "val" or "test". Distortions want images
    the network was trained with, so that held-out ones stay so. Raises InputError where the dataset is absent, empty or smaller.
    """
    if count < 1:
        raise InputError(f"{count} samples: at least one is needed")
    read = read_config(config)
    if part not in read.get("data", {}):
        raise InputError(f"{config} has no dataset data.{part}")
    settings = read.data[part]
    while "dataset" in settings:
        settings = settings["dataset"]
    settings = dict(settings[0] if isinstance(settings, (list, tuple)) else settings)
    import_mmlab()
    if card.segmentation:
        from mmseg.datasets import build_dataset

        settings["pipeline"] = [{"type": "LoadImageFromFile"}]
    else:
        from mmcls.datasets import build_dataset

        settings["pipeline"] = read.data.test.pipeline
    try:
        dataset = build_dataset(settings)
        if len(dataset) < count:
            raise InputError(f"{config}: data.{part} has {len(dataset)} images, {count} were asked for")
        chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
        return np.stack([_image(dataset, int(index), card) for index in chosen]).astype(np.float32)
    except (OSError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{config}: data.{part} cannot be read ({reason}): put the dataset where the config expects it") from None


def _image(dataset: Any, index: int, card: ModelCard) -> np.ndarray:
    if not card.segmentation:
        return np.asarray(dataset[index]["img"])
    # mmsegmentation's test pipelines keep each image's size; the secure client resizes as the card says.
    results = {"img_info": dataset.img_infos[index]}
    dataset.pre_pipeline(results)
    return preprocess(dataset.pipeline(results)["img"], card.preprocessing)
