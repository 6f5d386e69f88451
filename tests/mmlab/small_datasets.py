"""Tiny datasets of random images, laid out on disk as CIFAR, ImageNet, ADE20K and VOC are."""

import pickle

import numpy as np
from PIL import Image


def _cifar(root, count, folder, test, meta, label_key, names_key, classes):
    rng = np.random.default_rng(count)
    images, labels = rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, classes, count).tolist()
    (root / folder).mkdir(parents=True)
    content = {"data": images.transpose(0, 3, 1, 2).reshape(count, -1), label_key: labels, "batch_label": "testing"}
    (root / folder / test).write_bytes(pickle.dumps(content, protocol=2))
    (root / folder / meta).write_bytes(pickle.dumps({names_key: [f"class {i}" for i in range(classes)]}, protocol=2))
    return images, labels


def cifar10(root, count):
    """(images uint8 (N, 32, 32, 3) red first, labels)."""
    return _cifar(root, count, "cifar-10-batches-py", "test_batch", "batches.meta", "labels", "label_names", 10)


def cifar100(root, count):
    """As `cifar10`."""
    return _cifar(root, count, "cifar-100-python", "test", "meta", "fine_labels", "fine_label_names", 100)


def imagenet(root, count, listed):
    """(file names, labels): files of different sizes in val/, and the list meta/val.txt."""
    rng = np.random.default_rng(1)
    names, labels = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(count)], rng.integers(0, 1000, count).tolist()
    (root / "val").mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*rng.integers(30, 60, 2), 3), np.uint8)).save(root / "val" / name)
    if listed:
        (root / "meta").mkdir()
        (root / "meta" / "val.txt").write_text("".join(f"{name} {label}\n" for name, label in zip(names, labels)))
    return names, labels


def _segmentation(images, annotations, classes, names):
    rng, truths = np.random.default_rng(2), []
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for name in names:
        size = rng.integers(20, 50, 2)
        coarse = rng.integers(0, classes, (5, 5)).astype(np.uint8)
        truth = coarse[np.arange(size[0])[:, None] * 5 // size[0], np.arange(size[1]) * 5 // size[1]]
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(images / f"{name}.jpg")
        truths.append(truth)
    return truths


def ade20k(root, count):
    """Annotations uint8 (H, W): 0 for what is nothing, 1 to 150."""
    names = [f"ADE_val_{i:08}" for i in range(1, count + 1)]
    base = root / "ADEChallengeData2016"
    truths = _segmentation(base / "images" / "validation", base / "annotations" / "validation", 151, names)
    for name, truth in zip(names, truths):
        Image.fromarray(truth).save(base / "annotations" / "validation" / f"{name}.png")
    return truths


def voc(root, count):
    """Annotations uint8 (H, W): 0 to 20, 255 for borders; saved with a palette as VOC's are."""
    names = [f"2007_{i:06}" for i in range(count)]
    base = root / "VOC2012"
    truths = _segmentation(base / "JPEGImages", base / "SegmentationClass", 21, names)
    for name, truth in zip(names, truths):
        truth[::7] = 255
        image = Image.fromarray(truth).convert("P")
        image.putpalette(np.arange(768, dtype=np.uint8).tolist())
        image.save(base / "SegmentationClass" / f"{name}.png")
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names) + "\n")
    return truths
