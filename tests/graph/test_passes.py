import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function, randomize
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph, check_weights
from threepc.graph.passes import (
    average_before_slopes,
    fold_average,
    merge_additions,
    merge_gates,
    pool_before_relu,
    short_slopes,
    standard_passes,
    sweep,
)

X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def imported(forward, **modules):
    model = randomize(Wrapped(forward, **modules))
    return model, *import_module(model, X)


def same_after(rewrite, model, graph, weights):
    """Apply a pass, check that it kept the function and its argument, and return what it made."""
    before = graph.fingerprint(), {name: (w["weight"].copy(), w["bias"].copy()) for name, w in weights.items()}
    result, new_weights = rewrite(graph, weights)
    assert before[0] == graph.fingerprint()
    assert all((weights[name]["weight"] == w).all() and (weights[name]["bias"] == b).all() for name, (w, b) in before[1].items())
    check_weights(result, new_weights)
    assert_same_function(model, result, new_weights, X)
    return result


def chain(graph):
    return [(node.kind, node.name) for node in graph.nodes]


def test_pooling_moves_before_the_relu_which_keeps_its_name():
    graph = same_after(pool_before_relu, *imported(lambda self, x: self.pool(self.act(x)) + 0, act=nn.ReLU(), pool=nn.MaxPool2d(3, 2, 1)))
    assert chain(graph) == [("input", "input"), ("maxpool", "pool"), ("relu", "act"), ("output", "output")]
    assert graph["act"].shape == (3, 4, 4)


def test_pooling_moves_before_a_clip_and_through_several_poolings():
    pool = nn.MaxPool2d(2, 1)
    graph = same_after(pool_before_relu, *imported(lambda self, x: self.pool(self.pool(self.act(x))), act=nn.ReLU6(), pool=pool))
    assert [kind for kind, _ in chain(graph)] == ["input", "maxpool", "maxpool", "clip", "output"]


def test_all_readers_of_the_pooling_read_the_relu_afterwards():
    def forward(self, x):
        pooled = F.max_pool2d(F.relu(x), 2)
        return pooled + F.max_pool2d(pooled, 1)

    graph = same_after(pool_before_relu, *imported(forward))
    assert graph["add"].inputs == ("relu", "max_pool2d/2")


def test_pooling_stays_where_the_relu_has_another_reader():
    def forward(self, x):
        y = F.relu(x)
        return F.max_pool2d(y, 3, 1, 1) + y

    model, graph, weights = imported(forward)
    assert pool_before_relu(graph, weights)[0] == graph


def test_pooling_stays_behind_a_block_relu():
    model, graph, weights = imported(lambda self, x: F.max_pool2d(F.relu(x), 2))
    assert pool_before_relu(graph, weights, blocks=frozenset({"relu"}))[0] == graph
    assert standard_passes(graph, weights, blocks=frozenset({"relu"}))[0] == graph
    assert standard_passes(graph, weights)[0] != graph


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)),
        lambda self, x: self.wide(F.adaptive_avg_pool2d(x, 4).flatten(1)),
        lambda self, x: self.conv(F.avg_pool2d(x, 3, 2, 1)),
        lambda self, x: self.conv(F.interpolate(x.mean((2, 3), keepdim=True), size=(5, 6), mode="bilinear")),
        lambda self, x: (lambda mean: self.conv(mean).flatten(1) + self.fc(mean.flatten(1)))(x.mean((2, 3), keepdim=True)),
    ],
)
def test_an_average_before_convolutions_keeps_only_a_power_of_two(forward):
    graph = same_after(fold_average, *imported(forward, fc=nn.Linear(3, 5), wide=nn.Linear(48, 5), conv=nn.Conv2d(3, 5, 1)))
    (pool,) = (node for node in graph.nodes if node.kind == "avgpool")
    power = 2 ** math.ceil(math.log2(math.prod(pool.attrs["kernel"])))
    assert pool.attrs["divisor"] == power


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: F.avg_pool2d(x, 2),
        lambda self, x: self.conv(F.relu(F.avg_pool2d(x, 2))),
        lambda self, x: self.conv(F.avg_pool2d(x, 2) + F.max_pool2d(x, 2)),
        lambda self, x: (lambda mean: self.conv(mean) + mean)(F.avg_pool2d(x, 2)),
        lambda self, x: (lambda mean: torch.cat([mean.flatten(1), self.fc(mean.flatten(1))], 1))(x.mean((2, 3), keepdim=True)),
    ],
)
def test_an_average_that_others_read_keeps_its_divisor(forward):
    model, graph, weights = imported(forward, conv=nn.Conv2d(3, 3, 1), fc=nn.Linear(3, 5))
    assert fold_average(graph, weights)[0] == graph


def test_sums_of_sums_are_merged():
    def forward(self, x):
        return self.conv(x) + ((x + F.relu(x)) + (x + x))

    graph = same_after(merge_additions, *imported(forward, conv=nn.Conv2d(3, 3, 1)))
    assert graph["add/4"].inputs == ("conv", "input", "relu", "input", "input")
    assert [node.name for node in graph.nodes if node.kind == "add"] == ["add/4"]


def test_differences_are_merged_with_their_signs():
    def forward(self, x):
        return self.conv(x) - (x - (F.relu(x) - x))

    graph = same_after(merge_additions, *imported(forward, conv=nn.Conv2d(3, 3, 1)))
    (total,) = [node for node in graph.nodes if node.kind == "add"]
    assert (total.inputs, total.attrs) == (("conv", "input", "relu", "input"), {"signs": [1, -1, 1, -1]})


def test_a_sum_with_another_reader_is_not_merged():
    def forward(self, x):
        y = x + x
        return torch.cat([y, y + x], 1)

    model, graph, weights = imported(forward)
    assert merge_additions(graph, weights)[0] == graph


def test_a_sum_added_to_itself_is_not_merged():
    model, graph, weights = imported(lambda self, x: (lambda y: y + y)(x + x))
    assert merge_additions(graph, weights)[0] == graph


@pytest.mark.parametrize(
    "slope, slopes",
    [(0.01, [1 / 128, 100 / 128]), (0.1, [1 / 16, 10 / 16]), (0.2, [1 / 8, 5 / 8]), (-0.3, [-3 / 16, 10 / 16]), (0.25, [0.25, 1.0])],
)
def test_a_leaky_relu_alone_behind_a_convolution_gets_slopes_of_few_bits(slope, slopes):
    model, graph, weights = imported(lambda m, x: m.b(F.leaky_relu(m.a(x), slope)), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 2, 1))
    graph = same_after(short_slopes, model, graph, weights)
    assert [node.attrs["slopes"] for node in graph.nodes if node.kind == "bend"] == [slopes]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (y := m.a(x)) + F.leaky_relu(y, 0.1),  # another reader of the convolution
        lambda m, x: m.b(F.leaky_relu(m.a(x), 0.123456789)),  # no short ratio
        lambda m, x: m.b(F.leaky_relu(x, 0.1)),  # no convolution
    ],
)
def test_other_slopes_stay(forward):
    model, graph, weights = imported(forward, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 2, 1))
    graph, _ = sweep(graph, weights)
    assert short_slopes(graph, weights)[0] == graph


def prelu():
    act = nn.PReLU(3)
    with torch.no_grad():
        act.weight[:] = torch.tensor([0.25, -0.5, 1.5])
    return act


@pytest.mark.parametrize("pool", [lambda x: x.mean((2, 3), keepdim=True), lambda x: F.avg_pool2d(x, 3, 2, 1)], ids=["all", "padded"])
def test_slopes_are_multiplied_once_for_each_average(pool):
    model, graph, weights = imported(lambda m, x: pool(m.act(m.a(x))), a=nn.Conv2d(3, 3, 1), act=prelu())
    after = same_after(average_before_slopes, model, graph, weights)
    assert [node.kind for node in after.nodes] == ["input", "conv", "rectify", "avgpool", "conv", "output"]
    assert {node.shape[0] for node in after.nodes if node.kind in ("rectify", "avgpool")} == {6}


def test_slopes_that_something_else_reads_stay_before_the_average():
    model, graph, weights = imported(lambda m, x: (y := m.act(m.a(x))) + y.mean((2, 3), keepdim=True), a=nn.Conv2d(3, 3, 1), act=prelu())
    assert same_after(average_before_slopes, model, graph, weights) == graph


def test_what_the_output_does_not_need_is_swept():
    model, graph, weights = imported(lambda self, x: self.a(x) + self.b(x), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1))
    output = graph.output
    cut = Graph((*graph.nodes[:-1], type(output)(output.name, "output", ("a",), output.shape)))
    swept, left = sweep(cut, weights)
    assert [node.name for node in swept.nodes] == ["input", "a", "output"] and list(left) == ["a"]


@pytest.mark.parametrize(
    "function, forward",
    [
        ("silu", lambda self, x: x * torch.sigmoid(x)),
        ("silu", lambda self, x: torch.sigmoid(x) * x),
        ("mish", lambda self, x: x * torch.tanh(F.softplus(x))),
    ],
)
def test_a_value_times_its_own_sigmoid_is_one_lookup(function, forward):
    graph = same_after(merge_gates, *imported(forward))
    assert chain(graph) == [("input", "input"), ("smooth", "mul"), ("output", "output")]
    assert graph["mul"].attrs == {"function": function, "parameter": 1.0}


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: x * torch.sigmoid(F.relu(x)),
        lambda self, x: x * torch.tanh(x),
        lambda self, x: x * F.elu(x, 0.5),
        lambda self, x: x * (lambda gate: gate + gate * x)(torch.sigmoid(x)),
    ],
)
def test_other_products_stay(forward):
    model, graph, weights = imported(forward)
    assert same_after(merge_gates, model, graph, weights).fingerprint() == graph.fingerprint()


class Twins(nn.Module):
    """A trunk that two halves of the image pass, and a convolution that happens to have equal weights."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(3, 4, 3, padding=1)
        self.trunk = nn.Sequential(conv, nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 4, 3), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1))
        self.head, self.tied, self.alike = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        a, b = self.trunk(x[:, :, :4]), self.trunk(x[:, :, 4:])
        return self.head(a) - self.tied(b) + self.alike(x).mean((2, 3), keepdim=True)[:, :2]


def test_weights_of_a_module_that_is_called_twice_are_shared_and_equal_ones_of_two_modules_are_not():
    """What is shared follows from how the network is written: that numbers are equal is the server's secret."""
    model = randomize(Twins())
    model.tied.weight = model.head.weight
    model.alike.load_state_dict(model.trunk[0].state_dict())
    graph, weights = standard_passes(*import_module(model, X))
    shared = {node.name: node.attrs["weights"] for node in graph.nodes if "weights" in node.attrs}
    assert shared == {"trunk.0/2": "trunk.0/1", "trunk.3/2": "trunk.3/1", "tied": "head"}
    assert weights["tied"]["bias"] is not weights["head"]["bias"]
    check_weights(graph, weights)
    assert_same_function(model, graph, weights, X)
    assert Graph.from_json(graph.to_json()) == graph


def test_weights_of_a_module_that_meets_other_norms_are_not_shared():
    def forward(self, x):
        return self.one(self.conv(x)) + self.two(self.conv(x + 1))

    model = randomize(Wrapped(forward, conv=nn.Conv2d(3, 3, 1), one=nn.BatchNorm2d(3), two=nn.BatchNorm2d(3)))
    model.two.load_state_dict(model.one.state_dict())
    graph, weights = standard_passes(*import_module(model, X))
    assert not any("weights" in node.attrs for node in graph.nodes)
    assert_same_function(model, graph, weights, X)


def test_computed_weights_of_a_module_that_is_called_twice_are_shared():
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
    model = randomize(Wrapped(lambda self, x: self.conv(F.relu(self.conv(x))), conv=conv))
    graph, weights = standard_passes(*import_module(model, X))
    assert [node.attrs.get("weights") for node in graph.nodes if node.kind == "conv"] == [None, "conv/1"]
    assert_same_function(model, graph, weights, X)
