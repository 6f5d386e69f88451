"""Evaluation over datasets in the formats of CIFAR, ImageNet, ADE20K and VOC: scores, resuming, and results folders of something else."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from torch import nn

from tests.mmlab.small_datasets import ade20k, cifar10, imagenet, voc
from threepc.console import Display
from threepc.errors import InputError
from threepc.mmlab.datasets import open_dataset
from threepc.model.assemble import Settings, assemble_loaded
from threepc.model.load import load_model
from threepc.tasks import evaluate as module
from threepc.tasks.evaluate import PLAIN, SECURE, TWIN, EvaluateOptions, evaluate, evaluate_assembled

NORM = "dict(type='Normalize', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)"
CLASSIFIER = """
model = dict(type='ImageClassifier', backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=4, stem_channels=4),
             neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes={classes}, in_channels=32))
data = dict(test=dict({data}, pipeline=[{load}{norm}, dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])]))
"""
SEGMENTOR = """
model = dict(type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=18, base_channels=4, stem_channels=4, num_stages=4,
                                                  out_indices=(0, 1, 2, 3), strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
             decode_head=dict(type='FCNHead', in_channels=32, in_index=3, channels=8, num_convs=1, concat_input=False,
                              num_classes={classes}),
             test_cfg=dict(mode='whole', crop_size=(32, 48)))
data = dict(test=dict({data}, pipeline=[dict(type='LoadImageFromFile'), {norm}]))
"""
DATA = {
    "cifar": "type='CIFAR10', data_prefix='data/cifar10'",
    "imagenet": "type='ImageNet', data_prefix='data/imagenet/val', ann_file='data/imagenet/meta/val.txt'",
    "ade": "type='ADE20KDataset', data_root='data/ade/ADEChallengeData2016', img_dir='images/validation', ann_dir='annotations/validation'",
    "voc": "type='PascalVOCDataset', data_root='data/VOCdevkit/VOC2012', img_dir='JPEGImages', ann_dir='SegmentationClass',"
    " split='ImageSets/Segmentation/val.txt'",
}


def classifier(tmp_path, data, classes, resize=True):
    load = "dict(type='LoadImageFromFile'), dict(type='Resize', size=(40, -1)), dict(type='CenterCrop', crop_size=32), " if resize else ""
    path = tmp_path / "classifier.py"
    path.write_text(CLASSIFIER.format(data=DATA[data], classes=classes, load=load, norm=NORM))
    return path


def segmentor(tmp_path, data, classes):
    path = tmp_path / "segmentor.py"
    path.write_text(SEGMENTOR.format(data=DATA[data], classes=classes, norm=NORM))
    return path


def options(tmp_path, config, **more):
    return EvaluateOptions(str(config), None, tmp_path / "results", data_root=tmp_path / "data", transport="memory", **more)


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]


def test_cifar_resumed_and_extended(tmp_path, monkeypatch):
    cifar10(tmp_path / "data", 12)
    config = classifier(tmp_path, "cifar", 10, resize=False)
    first = evaluate(options(tmp_path, config, images=5, secure=2, batch=2), Display())
    loaded, data = load_model(str(config)), open_dataset(str(config), root=tmp_path / "data")
    again = partial(evaluate_assembled, assemble_loaded(loaded, Settings()), loaded, data, display=Display())
    found = first["results"]
    assert (first["images"], first["of"]) == (5, 12) and [found[way]["images"] for way in (PLAIN, TWIN, SECURE)] == [5, 5, 2]
    for way in (TWIN, SECURE):
        assert found[way]["agreement"] == 1 and 0 < found[way]["max_relative_error"] < 0.02
    kept = lines(tmp_path)
    assert len(kept) == 5 and [SECURE in line for line in kept] == [True] * 2 + [False] * 3
    right = [line[PLAIN]["label"] == line["truth"] for line in kept]
    assert found[PLAIN]["accuracy"] == np.mean(right) and found[SECURE]["plaintext_on_the_same"]["accuracy"] == np.mean(right[:2])

    # cut off in the middle of a line, and asked for more: only what is missing runs, of the same images
    path = tmp_path / "results" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    ran = counting(monkeypatch)
    second = again(options(tmp_path, config, images=7, secure=3, batch=2))
    assert second["images"] == 7 and second["results"][SECURE]["images"] == 3 and ran == {PLAIN: 4, TWIN: 4, SECURE: 1}
    assert [line["index"] for line in lines(tmp_path)][:4] == [line["index"] for line in kept][:4]
    assert json.loads((tmp_path / "results" / "summary.json").read_text()) == second
    ran.clear()
    assert again(options(tmp_path, config, images=7, secure=3))["results"] == second["results"] and not ran


def counting(monkeypatch):
    ran, right = {}, module._Ways.outputs

    def outputs(self, ways, images):
        for way in ways:
            ran[way] = ran.get(way, 0) + len(images)
        return right(self, ways, images)

    monkeypatch.setattr(module._Ways, "outputs", outputs)
    return ran


def test_imagenet_at_32_bits_with_labels_alone(tmp_path):
    imagenet(tmp_path / "data", 4, listed=True)
    config = classifier(tmp_path, "imagenet", 1000)
    plain = evaluate(options(tmp_path, config, secure=0, simulated=2, settings=Settings(ring=32)), Display())
    assert plain["ring_bits"] == 32 and SECURE not in plain["results"]
    ranks = [line[PLAIN]["rank"] for line in lines(tmp_path)]
    assert plain["results"][PLAIN]["top5_accuracy"] == np.mean([rank < 5 for rank in ranks]) and len(ranks) == 4 and max(ranks) < 1000
    labels = options(tmp_path, config, secure=2, settings=Settings(ring=32, reveal="label"))
    other = dataclasses.replace(labels, results=tmp_path / "labels")
    found = evaluate(other, Display())["results"]
    assert found[SECURE]["images"] == 2 and "max_error" not in found[SECURE]
    kept = [json.loads(line) for line in (tmp_path / "labels" / "results.jsonl").read_text().splitlines()][:2]
    assert found[SECURE]["agreement"] == np.mean([line[SECURE]["label"] == line[PLAIN]["label"] for line in kept])
    with pytest.raises(InputError, match="holds results of another fingerprint"):
        evaluate(dataclasses.replace(other, results=tmp_path / "results"), Display())


@pytest.mark.parametrize("make, data, classes", [(ade20k, "ade", 150), (voc, "voc", 21)])
def test_segmentations(tmp_path, make, data, classes):
    make(tmp_path / "data", 3)
    config = segmentor(tmp_path, data, classes)
    found = evaluate(options(tmp_path, config, secure=1, batch=2), Display())["results"]
    assert [found[way]["images"] for way in (PLAIN, TWIN, SECURE)] == [3, 3, 1]
    for way in (TWIN, SECURE):
        assert found[way]["agreement"] > 0.98 and abs(found[way]["mean_iou"] - found[way]["plaintext_on_the_same"]["mean_iou"]) < 0.01
    # the same by hand, from what was kept
    total = np.zeros((classes, 3))
    for line in lines(tmp_path):
        for name, areas in line[PLAIN]["areas"].items():
            total[int(name)] += areas
    seen = total[:, 1] > 0
    assert found[PLAIN]["mean_iou"] == pytest.approx((total[seen, 0] / total[seen, 1]).mean())
    with pytest.raises(InputError, match="mean IoU needs logits"):
        evaluate(options(tmp_path, config, settings=Settings(reveal="label")), Display())


def test_windows_that_slide_over_the_images(tmp_path):
    """Every image takes several windows, in batches that no image ends with; their averages are what is scored."""
    ade20k(tmp_path / "data", 2)
    config = segmentor(tmp_path, "ade", 150)
    whole = evaluate(options(tmp_path, config, images=1), Display())
    steps = "dict(type='MultiScaleFlipAug', img_scale=(60, 40), flip=False, transforms=[dict(type='Resize', keep_ratio=True)])"
    text = config.read_text().replace("mode='whole'", "mode='slide', stride=(20, 30)")
    config.write_text(text.replace("dict(type='LoadImageFromFile'), ", f"dict(type='LoadImageFromFile'), {steps}, "))
    with pytest.raises(InputError, match=r"holds results of another sliding: give another folder"):
        evaluate(options(tmp_path, config, images=1), Display())
    chosen = dataclasses.replace(options(tmp_path, config, secure=1, batch=3), results=tmp_path / "slides")
    found = evaluate(chosen, Display())
    assert found["sliding"] == {"scale": (60, 40), "stride": (20, 30)} and "sliding" not in whole
    with pytest.raises(InputError, match=r"holds results of another sliding: give another folder"):
        evaluate(dataclasses.replace(chosen, size=(32, 48)), Display())
    for way in (TWIN, SECURE):
        assert found["results"][way]["agreement"] > 0.98 and found["results"][way]["max_relative_error"] < 0.02


def test_what_does_not_belong_together_is_refused(tmp_path):
    voc(tmp_path / "data", 1)
    path = classifier(tmp_path, "cifar", 10, resize=False)
    path.write_text(path.read_text().replace(DATA["cifar"], DATA["voc"]))
    with pytest.raises(InputError, match="does not belong to a network of this kind"):
        evaluate(options(tmp_path, path, size=(32, 32)), Display())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "results.jsonl").write_text('{"index": 1}\n[]\n')
    with pytest.raises(InputError, match=r"results\.jsonl, line 2: no result of this program"):
        module.Store(folder, {})
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="another version"):
        module.Store(folder, {"version": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be made: .* is no folder$"):
        module.Store(tmp_path / "file", {})
    assert module.Store(tmp_path / "new", {}).lines == {} and not (tmp_path / "new").exists()


class TwoHeads(nn.Module):
    """What a config's classifier makes of an image, beside a vector of another length or, with `alike`, of the same."""

    def __init__(self, classifier, alike):
        super().__init__()
        self.classifier, self.other = classifier, nn.Linear(3, 10 if alike else 4)

    def forward(self, x):
        return {"embedding": self.other(x.mean((2, 3))), "logits": self.classifier(x)}


@pytest.mark.parametrize("alike", (False, True))
def test_of_several_outputs_one_carries_the_labels(tmp_path, alike):
    cifar10(tmp_path / "data", 3)
    config = classifier(tmp_path, "cifar", 10, resize=False)
    loaded, data = load_model(str(config)), open_dataset(str(config), root=tmp_path / "data")
    wanted = options(tmp_path, config, secure=2)
    alone = evaluate_assembled(assemble_loaded(loaded, Settings()), loaded, data, dataclasses.replace(wanted, secure=0), Display())
    several = dataclasses.replace(loaded, module=TwoHeads(loaded.module, alike).eval())
    assembled, run = assemble_loaded(several, Settings()), partial(evaluate_assembled, loaded=several, data=data, display=Display())
    wanted = dataclasses.replace(wanted, results=tmp_path / "several")
    if alike:
        with pytest.raises(InputError, match=r"returns several outputs: say with --output which carries the labels, of embedding, logits$"):
            run(assembled, options=wanted)
        wanted = dataclasses.replace(wanted, output="logits")
    found = run(assembled, options=wanted)
    assert found["output"] == "logits" and [found["results"][way]["images"] for way in (PLAIN, TWIN, SECURE)] == [3, 3, 2]
    assert found["results"][PLAIN]["accuracy"] == alone["results"][PLAIN]["accuracy"]
    assert all(found["results"][way]["agreement"] == 1 for way in (TWIN, SECURE))
    if not alike:
        with pytest.raises(InputError, match=r"^output: embedding has the shape 4x1x1, and carries no labels of "):
            run(assembled, options=dataclasses.replace(wanted, output="embedding"))
        with pytest.raises(InputError, match=r"^output: must be one of embedding, logits, not 'boxes'$"):
            run(assembled, options=dataclasses.replace(wanted, output="boxes"))
    else:
        with pytest.raises(InputError, match="holds results of another output"):
            run(assembled, options=dataclasses.replace(wanted, output="embedding"))


def test_no_images_are_no_evaluation(tmp_path):
    cifar10(tmp_path / "data", 2)
    config = classifier(tmp_path, "cifar", 10, resize=False)
    with pytest.raises(InputError, match="CIFAR10: there are no images to evaluate"):
        evaluate(options(tmp_path, config, images=0), Display())
    assert not (tmp_path / "results").exists()
