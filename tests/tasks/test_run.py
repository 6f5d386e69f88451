"""`threepc run` and `simulate` as functions: what they say of ranges, and what they do with inputs and values beyond them."""

import dataclasses
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from threepc.cli.show_inspection import show as show_inspection
from threepc.cli.show_run import show
from threepc.console import Display
from threepc.errors import InputError, RunError
from threepc.images.sliding import image_inputs, image_labels
from threepc.model.assemble import Settings
from threepc.model.load import load_model
from threepc.tasks.inspect import inspect
from threepc.tasks.run import RunOptions, run
from threepc.tasks.simulate import run_twin

STEP_KINDS = {"input", "conv", "relu", "avgpool", "reshape", "truncation", "output"}

FACTORIES = '''
import torch
from torch import nn
from threepc.card import ModelCard, Preprocessing, Sliding

def small():
    """A classifier of images of 8 x 10 pixels."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    net.model_card = ModelCard("small", Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3))
    return net

def several():
    """Of which an image may show any number of four things."""
    net = small()
    net.model_card = ModelCard("several", net.model_card.preprocessing, classes=("ear", "eye", "lip", "nose"), multi_label=True)
    with torch.no_grad():
        net[-1].bias.copy_(torch.tensor([-30.0, 3.0, -30.0, 5.0]))
    return net

class Heads(nn.Module):
    """Logits of four classes, the features below, and a map."""
    def __init__(self):
        super().__init__()
        self.body, self.fc, self.boxes = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 4), nn.Conv2d(6, 5, 1)
        self.model_card = ModelCard("heads", Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3), classes=("ant", "bee", "cow", "dog"))
    def forward(self, x):
        features = torch.relu(self.body(x))
        pooled = nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
        return {"logits": self.fc(pooled), "more": (pooled, self.boxes(features))}

def heads():
    return Heads()

def slides():
    """Three classes for every pixel, by windows of 8 x 10 pixels that overlap."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))
    net.model_card = ModelCard("slides", Preprocessing((8, 10), (127.5,) * 3, (64.0,) * 3, resize="fit"), segmentation=True,
                               sliding=Sliding((21, 14), (5, 6)))
    return net

def raw():
    """As open_nsfw: takes pixels of 0 to 255, and has first weights of a thousandth."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
                        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    with torch.no_grad():
        net[0].weight.normal_(0, 5e-4)
    net.model_card = ModelCard("raw", Preprocessing((32, 32), (0.0,) * 3, (1.0,) * 3, to_rgb=False, resize="stretch"))
    return net
'''


class Kept(Display):
    """Keeps what it is told to say."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def display() -> Kept:
    return Kept()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with factories, an image, and arrays of which the second holds inputs of 16 times the size."""
    (tmp_path / "ranged.py").write_text(FACTORIES)
    image = np.random.default_rng(1).integers(0, 256, (8, 10, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "one.png"), image)
    inputs = np.linspace(-2, 2, 240, dtype=np.float32).reshape(3, 8, 10)
    np.save(tmp_path / "inputs.npy", inputs)
    np.save(tmp_path / "large.npy", 16 * inputs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(*images: str, factory: str = "small", **more) -> RunOptions:
    return RunOptions(f"ranged:{factory}", None, tuple(map(Path, images)), transport="memory", **more)


def test_images_are_never_beyond_the_limit_and_arrays_are_refused_by_name(folder, display):
    outcome = run(options("one.png", "inputs.npy"), display)
    limit = outcome.model.card.input_limit
    assert limit >= outcome.model.card.preprocessing.largest_input == 127.5 / 64 and not display.warnings
    with pytest.raises(
        InputError, match=rf"^large\.npy holds values up to 32; the scales of small are made for inputs up to {limit:.5g}: "
    ):
        run(options("one.png", "large.npy"), display)
    run(dataclasses.replace(options("one.png", "large.npy"), out_of_range="warn"), display)
    assert len(display.warnings) == 1 and display.warnings[0].startswith("large.npy holds values up to 32; ")


def test_images_of_ones_own_decide_the_limit(folder, display):
    outcome = run(options("large.npy", settings=Settings(calibration=(Path("large.npy"),))), display)
    assert outcome.model.card.input_limit == 2 * 32
    outcome = run(options("one.png", settings=Settings(calibration=(Path("inputs.npy"),))), display)
    assert outcome.model.card.input_limit == 2 * 2.0


def test_other_ways_with_what_is_beyond_are_refused(folder, display):
    with pytest.raises(InputError, match=r"^out-of-range: must be one of refuse, warn, not ignore$"):
        run(options("one.png", out_of_range="ignore"), display)


@pytest.mark.parametrize("way", ["simulated", "secure"])
def test_values_beyond_what_a_layer_holds_are_counted_and_fail(folder, display, way):
    """Scales of a 32-bit ring, chosen with images of a sixteenth of the size: wrong, and said to be."""
    flat = options("large.npy", compare=True, out_of_range="warn", settings=Settings(32, calibration=(Path("tiny.npy"),)))
    np.save("tiny.npy", np.load("inputs.npy") / 16)
    outcome = run(flat, display) if way == "secure" else run_twin(flat, None, display)
    name, count = next(iter(outcome.outside.items()))
    assert outcome.report["out_of_range"] == outcome.outside and name in {step.name for step in outcome.model.plan(1).steps}
    with pytest.raises(RunError, match=rf"^{name}: {count:,} values are too large for a ring of 32 bits"):
        outcome.refuse_outside()


def test_values_within_are_none_outside(folder, display):
    outcome = run_twin(options("inputs.npy", compare=True, settings=Settings(32)), None, display)
    assert outcome.outside == outcome.report["out_of_range"] == {}
    outcome.refuse_outside()


@pytest.mark.parametrize("ring", [64, 48])
def test_small_first_weights_on_raw_pixels_lose_less_than_a_thousandth(folder, display, ring):
    outcome = run(options("one.png", factory="raw", layers=True, compare=True, settings=Settings(ring)), display)
    assert outcome.comparison.relative_error < 1e-3 and outcome.trace.first_fault is None
    assert outcome.model.precision.input_fraction == 11


@pytest.mark.parametrize("ring", [64, 48, 40, 32])
def test_what_ranges_were_measured_with_is_said(folder, display, ring):
    run(options("one.png", settings=Settings(ring)), display)
    assert display.notes[-3] == "ranges measured with artificial images (no calibration images given)"
    assert display.notes[-2].startswith("scales leave 2 bits of margin; least room: ")
    tried = f"of the largest result, on {8 if ring == 32 else 2} of these images"
    assert display.notes[-1].startswith("error to expect: ") and tried in display.notes[-1]
    run(options("one.png", settings=Settings(ring, calibration=(Path("inputs.npy"),), margin=3)), display)
    assert display.notes[-3] == "ranges measured with 1 calibration image"
    assert display.notes[-2].startswith("scales leave 3 bits of margin; least room: ")
    assert "on 1 of these images" in display.notes[-1]


def test_relus_take_two_messages_where_the_user_says_so_or_delay_decides(folder, display):
    four, two = (run(options("one.png", settings=Settings(32, relu_messages=m)), display).report for m in ("4", "2"))
    assert four["messages_online"] - two["messages_online"] == 2 * 2 + 4
    assert two["fingerprint"] != four["fingerprint"]
    assert "3 layers take two messages a ReLU; 10 one-way online messages in all" in display.notes
    said, slow = (inspect("ranged:small", None, Settings(32, relu_messages=m, network="wan352"), 1, None, display) for m in ("2", "auto"))
    fast = inspect("ranged:small", None, Settings(32, relu_messages="auto", network="wan352", links="each=10k"), 1, None, display)
    assert slow.model.fingerprint == said.model.fingerprint and len(slow.model.quick) == 3 and not fast.model.quick
    ahead = inspect("ranged:small", None, Settings(32, relu_messages="auto-online", network="wan352"), 1, None, display)
    plain = ahead.to_plain()
    assert ahead.model.fingerprint == said.model.fingerprint and plain["layers_of_messages"] == {"2": list(said.model.quick), "6": []}
    assert 0 < plain["link_seconds"]["online"] <= plain["link_seconds"]["total"] < 1
    held = Settings(32, relu_messages="auto-online", network="wan352", most_dealt=0)
    assert not inspect("ranged:small", None, held, 1, None, display).model.quick, "what cannot lie ahead is not chosen"
    wrongs = {
        "auto": "auto needs a network whose delay decides",
        "auto-online": "auto-online needs a network",
        "3": "must be one of 4, 2, 6, auto, auto-online",
    }
    for wrong, words in wrongs.items():
        with pytest.raises(InputError, match=words):
            run(options("one.png", settings=Settings(32, relu_messages=wrong)), display)


def test_an_inspection_tells_the_room_of_every_layer_and_the_public_model_does_not(folder, display):
    inspection = inspect("ranged:small", None, Settings(32, calibration=(Path("inputs.npy"),), margin=4), 1, None, display)
    plain = inspection.to_plain()
    layers = {layer["name"]: layer for layer in plain["layers"]}
    assert (plain["margin_bits"], plain["ranges_of"]) == (4, "1 calibration image") and layers["input"]["largest"] == 2.0
    assert all(layer["room_bits"] >= 4 for layer in layers.values() if layer["room_bits"] is not None)
    assert layers["output"]["room_bits"] is None
    assert str(layers["0"]["largest"]) not in str(inspection.model.to_plain())


def test_a_factory_without_a_card_is_told_how_to_give_one(folder, display):
    (folder / "ranged.py").write_text(FACTORIES + "\ndef bare():\n    return nn.Sequential(nn.Conv2d(3, 2, 9, stride=64), nn.Flatten())\n")
    sys.modules.pop("ranged", None)
    run(options("one.png", factory="bare"), display)
    assert any("ranged:bare has no model_card: images are prepared as most networks for ImageNet" in line for line in display.notes)
    run(options("one.png"), display)
    assert sum("has no model_card" in line for line in display.notes) == 1


def test_the_layer_that_loses_most_is_named_beside_a_wrong_result(folder, display, capsys):
    """Weights of a few bits lose much, while every layer computes exactly what its arithmetic says."""
    outcome = run(options("one.png", factory="raw", compare=True, layers=True, settings=Settings(48, window=(16, 46))), display)
    show(dataclasses.replace(outcome, every_layer=False))
    assert outcome.trace.worst.name == "0" and outcome.trace.worst.lost > 0
    shown = capsys.readouterr().out
    assert "Layer that loses most against the real numbers: 0, " in shown and "--layers shows all" in shown
    assert len([line for line in shown.splitlines() if line.split()[1:2] and line.split()[1] in STEP_KINDS]) == 10


@pytest.mark.parametrize("batch", [1, 2])
def test_an_image_may_have_several_classes(folder, display, batch, capsys):
    outcome = run(options("one.png", "inputs.npy", factory="several", batch=batch, compare=True), display)
    first, second = outcome.report["results"]
    assert first["image"] == "one.png" and first["labels"] == second["labels"] == [3, 1]
    assert first["classes"] == ["nose", "eye"] and 1 > first["probabilities"][0] > first["probabilities"][1] > 0.5
    assert outcome.report["argmax_equal"] and "accuracy" not in outcome.report
    show(outcome)
    assert capsys.readouterr().out.count("1 eye, 3 nose") == 4  # both images, secure and plaintext
    one = run(options("one.png", factory="several", settings=Settings(reveal="label")), display)
    assert one.report["results"] == [{"image": "one.png", "label": 3, "class": "nose"}]


def test_several_outputs_are_shown_written_and_compared_each(folder, display, capsys):
    outcome = run(options("one.png", "inputs.npy", factory="heads", batch=2, compare=True, output=folder / "out"), display)
    described = outcome.report["outputs"]
    assert [(one["name"], one["shape"]) for one in described] == [("logits", [4]), ("more.0", [6]), ("more.1", [5, 3, 4])]
    for one in described:
        assert one["revealed"] == "logits" and one["max_abs_error"] < 0.001 * one["max_abs_plain"]
    assert outcome.report["max_abs_error"] == max(described, key=lambda one: one["max_abs_error"] / one["max_abs_plain"])["max_abs_error"]
    assert outcome.report["argmax_equal"]
    for entry, name in zip(outcome.report["results"], ("one.png", "inputs.npy"), strict=True):
        said = entry["outputs"]["logits"]
        assert entry["image"] == name and list(entry["outputs"]) == ["logits"]
        assert said["label"] == said["plain_label"] and said["class"] == ("ant", "bee", "cow", "dog")[said["label"]]
    assert {path.name for path in outcome.written} == {"logits.npy", "more.0.npy", "more.1.npy"}
    assert np.load(folder / "out" / "more.1.npy").shape == (2, 5, 3, 4)
    show(outcome)
    shown = capsys.readouterr().out
    assert shown.count("5x3x4 numbers") == 2 and shown.count("more.0") >= 2
    simulated = run_twin(options("one.png", factory="heads", compare=True), None, display)
    assert [one["name"] for one in simulated.report["outputs"]] == ["logits", "more.0", "more.1"]


@pytest.mark.parametrize("reveal", ["more.1=label", "logits,logits,label"])
def test_of_several_outputs_some_reveal_classes_alone(folder, display, reveal, capsys):
    outcome = run(options("one.png", factory="heads", compare=True, output=folder / "out", settings=Settings(reveal=reveal)), display)
    assert outcome.model.reveal == "logits,logits,label"
    assert [one["revealed"] for one in outcome.report["outputs"]] == ["logits", "logits", "label"]
    assert "max_abs_error" not in outcome.report["outputs"][2] and outcome.report["outputs"][2]["argmax_agreement"] > 0.9
    assert np.load(folder / "out" / "more.1_labels.npy").shape == (1, 3, 4)
    show(outcome)
    assert "a map of 3x4" in capsys.readouterr().out
    with pytest.raises(
        InputError, match=r"^reveal: must be logits or label, one for each of logits, more.0, more.1, or NAME=WHAT for some"
    ):
        run(options("one.png", factory="heads", settings=Settings(reveal="label,logits")), display)


def test_windows_slide_over_images_as_in_plaintext(folder, display, capsys):
    """An image of nine windows, a ready input, and an image of four windows, narrower than these, in batches that no image ends with."""
    for name, size in (("wide.png", (27, 40, 3)), ("tall.png", (42, 12, 3))):
        cv2.imwrite(name, cv2.blur(np.random.default_rng(3).integers(0, 256, size, np.uint8), (3, 3)))
    outcome = run(options("wide.png", "inputs.npy", "tall.png", factory="slides", batch=4, compare=True, output=Path("out")), display)
    windows = outcome.inputs.windows
    assert windows == (9, 1, 4) and outcome.inputs.of(2) == slice(10, 14)
    assert "14 windows of 8x10 pixels slide over 3 images, each an input of the network" in display.notes
    assert (outcome.report["images"], outcome.report["windows"]) == (3, 14) and outcome.report["argmax_agreement"] > 0.97
    assert outcome.report["relus"] == 14 * 6 * 4 * 5 and len(outcome.comparison.errors) == len(outcome.comparison.agreement) == 3
    module, card = load_model("ranged:slides").module, outcome.card
    for name in ("wide", "tall"):
        image = cv2.imread(f"{name}.png")
        plain = image_labels(module(torch.from_numpy(image_inputs(image, card))).detach().numpy(), card, image.shape[:2])
        labels = np.load(f"out/{name}_classes.npy")
        assert labels.shape == image.shape[:2] and (labels == plain).mean() > 0.99 and len(np.unique(plain)) > 1
        assert Path(f"out/{name}_segmentation.png").is_file()
    assert np.load("out/inputs_classes.npy").shape == (8, 10)
    show(outcome)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert rows[:3] == ["wide.png", "inputs.npy", "tall.png"]


def test_an_inspection_says_how_many_windows_an_image_has_at_most(folder, display, capsys):
    show_inspection(inspect("ranged:slides", None, Settings(), 1, None, display))
    assert "windows of 8x10 pixels slide over an image, at most 9, each of which is an image here" in capsys.readouterr().out


def test_labels_of_windows_cannot_be_averaged(folder, display):
    with pytest.raises(InputError, match=r"^slides: windows slide over the image, .* reveal logits, or say with --size HxW at which"):
        run(options("one.png", factory="slides", settings=Settings(reveal="label")), display)
    outcome = run(options("one.png", factory="slides", settings=Settings(reveal="label"), size=(8, 10)), display)
    assert outcome.card.sliding is None and outcome.inputs.windows == () and outcome.classes.shape == (1, 4, 5)


def test_windows_slide_over_maps_alone(folder, display):
    Path("ranged.py").write_text(FACTORIES.replace("nn.Conv2d(6, 3, 1))", "nn.Conv2d(6, 3, 1), nn.AdaptiveAvgPool2d(1))"))
    sys.modules.pop("ranged", None)
    with pytest.raises(
        InputError, match=r"^slides: windows slide over the images of a network that returns one map of logits, and of no other$"
    ):
        run(options("one.png", factory="slides"), display)
