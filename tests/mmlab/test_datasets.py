"""Datasets of MMLab configs in the formats of CIFAR, ImageNet, ADE20K and VOC, made here; what is missing or wrong is refused by name."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tests.mmlab.small_datasets import ade20k, cifar10, cifar100, imagenet, voc
from threepc.errors import InputError
from threepc.mmlab.datasets import open_dataset


def config(tmp_path, text):
    path = tmp_path / "config.py"
    path.write_text(f"model = dict(type='ImageClassifier')\n{text}")
    return str(path)


@pytest.mark.parametrize("make, name", [(cifar10, "mmcls:resnet18_8xb16_cifar10"), (cifar100, "mmcls:resnet50_8xb16_cifar100")])
def test_cifar(tmp_path, make, name):
    images, labels = make(tmp_path, 7)
    data = open_dataset(name, root=tmp_path)
    assert len(data) == 7 and not data.segmentation and len(data.classes) == (10 if make is cifar10 else 100)
    for index in range(7):
        sample = data[index]
        np.testing.assert_array_equal(sample.image, images[index][..., ::-1])  # files hold red first
        assert sample.label == labels[index]


def test_a_pickle_that_holds_code_is_refused_and_not_executed(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    cifar10(tmp_path, 2)
    path = next(tmp_path.glob("*/test_batch"))
    for content in (pickle.dumps({"data": Code()}), pickle.dumps({"data": np.array([Code()], object)})):
        path.write_bytes(content)
        with pytest.raises(InputError, match="test_batch: refused, the pickle holds"):
            open_dataset("mmcls:resnet18_8xb16_cifar10", root=tmp_path)
    assert not (tmp_path / "executed").exists()
    wrong = pickle.dumps({"data": 1, "labels": []})
    for content, reason in ((b"no pickle", "not a readable pickle"), (pickle.dumps([1]), "no dictionary"), (wrong, "no file of CIFAR")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason):
            open_dataset("mmcls:resnet18_8xb16_cifar10", root=tmp_path)


def test_imagenet_with_a_list_and_by_folders(tmp_path):
    names, labels = imagenet(tmp_path, 6, listed=True)
    data = open_dataset("mmcls:resnet50_8xb32_in1k", root=tmp_path)
    assert [data[i].name for i in range(6)] == names and [data[i].label for i in range(6)] == labels
    assert data[0].image.shape[2] == 3 and len(data.classes) == 1000
    folders = config(tmp_path, f"data = dict(test=dict(type='CustomDataset', data_prefix={str(tmp_path / 'folders')!r}, pipeline=[]))")
    for index, name in enumerate(("ants", "bees")):
        (tmp_path / "folders" / name).mkdir(parents=True)
        Image.new("RGB", (9, 8), (index, 0, 0)).save(tmp_path / "folders" / name / "a.png")
    data = open_dataset(folders)
    assert [(data[i].label, data[i].image[0, 0, 2]) for i in range(2)] == [(0, 0), (1, 1)] and data.classes == ("ants", "bees")


def test_ade20k_leaves_out_its_zero_label(tmp_path):
    truths = ade20k(tmp_path, 2)
    data = open_dataset("mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k", root=tmp_path)
    assert data.segmentation and len(data) == 2 and len(data.classes) == 150 and data[0].image.shape == (*truths[0].shape, 3)
    right = np.maximum(truths[0].astype(int) - 1, 0)
    intersect, union, truth = data.areas(0, right)
    np.testing.assert_array_equal(truth, np.bincount(truths[0][truths[0] > 0] - 1, minlength=150))
    np.testing.assert_array_equal(intersect, truth)
    np.testing.assert_array_equal(union, truth)
    intersect, union, _ = data.areas(0, np.full_like(right, 3))
    assert union[3] == (truths[0] > 0).sum() and intersect[3] == (truths[0] == 4).sum()


def test_voc_ignores_its_borders(tmp_path):
    truths = voc(tmp_path, 3)
    data = open_dataset("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug", root=tmp_path)
    assert len(data) == 3 and len(data.classes) == 21
    intersect, _, truth = data.areas(1, np.where(truths[1] == 255, 0, truths[1]))
    assert intersect.sum() == truth.sum() == (truths[1] != 255).sum()
    with pytest.raises(InputError, match="no annotation of"):
        data.areas(0, np.zeros((3, 3), int))


def test_what_is_not_there_is_refused_by_name(tmp_path):
    for name in ("mmcls:resnet50_8xb32_in1k", "mmcls:lenet5_mnist", "mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug"):
        with pytest.raises(InputError, match=r"data-root|downloads nothing"):
            open_dataset(name, root=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"cannot be read.*downloads nothing"):
        open_dataset("mmcls:resnet18_8xb16_cifar10", root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="names no dataset"):
        open_dataset("package.module:factory")
    with pytest.raises(InputError, match=r"no dataset data.test"):
        open_dataset(config(tmp_path, ""))
    with pytest.raises(InputError, match="'Nonesuch' is not one of"):
        open_dataset(config(tmp_path, "data = dict(test=dict(type='Nonesuch', pipeline=[]))"))
    ade20k(tmp_path, 1)
    next(tmp_path.glob("*/annotations/validation/*.png")).unlink()
    with pytest.raises(InputError, match=r"\.png does not exist"):
        open_dataset("mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k", root=tmp_path).areas(0, np.zeros((4, 4), int))
