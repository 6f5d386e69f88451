"""Networks that can make one convolution of their branches are imported so, and stay as they are."""

import pytest
import torch
from torch import nn

from tests.graph.networks import randomize
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module


class Block(nn.Module):
    """A convolution and a 1x1 one beside it. error: what the merged convolution's bias is wrong by, None where merging fails."""

    def __init__(self, error=0.0):
        super().__init__()
        self.wide, self.narrow, self.merged, self.error = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), None, error

    def forward(self, x):
        return self.merged(x) if self.merged is not None else self.wide(x) + self.narrow(x)

    def switch_to_deploy(self):
        self.merged = nn.Conv2d(3, 3, 3, padding=1)
        self.merged.weight.data = self.wide.weight.data.clone()
        self.merged.weight.data[:, :, 1, 1] += self.narrow.weight.data[:, :, 0, 0]
        self.merged.bias.data = self.wide.bias.data + self.narrow.bias.data + self.error


@pytest.mark.parametrize(
    ("error", "kinds"), [(0.0, ["conv", "relu"]), (1.0, ["conv", "conv", "add", "relu"]), (None, ["conv", "conv", "add", "relu"])]
)
def test_branches_become_one_convolution_if_that_computes_the_same(error, kinds):
    model = randomize(nn.Sequential(Block(error), nn.ReLU()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    graph, weights = import_module(model, x)
    assert [node.kind for node in graph.nodes[1:-1]] == kinds
    assert torch.allclose(evaluate(graph, weights, x)["output"], model(x), atol=1e-9)
    assert model[0].merged is None and before.keys() == model.state_dict().keys()
