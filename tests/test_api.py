"""The Python API around a torch module."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_flatten

import threepc
from tests.party import parties
from threepc.graph.block_relu import apply_spec
from threepc.graph.relu_spec import ReluSpec
from threepc.images.card import ModelCard, Preprocessing
from threepc.images.read import load_images
from threepc.mmlab.compat import import_mmlab
from threepc.party import three_hosts
from threepc.party.client import ClientSession
from threepc.party.connector import MemoryConnector
from threepc.party.keygen import generate
from threepc.party.session import Options
from threepc.tasks.client import asked_of


def network() -> nn.Module:
    """Grouped and dilated convolutions, pooling, a residual sum; in training mode, with other running statistics than it began with."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), nn.BatchNorm2d(6), nn.ReLU()

        def forward(self, x):
            return self.relu(self.norm(self.conv(x)) + x)

    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), Residual(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )
    model(torch.randn(8, 3, 11, 13))
    return model


IMAGES = torch.randn(3, 3, 11, 13, generator=torch.Generator().manual_seed(1))


def plain(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Without touching the model's mode."""
    modes = {module: module.training for module in model.modules()}
    with torch.no_grad():
        outputs = model.eval()(images)
    for module, training in modes.items():
        module.training = training
    return outputs


@pytest.mark.parametrize("ring, messages", [(64, "4"), (48, "4"), (40, "4"), (32, "4"), (32, "2")])
def test_torch_in_torch_out(ring, messages):
    model = network()
    expected = plain(model, IMAGES)
    with threepc.local(model, IMAGES[:1], ring=ring, transport="memory", calibration=IMAGES, relu_messages=messages) as secure:
        outputs = secure(IMAGES)
        assert secure(IMAGES[:1].double()).dtype == torch.float64
        with pytest.raises(threepc.InputError, match=r"shape \(N, 3, 11, 13\), not \(3, 3, 11, 12\)"):
            secure(IMAGES[..., :12])
        assert secure.report["images"] == 1 and secure.report["ring_bits"] == ring and secure.report["model"] == "Sequential"
        assert secure.report["messages_online"] == (10 if messages == "2" else 18)
    assert outputs.dtype == torch.float32 and outputs.shape == expected.shape
    torch.testing.assert_close(outputs, expected, rtol=0, atol=float(expected.abs().max()) * (0.005 if ring >= 48 else 0.02))
    assert model.training


def test_a_relu_spec_and_a_window():
    model = network()
    spec = ReluSpec("test", {"1": np.array([[2, 3]] * 6), "3.relu": np.array([[1, 1], [0, 1], [1, 0], [4, 5], [2, 2], [1, 1]])})
    with threepc.local(model, IMAGES[:1], spec, transport="memory", drelu_window=(16, 40)) as secure:
        outputs = secure(IMAGES)
        assert secure.report["drelus"] < secure.report["relus"]
    expected = plain(apply_spec(model, spec, IMAGES[:1]), IMAGES)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0.005 * float(expected.abs().max()))


def test_labels_alone():
    model = network()
    with threepc.local(model, IMAGES[:1], transport="memory", reveal="label") as secure:
        labels = secure(IMAGES)
    assert labels.dtype == torch.int64 and labels.tolist() == plain(model, IMAGES).argmax(1).tolist()


def test_maps_keep_their_shape():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    for size in ((3, 3), (6, 5)):  # the first gives a map of one pixel
        images = IMAGES[:1, :, : size[0], : size[1]]
        with threepc.local(model, images, transport="memory") as secure:
            assert secure(images).shape == plain(model, images).shape


class Heads(nn.Module):
    """Logits, features and a map, in a nest."""

    def __init__(self):
        super().__init__()
        self.body, self.fc, self.boxes = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        features = torch.relu(self.body(x))
        embedding = nn.functional.adaptive_avg_pool2d(features, 1)
        return {"logits": self.fc(embedding.flatten(1)), "more": [embedding, (self.boxes(features),)]}


@pytest.mark.parametrize("transport", ["memory", "ipc"])
def test_several_outputs_come_back_as_the_module_returns_them(transport):
    model = Heads()
    expected, structure = tree_flatten(plain(model, IMAGES))
    with threepc.local(model, IMAGES, transport=transport) as secure:
        found, same = tree_flatten(secure(IMAGES))
        assert same == structure and secure.report["images"] == 3
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.005 * float(other.abs().max()))
    if transport == "memory":
        with threepc.local(model, IMAGES, transport=transport, reveal="more.1.0=label,logits=label") as secure:
            outputs = secure(IMAGES)
        assert outputs["logits"].tolist() == expected[0].argmax(1).tolist()
        assert outputs["more"][0].shape == (3, 6, 1, 1) and outputs["more"][1][0].dtype == torch.int64


def test_what_has_no_report_yet():
    with threepc.local(network(), IMAGES[:1], transport="memory") as secure, pytest.raises(threepc.InputError, match="no report before"):
        secure.report  # noqa: B018


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"ring": 47}, "ring: must be one of 64, 48, 40, 32, 28, 24"),
        ({"transport": "pigeon"}, "transport: must be one of ipc, tcp, memory"),
        ({"network": "lan", "transport": "memory"}, "a simulated network needs processes"),
        ({"reveal": "all"}, "reveal: must be logits or label"),
        ({"drelu_window": (40, 60)}, "drelu-window 40:60"),
        ({"example_input": np.zeros((1, 3, 11, 13))}, "example_input must be a float tensor"),
        ({"example_input": torch.zeros(1, 3, 11, 13), "ring": 32}, "chooses scales with images"),
        ({"example_input": torch.full((1, 3, 11, 13), float("nan"))}, "gives values that are not finite numbers"),
        ({"example_input": torch.zeros(1, 3, 11, 13, dtype=torch.int32)}, "example_input must be a float tensor"),
        ({"calibration": np.zeros((1, 3, 11, 13))}, "calibration must be a dense tensor of real numbers, not an ndarray"),
        ({"relu_spec": "none.json"}, "cannot read the relu spec none.json"),
    ],
)
def test_bad_arguments(arguments, reason):
    with pytest.raises(threepc.InputError, match=reason), threepc.local(**{"model": network(), "example_input": IMAGES[:1]} | arguments):
        raise AssertionError("the parties were started")


def test_numbers_that_do_not_fit():
    limit = 2 * float(IMAGES[:1].abs().max())
    reasons = dict.fromkeys((float("nan"), float("inf")), "not a finite number")
    reasons |= {1e6: f"^the input holds values up to 1e+06; the scales of Sequential are made for inputs up to {limit:.5g}: normalise"}
    reasons |= {-1.01 * limit: f"^the input holds values up to {1.01 * limit:.5g}; the scales "}
    with threepc.local(network(), IMAGES[:1], transport="memory") as secure:
        for value, reason in reasons.items():
            with pytest.raises(threepc.InputError, match=reason.replace("+", r"\+")):
                secure(torch.full((1, 3, 11, 13), value))
            assert secure(IMAGES).shape == (3, 5)  # nothing was sent, so the session goes on


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[nn.Module, threepc.SecureModel]]:
    """A network, and the same over three processes, which are also given values beyond the example's."""
    model = network()
    with threepc.local(model, IMAGES[:1], out_of_range="warn") as secure:
        yield model, secure
    with pytest.raises(threepc.RunError, match=r"^this session is over: it was closed$"):
        secure(IMAGES)


def test_a_bad_call_leaves_three_processes_usable(processes):
    model, secure = processes
    for images, reason in (
        (torch.full((1, 3, 11, 13), float("nan")), "not a finite number"),
        (torch.full((1, 3, 11, 13), 1e300, dtype=torch.float64), "not a finite number"),
        (torch.full((1, 3, 11, 13), 1e6), "does not fit a ring of 48 bits"),
        (IMAGES[:0], "an inference takes 1 to [0-9]+ images at once, not 0"),
        (
            IMAGES[:1].expand(10**12, 3, 11, 13),
            "an inference takes 1 to 1024 images at once, not 1000000000000",
        ),  # more than can be converted
        (IMAGES[..., :12], r"shape \(N, 3, 11, 13\), not \(3, 3, 11, 12\)"),
        (IMAGES.to(torch.complex64), "images must be a dense tensor of real numbers, not a tensor of torch.complex64"),
        (IMAGES.to_sparse(), "images must be a dense tensor of real numbers"),
    ):
        with warnings.catch_warnings(action="ignore"), pytest.raises(threepc.InputError, match=reason):  # of values beyond the example's
            secure(images)
        torch.testing.assert_close(secure(IMAGES), plain(model, IMAGES), rtol=0, atol=0.01)
    assert secure(IMAGES.bfloat16()).dtype == torch.bfloat16


def test_an_interrupted_call_gives_its_answer_to_no_later_one(monkeypatch):
    with threepc.local(network(), IMAGES[:1]) as secure:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(secure._parties, "_hear", interrupted)
            with pytest.raises(KeyboardInterrupt):
                secure(IMAGES)
        with pytest.raises(threepc.RunError, match=r"^this session is over: KeyboardInterrupt$"):
            secure(IMAGES)


def test_threads_may_call_one_model(processes):
    with threepc.local(processes[0], IMAGES, transport="memory") as here:
        for secure in (here, processes[1]):
            with ThreadPoolExecutor(3) as pool:
                outputs = list(pool.map(secure, [IMAGES[index : index + 1] for index in range(3)]))
            torch.testing.assert_close(torch.cat(outputs), plain(processes[0], IMAGES), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "images, reason",
    [
        (IMAGES.numpy(), r"not ndarray: convert it with torch\.from_numpy\(images\)$"),
        (np.zeros((11, 13, 3), np.uint8), r"torch\.from_numpy\(images\)\.permute\(2, 0, 1\)\[None\]\.float\(\), and normalise"),
        (torch.zeros(2, 11, 13, 3), r"not \(2, 11, 13, 3\): convert it with images\.permute\(0, 3, 1, 2\)"),
        (Image.new("RGB", (13, 11)), r"torch\.from_numpy\(numpy\.array\(image\)\)\.permute\(2, 0, 1\)\[None\]"),
    ],
)
def test_other_kinds_of_images_are_refused_with_the_conversion(images, reason):
    with threepc.local(network(), IMAGES, transport="memory") as secure, pytest.raises(threepc.InputError, match=reason):
        secure(images)


def test_a_client_takes_pil_images_as_files_and_refuses_what_is_ambiguous(tmp_path):
    preprocessing = Preprocessing((11, 13), (120.0,) * 3, (60.0,) * 3, resize="stretch")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    card, shape = ModelCard("net", preprocessing), preprocessing.shape
    expected = load_images([tmp_path / "image.png"], preprocessing)
    for images in (image, [image, str(tmp_path / "image.png")]):
        for asked in asked_of(images, card, shape):
            np.testing.assert_array_equal(asked.inputs, expected)
    for other in (pixels, IMAGES, pixels[None].astype(float)):
        with pytest.raises(
            threepc.InputError, match=r"PIL\.Image\.fromarray\(pixels\).*or ready inputs as a numpy array \(N, 3, 11, 13\), not a"
        ):
            asked_of(other, card, shape)
    with pytest.raises(threepc.InputError, match=r"not an int$"):
        asked_of([3], card, shape)


def test_inputs_beyond_the_example_are_warned_of_where_that_is_wanted():
    model, images = network(), IMAGES * 4
    with threepc.local(model, IMAGES[:1], transport="memory", out_of_range="warn") as secure:
        with pytest.warns(UserWarning, match="the scales of Sequential are made for inputs up to .*: the result may be wrong"):
            outputs = secure(images)
        with (
            pytest.raises(threepc.InputError, match="does not fit a ring of 48 bits"),
            pytest.warns(UserWarning, match="made for inputs up to"),
        ):
            secure(torch.full((1, 3, 11, 13), 1e6))
    expected = plain(model, images)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0.005 * float(expected.abs().max()))


def test_an_example_of_zeros_says_a_shape_and_no_limit_of_its_own():
    with threepc.local(network(), torch.zeros(1, 3, 11, 13), transport="memory") as secure:
        assert secure(10 * IMAGES).shape == (3, 5)


def test_a_client_checks_its_files_at_once(tmp_path):
    with pytest.raises(threepc.InputError, match=r"deployment\.yaml: cannot be read"):
        threepc.Client(tmp_path)
    generate(tmp_path / "keys")
    with pytest.raises(threepc.InputError, match="the public key of nobody"):
        threepc.Client(tmp_path / "keys" / "deployment.yaml", name="nobody")


def test_all_is_exactly_the_public_names():
    members = {name: getattr(threepc, name) for name in {*vars(threepc), *dir(threepc)}}
    public = {name for name, value in members.items() if not name.startswith("_") and not isinstance(value, ModuleType)}
    assert sorted(public | {"__version__"}) == sorted(threepc.__all__) == dir(threepc)


def test_the_model_card_has_a_public_name_for_factories():
    from threepc import card
    from threepc.images import card as home

    assert [card.ModelCard, card.Preprocessing, card.Sliding] == [home.ModelCard, home.Preprocessing, home.Sliding]


def test_the_package_says_that_it_is_typed():
    assert (Path(threepc.__file__).parent / "py.typed").is_file()


def test_importing_threepc_is_cheap():
    heavy = "{'torch', 'numba', 'numpy', 'zmq'}"
    program = f"import sys, threepc; print(sorted({heavy} & set(sys.modules)), dir(threepc), threepc.RunError.exit_status)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.startswith("[] ") and "'local'" in done.stdout and "'Client'" in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'remote'"):
        threepc.remote  # noqa: B018


def test_a_client_without_retries_begins_a_new_session_behind_a_broken_one(tmp_path, monkeypatch):
    """A session that lost a party behind its answer is over. Who calls `predict` again has not been told, and need not be."""
    model, connector, options, opened = parties.small_model(), MemoryConnector(), Options(timeout=60.0), []
    generate(tmp_path / "keys")
    monkeypatch.setattr(
        three_hosts, "sessions_of", lambda *_, **__: lambda _: opened.append(ClientSession(connector, options)) or opened[-1]
    )
    with parties.serving(connector, model, options) as (server, _), threepc.Client(tmp_path / "keys", retries=0) as client:

        def vanish(*_):
            raise threepc.RunError("it went away", "lost")

        with monkeypatch.context() as patch:
            patch.setattr(server.observation, "inferred", vanish)
            parties.assert_close(model, parties.images(), client.predict(parties.images())[:, :, None, None])
        parties.assert_close(model, parties.images(), client.predict(parties.images())[:, :, None, None])
    assert len(opened) == 2


def test_windows_slide_over_images_larger_than_the_example(monkeypatch):
    """As mmsegmentation's slide_inference has it in plaintext, windows of both images at a time; a smaller image is padded."""
    import_mmlab()
    from mmseg.models import EncoderDecoder

    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1))
    images = torch.randn(2, 3, 21, 30)
    resize = lambda maps, size: nn.functional.interpolate(maps, size=size, mode="bilinear")
    segmentor = SimpleNamespace(
        test_cfg=SimpleNamespace(stride=(5, 8), crop_size=(11, 13)),
        out_channels=4,
        align_corners=False,
        encode_decode=lambda crop, meta: resize(plain(model, crop), crop.shape[2:]),
    )
    expected = EncoderDecoder.slide_inference(segmentor, images, [{}], False)
    with threepc.local(model, IMAGES, transport="memory", stride=(5, 8)) as secure:
        outputs = secure(images)
        assert secure.report["images"] == 2 * 3 * 4
        torch.testing.assert_close(outputs, expected, rtol=0, atol=0.005 * float(expected.abs().max()))
        with monkeypatch.context() as patched:
            patched.setattr("threepc.images.sliding.MOST_LOGITS", 4 * 21 * 30 - 1)
            with pytest.raises(threepc.InputError, match=r"^logits of 4 classes for 30x21 pixels are too many"):
                secure(images[:1])
        assert secure.report["images"] == 2 * 3 * 4  # no inference was spent on it
        assert secure(images[:1, :, :7, :13]).shape == (1, 4, 7, 13)
        with pytest.raises(threepc.InputError, match=r"must be a tensor of shape \(N, 3, H, W\), not \(2, 21, 30\)"):
            secure(images[:, 0])
    for stride, more, said in (((12, 8), {}, "stride must be at most the sides of size"), ((5, 8), {"reveal": "label"}, "reveal logits")):
        with pytest.raises(threepc.InputError, match=said), threepc.local(model, IMAGES, stride=stride, **more):
            pass
