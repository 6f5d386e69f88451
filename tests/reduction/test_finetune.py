"""Finetuning through MMLab's loops on images that the test makes, and what its checkpoints are good for."""

import textwrap

import cv2
import numpy as np
import pytest
import torch

from threepc.errors import InputError, RunError
from threepc.graph.block_relu import apply_spec
from threepc.graph.importer import import_module
from threepc.graph.relu_spec import ReluSpec, load, uniform
from threepc.images.card import ModelCard, Preprocessing
from threepc.mmlab.digits import Digits, digits
from threepc.model.load import load_model
from threepc.reduction.finetune import finetune
from threepc.reduction.samples import load_samples

CLASSIFIER = """
    custom_imports = dict(imports=["threepc.mmlab.digits"])
    model = dict(
        type="ImageClassifier",
        backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8, style="pytorch"),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=10, in_channels=64, topk=(1,), loss=dict(type="CrossEntropyLoss")))
    pipeline = [dict(type="Normalize", mean=[78.0] * 3, std=[96.0] * 3, to_rgb=False), dict(type="ImageToTensor", keys=["img"])]
    test_pipeline = [dict(type="CenterCrop", crop_size=32), *pipeline, dict(type="Collect", keys=["img"])]
    train_pipeline = [*pipeline, dict(type="ToTensor", keys=["gt_label"]), dict(type="Collect", keys=["img", "gt_label"])]
    data = dict(samples_per_gpu=8, workers_per_gpu=0, train=dict(type="Digits", pipeline=train_pipeline),
                val=dict(type="Digits", pipeline=test_pipeline, test_mode=True),
                test=dict(type="Digits", pipeline=test_pipeline, test_mode=True))
"""
SEGMENTOR = """
    norm_cfg = dict(type="SyncBN")
    model = dict(
        type="EncoderDecoder",
        backbone=dict(type="ResNetV1c", depth=18, stem_channels=8, base_channels=8, norm_cfg=norm_cfg, strides=(1, 2, 2, 2)),
        decode_head=dict(type="FCNHead", in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=3, norm_cfg=norm_cfg,
                         loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=False)),
        train_cfg=dict(), test_cfg=dict(mode="whole"))
    norm = dict(type="Normalize", mean=[100.0] * 3, std=[50.0] * 3, to_rgb=True)
    train_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="Resize", img_scale=(64, 64)),
                      dict(type="RandomCrop", crop_size=(64, 64)), dict(type="RandomFlip", prob=0.5), norm,
                      dict(type="DefaultFormatBundle"), dict(type="Collect", keys=["img", "gt_semantic_seg"])]
    test_pipeline = [dict(type="LoadImageFromFile"), dict(type="MultiScaleFlipAug", img_scale=(64, 64), flip=False, transforms=[
        dict(type="Resize", keep_ratio=True), norm, dict(type="ImageToTensor", keys=["img"]), dict(type="Collect", keys=["img"])])]
    common = dict(type="CustomDataset", data_root="{root}", img_dir="img", ann_dir="ann", classes=("dark", "bright", "none"),
                  palette=[[0, 0, 0], [255, 255, 255], [9, 9, 9]], img_suffix=".png")
    data = dict(samples_per_gpu=2, workers_per_gpu=0, train=dict(pipeline=train_pipeline, **common),
                val=dict(pipeline=test_pipeline, **common), test=dict(pipeline=test_pipeline, **common))
"""
TRAINING = """
    optimizer = dict(type="SGD", lr=0.01, momentum=0.9)
    optimizer_config = dict()
    lr_config = dict(policy="fixed")
    runner = dict(type="IterBasedRunner", max_iters=2)
    checkpoint_config = dict(by_epoch=False, interval=2)
    log_config = dict(interval=1, hooks=[])
    log_level = "ERROR"
    workflow = [("train", 1)]
"""


def write(tmp_path, name, text):
    path = tmp_path / f"{name}.py"
    path.write_text(textwrap.dedent(text) + textwrap.dedent(TRAINING))
    return str(path)


@pytest.fixture
def classifier(tmp_path):
    return write(tmp_path, "classifier", CLASSIFIER)


def spec_for(config, height, width):
    model = load_model(config)
    graph, _ = import_module(model.module, torch.zeros(model.example_shape))
    return uniform(graph, height, width)


def checkpoint_of(config, path):
    torch.save(classifier_state(config), path)
    return path


def classifier_state(config):
    return load_model(config, seed=5).module.state_dict()


def test_classifier(tmp_path, classifier):
    spec, start = spec_for(classifier, 2, 3), checkpoint_of(classifier, tmp_path / "start.pth")
    result = finetune(classifier, start, spec, tmp_path / "run", validate=False)
    # The run's config, checkpoint and spec go together without conversion, and the weights have moved.
    trained = load_model(str(result.config), result.checkpoint)
    before = classifier_state(classifier)
    assert set(trained.module.state_dict()) == set(before)
    assert any(not torch.equal(value, before[name]) for name, value in trained.module.state_dict().items() if "conv" in name)
    assert load(result.spec).to_json() == spec.to_json()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = trained.module(images)
    block = apply_spec(trained.module, load(result.spec), images)(images)
    assert not torch.allclose(plain, block)


def test_training_runs_the_block_relus(tmp_path, classifier):
    """From one start, one seed and one batch order, plain and block ReLUs end with different weights."""
    start = checkpoint_of(classifier, tmp_path / "start.pth")
    ends = [
        finetune(classifier, start, spec, tmp_path / name, validate=False)
        for name, spec in (("plain", None), ("ones", spec_for(classifier, 1, 1)), ("block", spec_for(classifier, 4, 4)))
    ]
    plain, ones, block = (torch.load(end.checkpoint, weights_only=True)["state_dict"]["head.fc.weight"] for end in ends)
    assert torch.equal(plain, ones) and not torch.allclose(plain, block)


def test_average_pooling(tmp_path, classifier):
    start = checkpoint_of(classifier, tmp_path / "start.pth")
    result = finetune(classifier, start, None, tmp_path / "run", average_pool=True, validate=False)
    model = load_model(str(result.config), result.checkpoint)
    kinds = {node.kind for node in import_module(model.module, torch.zeros(model.example_shape))[0].nodes}
    assert "avgpool" in kinds and "maxpool" not in kinds


@pytest.fixture
def segmentor(tmp_path):
    """A config whose two images are dark at the right, with annotations that say so."""
    for folder in ("img", "ann"):
        (tmp_path / folder).mkdir()
    for index in range(2):
        image = np.zeros((64, 64, 3), np.uint8)
        image[:, : 20 + 10 * index] = 200
        cv2.imwrite(str(tmp_path / "img" / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / "ann" / f"{index}.png"), (image[..., 0] > 0).astype(np.uint8))
    return write(tmp_path, "segmentor", SEGMENTOR.replace("{root}", str(tmp_path)))


def test_segmentor(tmp_path, segmentor):
    result = finetune(segmentor, None, spec_for(segmentor, 2, 2), tmp_path / "run", average_pool=True, validate=False)
    model = load_model(str(result.config), result.checkpoint)
    assert model.card.classes == ("dark", "bright", "none")
    apply_spec(model.module, load(result.spec), torch.zeros(model.example_shape))


def test_samples_of_a_classification_set(classifier):
    card = load_model(classifier).card
    samples = load_samples(classifier, card, 5)
    images, _ = digits(held_out=False)
    assert samples.shape == (5, 3, 32, 32) and samples.dtype == np.float32
    # The first and the last of the training images, normalised as at test time.
    for sample, image in ((samples[0], images[0]), (samples[-1], images[-1])):
        np.testing.assert_allclose(sample, ((image - 78.0) / 96.0).transpose(2, 0, 1), atol=1e-6)


def test_samples_of_a_segmentation_set(segmentor):
    samples = load_samples(segmentor, load_model(segmentor).card, 2)
    assert samples.shape == (2, 3, 64, 64)
    assert (samples[0, :, :, :20] == 2.0).all() and (samples[1, :, :, 30:] == -2.0).all()


@pytest.mark.parametrize(
    "count, part, message",
    [(0, "train", "at least one"), (1, "extra", "no dataset data.extra"), (5000, "train", "has 1437 images, 5000 were asked for")],
)
def test_samples_that_are_not_there(classifier, count, part, message):
    with pytest.raises(InputError, match=message):
        load_samples(classifier, load_model(classifier).card, count, part)


def test_a_dataset_that_is_not_there():
    config = "configs/deeplabv3_resnet50_avgpool_voc.py"
    with pytest.raises(InputError, match=r"data.train cannot be read .*put the dataset where the config expects it"):
        load_samples(config, ModelCard(config, Preprocessing(size=(512, 512)), segmentation=True), 1)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(spec=ReluSpec("other", {"relu": [[1, 1]]})), "calls no ReLU module 'relu'"),
        (dict(checkpoint="missing.pth"), "does not exist"),
        (dict(config="mmcls:resnet18_8xb16_cifar10", average_pool=True, checkpoint=None), "ResNet_CIFAR has no max-pooling"),
        (dict(config="mmcls:resnet18_8xb16_cifar100000"), "no config"),
        (dict(device="abacus"), "'abacus' is not at hand"),
        (dict(resume_from="missing.pth"), "missing.pth to go on from does not exist"),
        (dict(options={"runner.max_iters": "minus"}), "cannot be trained as it is: "),
        (dict(options={"optimizer.type": "Nope"}), "cannot be trained as it is: KeyError: 'Nope is not in the optimizer registry'"),
        (dict(options={"model.backbone.depth": 7}), "cannot be trained as it is: KeyError: "),
        (dict(options={"model": 3}), "cannot be trained as it is: "),
    ],
)
@pytest.mark.parametrize("there", (False, True))
def test_bad_input(tmp_path, capfd, classifier, change, message, there):
    """Refused without a word of MMLab's, and the folder is as it was, whether there was one or not."""
    (tmp_path / "runs").mkdir()
    if there:
        (tmp_path / "runs" / "a").mkdir()
        (tmp_path / "runs" / "a" / "classifier.py").write_text("kept")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    arguments = dict(config=classifier, checkpoint=None, spec=None) | change
    with pytest.raises(InputError, match=message):
        finetune(arguments.pop("config"), arguments.pop("checkpoint"), arguments.pop("spec"), tmp_path / "runs" / "a", **arguments)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
    assert capfd.readouterr().err == ""


def test_a_folder_that_is_a_file(tmp_path, classifier):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be made"):
        finetune(classifier, None, None, tmp_path / "file")


def test_what_breaks_off_later_is_a_failed_run(tmp_path, classifier, monkeypatch):
    right, left = Digits.prepare_data, iter(range(12))

    def prepare(self, index):
        next(left)  # in the middle of the second step
        return right(self, index)

    monkeypatch.setattr(Digits, "prepare_data", prepare)
    with pytest.raises(RunError, match=r"^training stopped: StopIteration: "):
        finetune(classifier, None, None, tmp_path / "run", validate=False)
    assert (tmp_path / "run" / "classifier.py").is_file()
