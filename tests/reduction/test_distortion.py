"""The shared-prefix, slice-wise distortion against whole forward passes of the torch module with one channel replaced."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from threepc.errors import InputError, RunError
from threepc.graph.block_relu import apply_spec
from threepc.graph.importer import import_module
from threepc.graph.relu_spec import ReluSpec, relu_nodes
from threepc.reduction import distortion, store
from threepc.reduction.candidates import candidates
from threepc.reduction.exact import channel_distortion
from threepc.reduction.replacement import distinct, replaced
from threepc.reduction.suffix import Suffix, TorchGraph, reach, suffix_macs


class Everything(nn.Module):
    """Every way a change of a channel can travel: dense, grouped, depthwise convolutions, sums, a PReLU, concatenation, pooling, a flattened map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.prelu = nn.PReLU(8)
        self.grouped = nn.Sequential(nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=4), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.dense = nn.Sequential(nn.Conv2d(16, 6, 3, padding=2, dilation=2, stride=2), nn.ReLU())
        self.average = nn.AvgPool2d(2, padding=1, stride=1)
        self.head = nn.Sequential(nn.Linear(6 * 5 * 4, 7), nn.ReLU(), nn.Linear(7, 4))

    def forward(self, x):
        x = self.stem(x)
        y = self.prelu(x - self.depthwise(x))
        z = self.grouped(y)
        x = torch.cat([self.pool(z), self.pool(x + y)], dim=1)
        return self.head(self.average(self.dense(x)).flatten(1))


class Gated(nn.Module):
    """Products: with a number a channel, with a map for all channels, with an activation of itself, of matrices, and a square."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU6())
        self.map = nn.Sequential(nn.Conv2d(6, 1, 1), nn.ReLU())
        self.depthwise, self.swish = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU6()
        self.turned = nn.Sequential(nn.Conv2d(6, 6, (3, 1), groups=6), nn.ReLU())
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.3, 0.6)  # nothing is dead, and nothing vanishes

    def forward(self, x):
        x = self.stem(x)
        x = self.depthwise(x * self.gate(x))
        x = x * self.swish(x)
        x = x * self.map(x)
        return torch.matmul(x, self.turned(x)).mean((2, 3)) ** 2


def test_equals_whole_forward_passes_of_products(images):
    torch.manual_seed(2)
    model = Gated().eval()
    images = images[:, :, :, :11]
    test_equals_whole_forward_passes((model, *import_module(model, images[:1])), images)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    model = Everything().eval()
    return model, *import_module(model, torch.zeros(1, 3, 13, 11))


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 13, 11, generator=torch.Generator().manual_seed(2))


def whole_passes(model, graph, images, relu, channel, patches):
    with torch.no_grad():
        base, distortion = model(images), []
        for patch in patches.tolist():
            layers = {node.name: np.ones((node.shape[0], 2), dtype=int) for node in relu_nodes(graph)}
            layers[relu][channel] = patch
            replacement = apply_spec(copy.deepcopy(model), ReluSpec("one channel", layers), images[:1])
            distortion.append((replacement(images) - base).double().square().mean().item())
    return np.array(distortion)


def test_equals_whole_forward_passes(network, images):
    model, graph, weights = network
    for node in relu_nodes(graph):
        patches = candidates(*node.shape[1:])[1:]
        patches = patches[np.unique(np.linspace(0, len(patches) - 1, 9).astype(int))]
        suffix = Suffix(TorchGraph(graph, weights), node.name, images)
        for channel in {0, node.shape[0] // 2, node.shape[0] - 1}:
            expected = whole_passes(model, graph, images, node.name, channel, patches)
            with torch.no_grad():
                ours = channel_distortion(suffix, channel, patches) / len(images)
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * expected.max(), err_msg=f"{node.name}, channel {channel}")
            assert expected.max() > 0


def test_a_change_reaches_what_it_should(network):
    _, graph, _ = network
    ranges = reach(graph, "depthwise.1", 5)
    assert ranges["add/1" if "add/1" in ranges else "add"] == (5, 6)
    assert ranges["grouped.0"] == (4, 6) and ranges["grouped.1"] == (4, 6)
    assert ranges["dense.0"] == (0, 6)
    assert not {"stem.0", "stem.1", "depthwise.0"} & set(ranges)
    assert suffix_macs(graph, "head.1") == 7 * 4


def test_distinct_counts_each_result_of_an_image_once():
    before = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-1.0, 2.0, -3.0, 4.0], [-1.0, -1.0, -1.0, -1.0]]).reshape(3, 1, 2, 2)
    patches = np.array([[1, 0], [0, 1], [2, 2], [2, 1], [1, 1]])
    values = replaced(before, patches, None)
    first, group = distinct(values.flatten(2), torch.relu(before).flatten(1))
    # Positive image: only zero changes it. Mixed: zero and identity and 2x2 (all pass) which is the identity; columns -4 and 6.
    # Negative: only the identity changes it.
    assert len(first) == 1 + 2 + 1
    unchanged = len(first)
    assert group[:, 0].tolist() == [group[0, 0], unchanged, unchanged, unchanged, unchanged]
    assert group[1, 1] == group[2, 1] != group[0, 1] and group[3, 1] == group[4, 1] == unchanged
    assert group[:, 2].tolist() == [unchanged, group[1, 2], unchanged, unchanged, unchanged]


@pytest.mark.parametrize("size, count", [((112, 112), 97), ((8, 8), 25), ((1, 1), 3)])
def test_listed_candidates(size, count):
    found = candidates(*size)
    assert len(found) == count and found[:3].tolist() == [[1, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("size", [(5, 7), (600, 2), (1, 9), (640, 640)])
def test_candidates_of_other_maps(size):
    found = candidates(*size)
    assert (found <= size).all() and len(np.unique(found, axis=0)) == len(found)
    assert list(size) in found.tolist()


@pytest.fixture(scope="module")
def small(images):
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=3), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 12, 5)
    )
    return *import_module(model.eval(), images[:1]), images.numpy()


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    return distortion.measure(*small, tmp_path_factory.mktemp("exact"), progress=False)


def test_a_run_is_complete(small, finished):
    graph, weights, images = small
    suffix = Suffix(TorchGraph(graph, weights), "3", torch.from_numpy(images))
    layer = finished.layers[1]
    with torch.no_grad():
        np.testing.assert_allclose(layer.distortion[2], channel_distortion(suffix, 2, layer.patches) / len(images), rtol=1e-6)
    assert all(np.isfinite(layer.distortion).all() and (layer.distortion[:, 0] == 0).all() for layer in finished.layers)
    assert finished.power == pytest.approx((suffix.output.double() ** 2).mean().item())
    assert layer.drelus[layer.patches.tolist().index([2, 2])] == 2 * 2


def test_goes_on_where_it_stopped(small, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(distortion, "PASSES_PER_PART", 2)
    whole, done = distortion._run_part, []

    def interrupted(setting, part, at_once):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(part.name)
        return whole(setting, part, at_once)

    monkeypatch.setattr(distortion, "_run_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distortion.measure(*small, tmp_path, progress=False)
    with pytest.raises(InputError, match="is not finished"):
        store.load(tmp_path)
    first = list(done)
    # A part cut short by a crash of the machine counts as missing.
    (tmp_path / "parts" / f"{first[0]}.npz").write_bytes(b"PK")
    monkeypatch.setattr(distortion, "_run_part", lambda *a: done.append(a[1].name) or whole(*a))
    result = distortion.measure(*small, tmp_path, progress=False)
    assert done[3:].count(first[0]) == 1 and not set(first[1:]) & set(done[3:])
    for ours, expected in zip(result.layers, finished.layers):
        np.testing.assert_allclose(ours.distortion, expected.distortion, rtol=1e-6)
    assert not (tmp_path / "inputs.npz").exists()
    assert distortion.measure(*small, tmp_path, progress=False).fingerprint == result.fingerprint


def test_processes_give_the_same(small, finished, tmp_path):
    result = distortion.measure(*small, tmp_path, jobs=2, progress=False)
    for ours, expected in zip(result.layers, finished.layers):
        np.testing.assert_allclose(ours.distortion, expected.distortion, rtol=1e-6)


def test_the_estimate_ranks_like_the_exact_one(small, finished, tmp_path):
    result = distortion.measure(*small, tmp_path, method="estimate", progress=False)
    assert result.rank_correlation > 0.9
    # The last ReLU feeds a linear layer: there the estimate is exact.
    np.testing.assert_allclose(result.layers[1].distortion, finished.layers[1].distortion, rtol=1e-4, atol=1e-9)


def test_skipping_leaves_out_what_costs_more_and_is_worse(small, finished, tmp_path):
    result = distortion.measure(*small, tmp_path, skip_dominated=1.5, progress=False)
    skipped = 0
    for ours, full in zip(result.layers, finished.layers):
        measured = ~np.isnan(ours.distortion)
        np.testing.assert_allclose(ours.distortion[measured], full.distortion[measured], rtol=1e-6)
        skipped += (~measured).sum()
        assert measured[:, 0].all() and measured.any(axis=1).all()
    assert skipped > 0


def test_dominated_by_hand():
    costs, estimate = np.array([9, 0, 4, 4, 2]), np.array([[0.0, 8.0, 3.0, 1.0, 2.5]])
    assert distortion.dominated(costs, estimate, 1.0).tolist() == [[False, False, True, False, False]]
    assert distortion.dominated(costs, estimate, 4.0).tolist() == [[False, False, False, False, False]]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(images=np.zeros((0, 3, 13, 11), np.float32)), "dataset is empty"),
        (dict(images=np.zeros((1, 3, 12, 11), np.float32)), "the network takes float32"),
        (dict(images=np.full((1, 3, 13, 11), np.nan, np.float32)), "not finite"),
        (dict(method="magic"), "unknown method 'magic'"),
        (dict(skip_dominated=0.5), "at least 1"),
        (dict(device="cuda:0" if not torch.cuda.is_available() else "tpu"), "not at hand"),
        (dict(backend="carrier pigeons"), "unknown backend"),
        (dict(backend="ray"), "the backend ray is not installed"),
        (dict(jobs=0), "at least one"),
    ],
)
def test_bad_input(small, tmp_path, change, message):
    graph, weights, images = small
    with pytest.raises(InputError, match=message):
        distortion.measure(graph, weights, change.pop("images", images), tmp_path / "run", progress=False, **change)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run(small, tmp_path):
    graph, weights, images = small
    distortion.measure(graph, weights, images[:1], tmp_path, progress=False)
    with pytest.raises(InputError, match="another images"):
        distortion.measure(graph, weights, images[1:2], tmp_path, progress=False)
    with pytest.raises(InputError, match="no folder of a distortion run"):
        store.load(tmp_path / "elsewhere")


def test_a_full_disk(small, tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(RunError, match=r"cannot write .*: No space left on device"):
        distortion.measure(*small, tmp_path, progress=False)
