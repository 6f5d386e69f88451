"""Piecewise linear activations: what torch's become, and that they compute the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function, randomize
from threepc.graph.activations import kinks, rises, takes_patches
from threepc.graph.importer import import_module
from threepc.graph.passes import standard_passes

X = 3 * torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

BENDS = {
    "leaky": (nn.LeakyReLU(0.1), {"slopes": [0.1, 1.0]}),
    "leaky in place": (lambda x: F.leaky_relu(x + x, inplace=True), {"slopes": [0.01, 1.0]}),
    "randomised": (nn.RReLU(0.25, 0.5), {"slopes": [0.375, 1.0]}),
    "abs": (torch.abs, {"slopes": [-1.0, 1.0]}),
    "at most": (lambda x: x.clamp(max=2), {"slopes": [1.0, 0.0], "at": 2.0}),
    "at most 0": (lambda x: x.clamp_max(0), {"slopes": [1.0, 0.0]}),
    "threshold": (nn.Threshold(0.25, 0.25), {"slopes": [0.0, 1.0], "at": 0.25}),
    "at least": (lambda x: x.clamp_min(-0.5), {"slopes": [0.0, 1.0], "at": -0.5}),
}
CLIPS = {
    "hardtanh": (nn.Hardtanh(), {"min": -1.0, "max": 1.0}),
    "clamp": (lambda x: x.clamp(-2, 0.5), {"min": -2.0, "max": 0.5}),
    "from above": (lambda x: torch.clip(x, 1, 2), {"min": 1.0, "max": 2.0}),
    "hardsigmoid": (nn.Hardsigmoid(), {"min": -3.0, "max": 3.0, "to": [0.0, 1.0]}),
    "functional": (F.hardsigmoid, {"min": -3.0, "max": 3.0, "to": [0.0, 1.0]}),
}


def imported(function):
    modules = {"act": function} if isinstance(function, nn.Module) else {}
    model = randomize(Wrapped(lambda self, x: self.act(x) if modules else function(x), **modules))
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)
    return graph


@pytest.mark.parametrize(("function", "attrs"), BENDS.values(), ids=BENDS)
def test_bends(function, attrs):
    *_, node, _ = imported(function).nodes
    assert (node.kind, node.attrs) == ("bend", attrs)
    assert kinks("bend", attrs) == (attrs.get("at", 0.0),) and not takes_patches("bend", attrs)


@pytest.mark.parametrize(("function", "attrs"), CLIPS.values(), ids=CLIPS)
def test_clips(function, attrs):
    _, node, _ = imported(function).nodes
    assert (node.kind, node.attrs) == ("clip", attrs)
    assert kinks("clip", attrs) == (attrs["min"], attrs["max"]) and not takes_patches("clip", attrs)


def test_what_is_left_of_a_value_less_its_clip():
    graph = imported(nn.Softshrink(0.3))
    assert [node.kind for node in graph.nodes] == ["input", "clip", "add", "output"]
    assert graph["act/clip"].attrs == {"min": -0.3, "max": 0.3} and graph["act"].attrs == {"signs": [1, -1]}
    for nothing in (nn.Softshrink(0), nn.Hardshrink(0)):
        assert [node.kind for node in imported(nothing).nodes] == ["input", "output"]


def test_a_clamp_without_bounds_is_nothing():
    assert [node.kind for node in imported(lambda x: F.hardtanh(x, -torch.inf, torch.inf)).nodes] == ["input", "output"]


@pytest.mark.parametrize("function", [torch.maximum, torch.max, torch.minimum, torch.min])
def test_the_larger_and_the_smaller_of_two_tensors(function):
    graph = imported(lambda x: function(x, x + x))
    assert [node.kind for node in graph.nodes] == ["input", "add", "add", "relu", "add", "output"]
    name = function.__name__
    assert [node.name for node in graph.nodes[2:5]] == [f"{name}/difference", f"{name}/relu", name]


@pytest.mark.parametrize("slopes", [1, 3])
def test_hidden_slopes_go_into_every_convolution_that_reads_them(slopes):
    def forward(self, x):
        y = self.act(self.a(x))
        z = self.act(self.b(y) + y)
        return self.c(z) + self.d(F.max_pool2d(self.act(z), 2)).mean((2, 3), keepdim=True).expand(-1, -1, 8, 8) + self.norm(self.act(x))

    modules = {
        "b": nn.Conv2d(3, 3, 3, padding=1, groups=3),
        "c": nn.Conv2d(3, 3, 3, padding=1),
        "d": nn.Conv2d(3, 3, 1),
        "norm": nn.BatchNorm2d(3),
    }
    act = nn.PReLU(slopes)
    nn.init.uniform_(act.weight, -0.5, 1.5)
    model = randomize(Wrapped(forward, a=nn.Conv2d(3, 3, 1), act=act, **modules))
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)
    assert not any(str(value) in graph.to_json() for value in act.weight.flatten().tolist()), "slopes are weights"
    graph, weights = standard_passes(graph, weights)
    assert_same_function(model, graph, weights, X)
    assert {name: graph[name].inputs for name in ("b", "c", "norm")} == {
        "b": ("act/1/rectify",), "c": ("act/2/rectify",), "norm": ("act/4/rectify",),
    }  # fmt: skip
    assert [node.name for node in graph.nodes if node.name.startswith("act") and node.kind == "conv"] == ["act/1", "act/2", "act/3"], (
        "that of the last is gone"
    )


def test_a_convolution_takes_the_slope_of_a_hardsigmoid_that_alone_reads_it():
    model = randomize(Wrapped(lambda self, x: F.hardsigmoid(self.a(x)) + F.hardsigmoid(x), a=nn.Conv2d(3, 3, 1)))
    graph, weights = standard_passes(*import_module(model, X))
    assert_same_function(model, graph, weights, X)
    assert [node.attrs for node in graph.nodes if node.kind == "clip"] == [{"max": 1.0}, {"min": -3.0, "max": 3.0, "to": [0.0, 1.0]}]


@pytest.mark.parametrize("function", [nn.LeakyReLU(), nn.Hardtanh(), nn.Hardsigmoid(), nn.LeakyReLU(-0.1)])
def test_pooling_moves_before_what_never_falls(function):
    model = randomize(Wrapped(lambda self, x: F.max_pool2d(self.act(x), 2), act=function))
    graph, weights = standard_passes(*import_module(model, X))
    assert_same_function(model, graph, weights, X)
    rising = rises(graph["act"].kind, graph["act"].attrs)
    assert rising == (graph["act"].shape[1:] == (4, 4)) == (getattr(function, "negative_slope", 0) >= 0)
