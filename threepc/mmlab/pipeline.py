"""Reads a config's test pipeline as a `Preprocessing`, which the client then applies without MMLab."""

from collections.abc import Mapping, Sequence
from typing import Any

from threepc.errors import InputError
from threepc.images.card import Preprocessing, Sliding

# transforms that move no pixel at test time
_NEUTRAL = {"RandomFlip", "ImageToTensor", "ToTensor", "DefaultFormatBundle", "Collect", "ToHalf", "Normalize"}
_CIFAR = {"CIFAR10": (32, 32), "CIFAR100": (32, 32)}  # datasets whose images come as arrays, red first, not as files


def classifier_preprocessing(config: Any, channels: int = 3, size: tuple[int, int] | None = None) -> Preprocessing:
    """The preprocessing of an mmcls config, from `data.test.pipeline`.

    channels: 1 or 3, used where the config does not normalise. size: (H, W) in pixels where it shall not be the config's own.
    Raises InputError naming a transform that threepc does not have, or where neither the config nor `size` says the size.
    """
    dataset, steps = _test_data(config)
    own_size = _CIFAR.get(dataset["type"])
    fields: dict[str, Any] = {"resize": "exact"}
    for step in steps:
        match step["type"]:
            case "Resize":
                fields |= _interpolation(step)
                height, width = _pair(step["size"])
                if width != -1:
                    own_size = (height, width)
                    fields |= {"resize": "stretch", "short_edge": 0}
                elif step.get("adaptive_side", "short") == "short":
                    own_size = (height, height)
                    fields |= {"resize": "short_edge", "short_edge": height}
                else:
                    raise _unsupported(step)
            case "CenterCrop" if step.get("efficientnet_style") and fields["resize"] == "exact":
                own_size = _pair(step["crop_size"])
                fields |= {"resize": "centre", "crop_padding": step.get("crop_padding", 32), **_interpolation(step)}
            case "CenterCrop" if not step.get("efficientnet_style"):
                if fields["resize"] == "stretch" and own_size != _pair(step["crop_size"]):
                    fields["stretched"] = own_size
                own_size = _pair(step["crop_size"])
            case _:
                _require_neutral(step, channels)
    wanted = own_size or size
    if wanted is None:
        raise InputError(
            "the config's test pipeline does not say the size of the network's input (no Resize, no CenterCrop); give it with --size"
        )
    # images that come as arrays are red first and become blue first by to_rgb, which swaps; files are read blue first
    from_files = any(step["type"] == "LoadImageFromFile" for step in steps)
    preprocessing = Preprocessing(size=wanted, **fields, **_normalisation(steps, channels, from_files))
    return preprocessing.with_size(size) if size else preprocessing


def segmentor_preprocessing(config: Any, size: tuple[int, int] | None = None) -> Preprocessing:
    """The preprocessing of an mmsegmentation config.

    Its networks take any size; threepc runs them at one: `size` (H, W), or the crop they were trained with. An image is made as large
    as fits, keeping its aspect ratio as mmsegmentation does, in sides of a multiple where the config wants that, and padded. Raises InputError as `classifier_preprocessing` does.
    """
    _, steps = _test_data(config)
    multiple = 1
    for step in steps:
        match step["type"]:
            case "ResizeToMultiple" if step.get("interpolation") in (None, "bilinear") and isinstance(step.get("size_divisor", 32), int):
                multiple = step.get("size_divisor", 32)
            case "Resize" if step.get("keep_ratio", True):
                multiple = 1
            case "MultiScaleFlipAug":
                pass
            case _:
                _require_neutral(step, 3)
    size = size or config.get("model").get("test_cfg", {}).get("crop_size") or _training_crop(config)
    if size is None:
        raise InputError("the config does not say the size of the network's input (no crop_size); give it with --size")
    return Preprocessing(size=_pair(size), resize="fit", multiple=multiple, **_normalisation(steps, 3, from_files=True))


def sliding_windows(config: Any) -> Sliding | None:
    """How the windows of an mmsegmentation config's test slide, None where it tests whole images. Raises InputError for what threepc cannot do."""
    settings = config.get("model").get("test_cfg", {})
    if settings.get("mode") != "slide":
        return None
    _, steps = _test_data(config)
    scales = [step["img_scale"] for step in steps if step.get("img_scale") is not None]
    known = {"RandomFlip", "ImageToTensor", "Collect", "LoadImageFromFile", "Normalize", "Resize", "MultiScaleFlipAug"}
    for step in steps:
        if step["type"] not in known or step.get("img_ratios") or not step.get("keep_ratio", True):
            raise _unsupported(step)
    if (
        len(scales) != 1
        or isinstance(scales[0], list)
        or not isinstance(scales[0], tuple)
        or not {"stride", "crop_size"} <= settings.keys()
    ):
        raise InputError(
            "the config tests by sliding windows, but does not say one size of the image (img_scale) and a stride of the windows"
        )
    stride, crop = _pair(settings["stride"]), _pair(settings["crop_size"])
    if any(not 1 <= step <= side for step, side in zip(stride, crop, strict=True)):
        raise InputError(f"the config's windows of {crop[0]}x{crop[1]} pixels leave gaps at a stride of {stride[0]}x{stride[1]}")
    return Sliding(_pair(scales[0]), stride)


def _test_data(config: Any) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """The test dataset and its transforms in order, those nested in another one right after it."""
    dataset = config.get("data", {}).get("test")
    if not isinstance(dataset, Mapping) or "pipeline" not in dataset:
        raise InputError("the config has no data.test.pipeline, which says how images become input")
    steps: list[Mapping[str, Any]] = []
    for step in dataset["pipeline"]:
        steps.append(step)
        steps.extend(step.get("transforms", ()))
    return dataset, steps


def _normalisation(steps: Sequence[Mapping[str, Any]], channels: int, from_files: bool) -> dict[str, Any]:
    normalise = next((step for step in steps if step["type"] == "Normalize"), {})
    swaps = normalise.get("to_rgb", True) if normalise else False
    mean = tuple(float(v) for v in normalise.get("mean", (0.0,) * channels))
    std = tuple(float(v) for v in normalise.get("std", (1.0,) * channels))
    return {"mean": mean, "std": std, "to_rgb": len(mean) == 1 or swaps == from_files}


def _require_neutral(step: Mapping[str, Any], channels: int) -> None:
    """Raise InputError for a transform that is none of those above and changes pixels."""
    kinds = ("color", "grayscale" if channels == 1 else "color")  # a grey network's client reads files in grey in any case
    if step["type"] not in _NEUTRAL and not (step["type"] == "LoadImageFromFile" and step.get("color_type", "color") in kinds):
        raise _unsupported(step)


def _interpolation(step: Mapping[str, Any]) -> dict[str, str]:
    return {"interpolation": step.get("interpolation", "bilinear"), "backend": step.get("backend", "cv2")}


def _training_crop(config: Any) -> Any:
    train = config.get("data", {}).get("train", {})
    while isinstance(train, Mapping) and "dataset" in train:  # RepeatDataset and its kind
        train = train["dataset"]
    train = train[0] if isinstance(train, (list, tuple)) else train
    return next((step["crop_size"] for step in train.get("pipeline", ()) if "crop_size" in step), None)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _unsupported(step: Mapping[str, Any]) -> InputError:
    arguments = ", ".join(f"{key}={value!r}" for key, value in step.items() if key not in ("type", "transforms"))
    return InputError(f"the config's test pipeline has {step['type']}({arguments}), which threepc's client cannot apply")
