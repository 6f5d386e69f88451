"""scikit-learn's handwritten digits as an mmcls dataset: real images that every installation has, upscaled to CIFAR's 32 x 32 pixels.

1,797 digits by 43 people, 8 x 8 pixels of 17 grey levels each. Every fifth is held out and never trained with: 360 of 1,797.
Configs reach it by `custom_imports = dict(imports=["threepc.mmlab.digits"])` and `type="Digits"`.
"""

from typing import Any

import cv2
import numpy as np

from threepc.mmlab.compat import import_mmlab

import_mmlab()

from mmcls.datasets import DATASETS, BaseDataset  # noqa: E402 - only importable once the placeholders are in place

SIDE = 32
HELD_OUT_EVERY = 5


def digits(held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (N, 32, 32, 3), labels int64 (N,)) of the held-out digits, or of all others."""
    from sklearn.datasets import load_digits  # a demo's dependency, not threepc's

    data = load_digits()
    chosen = (np.arange(len(data.target)) % HELD_OUT_EVERY == 0) == held_out
    small = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)
    images = [cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR) for image in small]
    return np.stack(images), data.target[chosen]


@DATASETS.register_module()
class Digits(BaseDataset):
    """`test_mode=True` is the held-out part; there are no files, so `data_prefix` means nothing."""

    CLASSES = tuple("0123456789")

    def __init__(self, pipeline: list[dict[str, Any]], data_prefix: str = "", test_mode: bool = False, **kwargs: object) -> None:
        super().__init__(data_prefix, pipeline, test_mode=test_mode, **kwargs)

    def load_annotations(self) -> list[dict[str, Any]]:
        """What mmcls reads instead of files."""
        images, labels = digits(held_out=self.test_mode)
        return [{"img": image, "gt_label": np.array(label, np.int64)} for image, label in zip(images, labels, strict=True)]
