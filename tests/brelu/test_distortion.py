"""The shared-prefix, slice-wise distortion against whole forward passes of the torch module with one channel replaced."""
import copy

import numpy as np
import pytest
import torch
from torch import nn

from threepc.brelu.candidates import candidates
from threepc.brelu.exact import channel_distortion
from threepc.brelu.module import apply_spec
from threepc.brelu.replacement import distinct, replaced
from threepc.brelu.spec import ReluSpec, relu_nodes
from threepc.brelu.suffix import Network, Suffix, reach, suffix_macs
from threepc.graph.importer import import_module


class Everything(nn.Module):
    """Every way a change of one channel can travel: dense, grouped and depthwise convolutions, sums, concatenations, pooling, a flattened map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.grouped = nn.Sequential(nn.Conv2d(8, 8, (3, 1), padding=(1, 0), groups=4), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.dense = nn.Sequential(nn.Conv2d(16, 6, 3, padding=2, dilation=2, stride=2), nn.ReLU())
        self.average = nn.AvgPool2d(2, padding=1, stride=1)
        self.head = nn.Sequential(nn.Linear(6 * 5 * 4, 7), nn.ReLU(), nn.Linear(7, 4))

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x) + x
        z = self.grouped(y)
        x = torch.cat([self.pool(z), self.pool(x + y)], dim=1)
        return self.head(self.average(self.dense(x)).flatten(1))


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
        suffix = Suffix(Network(graph, weights), node.name, images)
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
