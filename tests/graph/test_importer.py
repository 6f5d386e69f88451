import hypothesis
import pytest
import torch
from hypothesis import given
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function, random_networks, randomize
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph, relu_names
from threepc.graph.passes import standard_passes

X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def kinds(graph):
    return [node.kind for node in graph.nodes]


def names(graph):
    return [node.name for node in graph.nodes]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own, once, when the module runs
@hypothesis.settings(max_examples=40)
@given(random_networks())
def test_random_networks_compute_the_same_after_import_and_after_the_passes(network):
    model, x = network
    graph, weights = import_module(model, x.clone())
    assert_same_function(model, graph, weights, x)
    assert Graph.from_json(graph.to_json()) == graph
    optimised, weights = standard_passes(graph, weights)
    assert_same_function(model, optimised, weights, x)
    assert Graph.from_json(optimised.to_json()) == optimised


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.conv2(out)
        out += x
        return self.relu(out)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(Block(), Block())
        self.act = nn.ReLU6()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        x = self.act(self.layer1(x))
        x = F.relu(x + 0)
        return self.fc(torch.relu(x).mean((2, 3)))


def test_nodes_are_named_after_modules_and_calls():
    graph, weights = import_module(Small(), X.float())
    block = ["conv1", "relu/1", "conv2", "add", "relu/2"]
    expected = [f"layer1.{i}.{name}" for i in (0, 1) for name in block]
    assert names(graph) == ["input", *expected, "act", "relu/1", "relu/2", "mean", "fc", "output"]
    assert [name for name, _, _ in relu_names(graph)] == [
        "layer1.0.relu/1", "layer1.0.relu/2", "layer1.1.relu/1", "layer1.1.relu/2", "act", "relu/1", "relu/2",
    ]  # fmt: skip
    assert relu_names(graph)[0] == ("layer1.0.relu/1", 3, (8, 8))
    assert sorted(weights) == ["fc", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"]


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        scale = torch.zeros(len(weight), dtype=x.dtype)
        scale[1:] = 0.5
        first, second = (weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)).split([1, 1])
        scale.add_(1)
        return F.conv2d(x, torch.cat([second, first]) * scale[:, None, None, None], self.bias, padding=self.padding)


@pytest.mark.parametrize("conv", [Standardised(3, 2, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3))])
def test_what_depends_on_parameters_alone_is_computed_at_import(conv):
    model = randomize(nn.Sequential(conv, nn.ReLU()))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "conv", "relu", "output"]
    assert_same_function(model, graph, weights, X)


def test_names_and_graph_do_not_depend_on_batch_values_or_mode():
    model = Small()
    model.train()
    one, _ = import_module(model, torch.zeros(1, 3, 8, 8))
    assert all(module.training for module in model.modules())
    three, _ = import_module(model.double().eval(), torch.ones(3, 3, 8, 8, dtype=torch.float64))
    assert one.fingerprint() == three.fingerprint()
    assert not any(module.training for module in model.modules())


def test_a_module_in_two_places_goes_by_its_first_name():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), relu), nn.Sequential(nn.Conv2d(3, 3, 1), relu))
    graph, _ = import_module(model, X.float())
    assert [name for name, _, _ in relu_names(graph)] == ["0.1/1", "0.1/2"]


def test_dead_calls_count_in_names_but_leave_no_node():
    def forward(self, x):
        self.relu(x)
        torch.softmax(x, 1)  # unsupported, but nothing reads it
        return self.relu(x)

    graph, _ = import_module(Wrapped(forward, relu=nn.ReLU()), X)
    assert names(graph) == ["input", "relu/2", "output"]


def test_modules_named_input_and_output():
    modules = {"input": nn.Conv2d(3, 2, 1), "output": nn.ReLU()}
    graph, _ = import_module(Wrapped(lambda self, x: self.output(self.input(x)), **modules), X.float())
    assert names(graph) == ["input/1", "input/2", "output/1", "output/2"]
    assert graph.input.kind == "input" and graph.output.kind == "output"


class CustomReLU(nn.Module):
    def forward(self, x):
        return x.clamp(min=0)


class DerivedReLU(nn.ReLU):
    pass


def test_functional_operations_bear_their_modules_path():
    graph, _ = import_module(nn.Sequential(CustomReLU(), DerivedReLU()), X)
    assert names(graph) == ["input", "0.clamp", "1", "output"]


@pytest.mark.parametrize(
    "relu",
    [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.relu_, torch.Tensor.relu, lambda x: F.relu(x, inplace=True),
     lambda x: x.clamp(min=0), lambda x: x.clip(0), lambda x: F.hardtanh(x, 0, float("inf"))],
)  # fmt: skip
def test_ways_to_write_relu(relu):
    graph, _ = import_module(Wrapped(lambda self, x: relu(x + x)), X)
    assert kinds(graph) == ["input", "add", "relu", "output"]


@pytest.mark.parametrize(
    "clip", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, nn.Hardtanh(0, 6), lambda x: x.clamp(0, 6), lambda x: x.clamp_(0, 6)]
)
def test_ways_to_write_relu6(clip):
    graph, _ = import_module(Wrapped(lambda self, x: clip(x + x)), X)
    assert kinds(graph) == ["input", "add", "clip", "output"]
    assert graph.nodes[2].attrs == {"max": 6.0}


@pytest.mark.parametrize(
    "square",
    [torch.square, lambda x: x**2, lambda x: x * x, lambda x: torch.pow(x, 2), lambda x: x.clone().mul_(x), lambda x: (x**1).square()],
)
def test_ways_to_write_squares(square):
    graph, _ = import_module(Wrapped(lambda self, x: square(x)), X)
    assert [(n.kind, n.inputs) for n in graph.nodes[1:-1]] == [("multiply", ("input", "input"))]


def test_hard_activations_take_the_scale_of_their_polynomial_from_the_convolution_before_them():
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Hardswish(), nn.Conv2d(4, 4, 1), nn.Hardsigmoid()))
    graph, weights = import_module(model, X)
    assert [(n.name, n.kind, n.inputs) for n in graph.nodes[1:-1]] == [
        ("0", "conv", ("input",)),
        ("2/clip", "clip", ("0",)),
        ("2", "multiply", ("0", "2/clip")),
        ("3", "conv", ("2",)),
        ("4", "clip", ("3",)),
    ]
    assert_same_function(model, graph, weights, 4 * X)


def test_a_hardswish_of_a_sum_scales_it_by_itself():
    model = Wrapped(lambda self, x: F.hardswish(x + self.conv(x)), conv=nn.Conv2d(3, 3, 1)).double()
    graph, weights = import_module(model, X)
    assert kinds(graph)[1:-1] == ["conv", "add", "conv", "clip", "multiply"]
    assert_same_function(model, graph, weights, 4 * X)


MATRICES = [
    (lambda a, b: torch.matmul(a, b.transpose(2, 3)), ["gather", "matmul"]),
    (lambda a, b: (a.flatten(2) @ b.flatten(2).transpose(1, 2)).flatten(1), ["gather", "gather", "matmul", "reshape"]),
    (lambda a, b: torch.bmm(a.flatten(2).permute(0, 2, 1), b.flatten(2)).view(-1, 64, 8, 8), ["gather", "gather", "matmul", "gather"]),
]


@pytest.mark.parametrize(("product", "nodes"), MATRICES)
def test_matrix_products_of_two_tensors(product, nodes):
    model = Wrapped(lambda self, x: product(self.a(x), self.b(x)), a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 2, 1)).double()
    graph, weights = import_module(model, X)
    assert sorted(kinds(graph)[1:-1]) == sorted(["conv", "conv", *nodes])
    assert_same_function(model, graph, weights, X)


SPREAD = [
    (lambda a, b: a * b.mean((2, 3), keepdim=True), ["avgpool"]),
    (lambda a, b: b.mean((2, 3)).view(-1, 3, 1, 1).expand_as(a) * a, ["avgpool"]),
    (lambda a, b: a * b[:, :1], ["gather"]),
    (lambda a, b: a * b[:, 1:2].expand(-1, 3, -1, -1), ["gather"]),
    (lambda a, b: a[:, :, :, :1] * b[:, :, :1], ["gather", "gather"]),
    (lambda a, b: a * b[:, :1, :, :1], ["gather"]),  # not along neighbouring dimensions: written out
    (lambda a, b: (a.unsqueeze(1) * b[:, :2, None]).flatten(1, 2), None),
    (lambda a, b: (a.view(-1, 3, 8, 2, 4) * b.view(-1, 3, 8, 2, 4)[:, :, :, :1]).flatten(3), None),
    (lambda a, b: (a.view(-1, 3, 8, 2, 4)[..., :1] * b.view(-1, 3, 8, 2, 4)[:, :, :, :1]).flatten(3), None),
    (lambda a, b: (a.flatten(2) * b.flatten(2)[:, :, 5:6]).flatten(1), None),
]


@pytest.mark.parametrize(("product", "nodes"), SPREAD)
def test_factors_are_spread_as_torch_does(product, nodes):
    model = Wrapped(lambda self, x: product(x, self.b(x)), b=nn.Conv2d(3, 3, 1)).double()
    graph, weights = import_module(model, X)
    assert nodes is None or sorted(kinds(graph)[1:-1]) == sorted(["conv", *nodes, "multiply"])
    assert_same_function(model, graph, weights, X)


@pytest.mark.parametrize(
    "flatten", [nn.Flatten(), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(len(x), -1), lambda x: torch.flatten(x, 1)]
)
def test_ways_to_flatten(flatten):
    model = randomize(Wrapped(lambda self, x: self.fc(flatten(x)), fc=nn.Linear(192, 4)))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "reshape", "conv", "output"]
    assert_same_function(model, graph, weights, X)


@pytest.mark.parametrize(
    "pool",
    [lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), lambda x: x.mean((2, 3)), lambda x: F.avg_pool2d(x, 8).view(2, 3),
     lambda x: x.mean([-1, -2], keepdim=True).squeeze(3).squeeze(2),
     lambda x: x.mean((3, 2), keepdim=True).squeeze(-1).unsqueeze(2).flatten(1)],
)  # fmt: skip
def test_ways_to_average_globally(pool):
    model = randomize(Wrapped(lambda self, x: self.fc(pool(x)), fc=nn.Linear(3, 4)))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "avgpool", "conv", "output"]
    assert graph.nodes[1].attrs == {"kernel": [8, 8], "stride": [8, 8], "padding": [0, 0, 0, 0], "divisor": 64.0}
    assert_same_function(model, graph, weights, X)


def test_operations_that_do_nothing_leave_no_node():
    def forward(self, x):
        x = self.drop(self.identity(x)).contiguous().clone().float()
        return F.alpha_dropout(F.adaptive_avg_pool2d(x, 8).detach().view(2, 3, 8, 8), 0.5, False)

    graph, _ = import_module(Wrapped(forward, identity=nn.Identity(), drop=nn.Dropout2d()), X.float())
    assert kinds(graph) == ["input", "output"]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own, once, when the module runs
def test_same_padding_of_an_even_kernel_is_longer_at_the_end():
    model = randomize(nn.Conv2d(3, 2, (2, 4), padding="same", dilation=(1, 3)))
    graph, weights = import_module(model, X)
    assert graph.nodes[1].attrs["padding"] == [0, 4, 1, 5]
    assert_same_function(model, graph, weights, X)


def test_ceil_mode_becomes_padding_only_where_windows_hang_over():
    graph, _ = import_module(nn.MaxPool2d(3, 2, ceil_mode=True), X)
    assert graph.nodes[1].attrs["padding"] == [0, 0, 1, 1] and graph.output.shape == (3, 4, 4)
    graph, _ = import_module(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), X)
    assert graph.nodes[1].attrs["padding"] == [0, 0, 0, 0] and graph.output.shape == (3, 4, 4)


def test_bilinear_resize_at_the_end_is_left_to_the_client():
    def forward(self, x):
        return self.drop(F.interpolate(self.conv(x), size=(20, 17), mode="bilinear", align_corners=True))

    model = randomize(Wrapped(forward, conv=nn.Conv2d(3, 2, 1), drop=nn.Dropout()))
    graph, weights = import_module(model, X)
    assert graph.output.attrs == {"resize": [20, 17, True]} and graph.output.shape == (2, 8, 8)
    assert_same_function(model, graph, weights, X)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_resize_from_one_cell_is_a_broadcast(mode):
    model = Wrapped(lambda self, x: x + F.interpolate(x.mean((2, 3), keepdim=True), size=(8, 8), mode=mode))
    graph, weights = import_module(model, X)
    assert kinds(graph) == ["input", "avgpool", "resize", "add", "output"]
    assert_same_function(model, graph, weights, X)


def test_a_batch_norm_is_folded_into_the_one_convolution_before_it():
    features = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Dropout(), nn.BatchNorm2d(4, affine=False)]
    model = randomize(nn.Sequential(*features, nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5)))
    graph, weights = import_module(model, X)
    assert names(graph) == ["input", "0", "4", "5", "output"]
    assert_same_function(model, graph, weights, X)


def test_a_batch_norm_without_its_own_convolution_becomes_a_depthwise_convolution():
    def forward(self, x):
        y = self.conv(self.first(x))
        return self.shared(y) + y  # y is read twice

    model = randomize(Wrapped(forward, conv=nn.Conv2d(3, 4, 1, padding=1), first=nn.BatchNorm2d(3), shared=nn.BatchNorm2d(4)))
    graph, weights = import_module(model, X)
    assert [(n.name, n.kind) for n in graph.nodes[1:4]] == [("first", "conv"), ("conv", "conv"), ("shared", "conv")]
    assert graph["shared"].attrs["groups"] == 4 and weights["shared"]["weight"].shape == (4, 1, 1, 1)
    assert_same_function(model, graph, weights, X)


def test_a_batch_norm_is_folded_in_double_precision():
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))).float()
    graph, weights = import_module(model, X.float())
    assert_same_function(model.double(), graph, weights, X)


def test_a_tensor_changed_in_place_is_read_changed_afterwards():
    def forward(self, x):
        y = self.conv(x)
        before = y + y
        F.relu(y, inplace=True)
        y += before
        return torch.cat([y, before], 1)

    model = randomize(Wrapped(forward, conv=nn.Conv2d(3, 4, 1)))
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)


def test_one_tensor_in_a_tuple_is_accepted():
    graph, _ = import_module(Wrapped(lambda self, x: (x.relu(),)), X)
    assert kinds(graph) == ["input", "relu", "output"]


def test_networks_that_turn_gradients_off_inside():
    def forward(self, x):
        with torch.no_grad():
            y = x.relu()
        return x + y

    graph, _ = import_module(Wrapped(forward), X)
    assert kinds(graph) == ["input", "relu", "add", "output"]


def test_modules_that_are_not_registered_count_as_functions():
    def forward(self, x):
        return nn.ReLU()(self.features[1:](self.features[:1](x)))

    graph, _ = import_module(Wrapped(forward, features=nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())), X.float())
    assert names(graph) == ["input", "features.0", "features.1", "relu", "output"]


def test_dropout_in_place_changes_nothing():
    graph, _ = import_module(nn.Sequential(nn.ReLU(), nn.Dropout(inplace=True), nn.Dropout2d(inplace=True), nn.ReLU()), X)
    assert names(graph) == ["input", "0", "3", "output"]
