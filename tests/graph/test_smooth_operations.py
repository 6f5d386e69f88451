"""Smooth activations as torch writes them."""

import pytest
import torch
from torch import nn

from tests.graph.test_importer import Wrapped, X, assert_same_function, kinds, randomize
from threepc.graph.importer import import_module

WRITTEN = [
    (nn.Sigmoid(), ("sigmoid", 1.0)),
    (torch.tanh, ("tanh", 1.0)),
    (nn.SiLU(), ("silu", 1.0)),
    (nn.SiLU(inplace=True), ("silu", 1.0)),
    (nn.Mish(), ("mish", 1.0)),
    (nn.GELU(), ("gelu", 1.0)),
    (nn.GELU("tanh"), ("gelu_tanh", 1.0)),
    (nn.Softplus(0.5), ("softplus", 0.5)),
    (nn.ELU(0.7), ("elu", 0.7)),
    (nn.CELU(0.7), ("celu", 0.7)),
]


@pytest.mark.parametrize(("activation", "attrs"), WRITTEN)
def test_smooth_activations(activation, attrs):
    model = randomize(Wrapped(lambda self, x: activation(self.conv(x)), conv=nn.Conv2d(3, 4, 3)))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "conv", "smooth", "output"]
    assert (graph.nodes[2].attrs["function"], graph.nodes[2].attrs["parameter"]) == attrs
    assert_same_function(model, graph, weights, X)


MADE_OF_ONE = {
    "selu": (nn.SELU(), ("elu", 1.6732632423543772), ["smooth", "conv"]),
    "scaled elu": (lambda x: torch.ops.aten.elu(x, 0.5, 2.0), ("elu", 0.5), ["smooth", "conv"]),
    "log-sigmoid": (nn.LogSigmoid(), ("softplus", 1.0), ["smooth", "add"]),
    "glu of channels": (nn.GLU(1), ("sigmoid", 1.0), ["gather", "gather", "smooth", "multiply"]),
    "glu of rows": (lambda x: nn.functional.glu(x, -2), ("sigmoid", 1.0), ["gather", "gather", "smooth", "multiply"]),
    "less its tanh": (nn.Tanhshrink(), ("tanh", 1.0), ["smooth", "add"]),
}


@pytest.mark.parametrize(("activation", "attrs", "made"), MADE_OF_ONE.values(), ids=MADE_OF_ONE)
def test_what_is_made_of_one_smooth_activation(activation, attrs, made):
    model = randomize(Wrapped(lambda self, x: activation(self.conv(x)), conv=nn.Conv2d(3, 4, 3)))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "conv", *made, "output"]
    assert [(node.attrs["function"], node.attrs["parameter"]) for node in graph.nodes if node.kind == "smooth"] == [attrs]
    assert_same_function(model, graph, weights, X)


@pytest.mark.parametrize("softmax", [nn.Softmax(1), lambda x: torch.softmax(x.transpose(1, 2), 2), lambda x: x.softmax(-3)])
def test_the_softmax_of_two_is_a_sigmoid_of_their_difference(softmax):
    model = randomize(Wrapped(lambda self, x: softmax(self.conv(x).reshape(len(x), 2, 3, -1)).flatten(1), conv=nn.Conv2d(3, 6, 3)))
    graph, weights = import_module(model, X)
    assert [node.attrs["function"] for node in graph.nodes if node.kind == "smooth"] == ["sigmoid"]
    assert_same_function(model, graph, weights, X)


class Branches(nn.Module):
    """Split attention, as ResNeSt has it: two branches of a convolution, summed under weights that come of a softmax over the two."""

    def __init__(self):
        super().__init__()
        self.split, self.weigh = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x):
        x = torch.relu(self.split(x)).reshape(len(x), 2, 4, *x.shape[2:])
        weights = self.weigh(x.sum(1).mean((2, 3), keepdim=True)).view(len(x), 1, 2, 4).transpose(1, 2).softmax(1)
        return self.last((x * weights.reshape(len(x), 2, 4, 1, 1)).sum(1).contiguous())


def test_a_convolution_of_a_sum_of_branches():
    model = randomize(Branches())
    graph, weights = import_module(model, X)
    assert kinds(graph).count("multiply") == 1
    assert_same_function(model, graph, weights, X)
