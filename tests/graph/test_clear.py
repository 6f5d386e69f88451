import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import randomize
from threepc.errors import InputError
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_kept_nodes_are_returned_beside_the_output():
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()))
    graph, weights = import_module(model, X.double())
    assert list(evaluate(graph, weights, X)) == ["output"]
    values = evaluate(graph, weights, X, keep=["input", "0", "2"])
    assert list(values) == ["input", "0", "2", "output"]
    assert all(value.dtype == torch.float64 for value in values.values())
    assert torch.equal(values["input"], X.double())
    with torch.no_grad():
        torch.testing.assert_close(values["0"], model[:2](X.double()))
        torch.testing.assert_close(values["2"], model[:3](X.double()))
        torch.testing.assert_close(values["output"], model(X.double())[:, :, None, None])


def test_an_input_of_another_shape_is_refused():
    graph, weights = import_module(nn.ReLU(), X)
    with pytest.raises(InputError, match=r"the input must be \(N, 3, 8, 8\), not \(2, 3, 8, 9\)"):
        evaluate(graph, weights, torch.zeros(2, 3, 8, 9))
    assert evaluate(graph, weights, torch.ones(5, 3, 8, 8))["output"].shape == (5, 3, 8, 8)


def test_the_final_resize_is_done():
    class Resizes(nn.Module):
        def forward(self, x):
            return F.interpolate(x, size=(5, 21), mode="bilinear")

    graph, weights = import_module(Resizes(), X)
    torch.testing.assert_close(evaluate(graph, weights, X)["output"], Resizes()(X.double()))
