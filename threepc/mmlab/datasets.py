"""The test data of an MMLab config: images as a client has them, with what mmcls's and mmsegmentation's datasets say is true of them.

The datasets themselves find files and read annotations. Their pipelines are not used: inputs are made by the client's own
preprocessing, which gives the same (tests/test_imaging.py). Nothing is downloaded, and no pickle is executed: CIFAR's, which mmcls
unpickles, are read by a reader that admits arrays in plain containers alone.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.images.read import read_image
from threepc.mmlab.array_pickle import read_arrays
from threepc.mmlab.compat import import_mmlab, known_warnings_silenced, quiet
from threepc.mmlab.configs import read_config

# CIFAR-100's training set has 155 MB.
LARGEST_PICKLE = 1 << 28
PATH_KEYS = ("data_root", "data_prefix", "ann_file", "img_dir", "ann_dir", "split")


@dataclass(frozen=True)
class Sample:
    """One image, uint8 (H, W, 3) blue first, or (H, W), as `imaging.read_image` gives it; its true class, None in a segmentation."""

    name: str
    image: np.ndarray
    label: int | None


class ClassificationData:
    """Images with one class each, from an mmcls dataset."""

    segmentation = False

    def __init__(self, dataset: Any, channels: int) -> None:
        self._infos, self._channels = dataset.data_infos, channels
        self.name, self.classes = type(dataset).__name__, tuple(dataset.CLASSES or ())

    def __len__(self) -> int:
        return len(self._infos)

    def __getitem__(self, index: int) -> Sample:
        """Raises InputError naming a file that cannot be read."""
        info = self._infos[index]
        label = np.asarray(info["gt_label"])
        if label.ndim:
            raise InputError(f"{self.name}: images with several classes each cannot be evaluated")
        if "img" in info:
            image = info["img"]  # arrays are red first
            return Sample(f"{self.name}[{index}]", np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image), int(label))
        path = Path(info["img_prefix"] or "") / info["img_info"]["filename"]
        return Sample(str(info["img_info"]["filename"]), read_image(path, self._channels), int(label))


class SegmentationData:
    """Images with a class for each pixel, from an mmsegmentation dataset."""

    segmentation = True

    def __init__(self, dataset: Any) -> None:
        if any("ann" not in info for info in dataset.img_infos):
            raise InputError(f"{type(dataset).__name__} has no annotations (ann_dir) to evaluate with")
        self._dataset = dataset
        self.name, self.classes = type(dataset).__name__, tuple(dataset.CLASSES)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises InputError naming a file that cannot be read."""
        name = self._dataset.img_infos[index]["filename"]
        return Sample(name, read_image(Path(self._dataset.img_dir) / name), None)

    def areas(self, index: int, labels: np.ndarray) -> np.ndarray:
        """Pixels by class, int64 (3, classes): where labels (H, W) and truth agree, where either has the class, where the truth has it.

        Pixels that the dataset ignores count nowhere. Raises InputError for an annotation that is missing or of another size.
        """
        path = Path(self._dataset.ann_dir) / self._dataset.img_infos[index]["ann"]["seg_map"]
        if not path.is_file():
            raise InputError(f"{path} does not exist")
        try:
            ((intersect, union, _, truth),) = self._dataset.pre_eval(labels.astype(np.int64), index)
        except (IndexError, OSError, ValueError) as error:
            image = self._dataset.img_infos[index]["filename"]
            raise InputError(f"{path} is no annotation of {image}: {' '.join(str(error).split())}") from None
        return np.stack([part.numpy() for part in (intersect, union, truth)]).astype(np.int64)


def open_dataset(config: str, channels: int = 3, root: Path | None = None) -> ClassificationData | SegmentationData:
    """The dataset `data.test` of an MMLab config.

    root: the folder that stands for the config's `data/NAME`, under which its paths lie. channels: of the network's input, for image files.
    Raises InputError: no dataset in the config, files missing, or in a form that its dataset class does not read.
    """
    if ":" in config and config.partition(":")[0] not in ("mmcls", "mmseg"):
        raise InputError(f"{config} names no dataset; evaluation takes an MMLab config with data.test")
    settings = read_config(config).get("data", {}).get("test")
    if not isinstance(settings, Mapping) or not isinstance(settings.get("type"), str):
        raise InputError(f"{config}: the config has no dataset data.test")
    import_mmlab()
    from mmcls.datasets import DATASETS as CLS_DATASETS
    from mmseg.datasets import DATASETS as SEG_DATASETS

    settings = {key: _moved(value, root) if key in PATH_KEYS else value for key, value in settings.items()}
    settings |= {"pipeline": [], "test_mode": True}
    kind = settings.pop("type")
    segmentation = kind in SEG_DATASETS and config.partition(":")[0] != "mmcls" and "img_dir" in settings
    dataset_class = (SEG_DATASETS if segmentation else CLS_DATASETS).get(kind)
    if dataset_class is None:
        raise InputError(f"{config}: dataset {kind!r} is not one of mmcls or mmsegmentation")
    try:
        with known_warnings_silenced(), quiet("mmseg"), _no_downloads():
            dataset = _without_pickle(dataset_class)(**settings)
    except InputError:
        raise
    except Exception as error:  # whatever a dataset's constructor raises for files that are not there or not what it reads
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{config}: the dataset {kind} cannot be read: {reason}; --data-root says where it is") from error
    if len(dataset) == 0:
        raise InputError(f"{config}: the dataset {kind} is empty; --data-root says where it is")
    if segmentation:
        return SegmentationData(dataset)
    if not hasattr(dataset, "data_infos"):
        raise InputError(f"{config}: dataset {kind!r}, made of others, cannot be evaluated")
    return ClassificationData(dataset, channels)


def _moved(path: Any, root: Path | None) -> Any:
    """A config's path below `data/NAME`, below `root` instead."""
    if root is None or not isinstance(path, str):
        return path
    parts = Path(path).parts
    return str(Path(root).joinpath(*parts[2:])) if parts[:1] == ("data",) else path


@contextlib.contextmanager
def _no_downloads() -> Iterator[None]:
    """While it lasts, mmcls's datasets that would fetch what is missing say so instead."""
    from mmcls.datasets import cifar, mnist

    def refuse(url: str, folder: str, *_: object, **__: object) -> None:
        raise InputError(f"{folder}: the dataset is not there or not complete, and threepc downloads nothing (it is at {url})")

    held = [(module, module.download_and_extract_archive) for module in (cifar, mnist)]
    for module, _ in held:
        module.download_and_extract_archive = refuse
    try:
        yield
    finally:
        for module, function in held:
            module.download_and_extract_archive = function


def _without_pickle(dataset_class: type) -> type:
    """The same class, or for CIFAR one that reads its files without executing what a pickle may hold."""
    from mmcls.datasets.cifar import CIFAR10

    if not issubclass(dataset_class, CIFAR10):
        return dataset_class

    def load_annotations(self: Any) -> list[dict[str, Any]]:
        folder = Path(self.data_prefix) / self.base_folder
        infos = []
        for name, _ in self.test_list if self.test_mode else self.train_list:
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} cannot be read: it is not there, and threepc downloads nothing")
            content = read_arrays(folder / name, LARGEST_PICKLE)
            labels = content.get("labels", content.get("fine_labels")) or ()
            pixels = content.get("data")
            if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * 32 * 32):
                raise InputError(f"{folder / name} is no file of CIFAR: data must be bytes (N, 3072) with as many labels")
            images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            infos += [{"img": image, "gt_label": np.array(label, np.int64)} for image, label in zip(images, labels, strict=True)]
        self.CLASSES = read_arrays(folder / self.meta["filename"], LARGEST_PICKLE).get(self.meta["key"], self.CLASSES)
        return infos

    return type(dataset_class.__name__, (dataset_class,), {"load_annotations": load_annotations})
