"""Constants, sums over dimensions and convolutions of every kind: the import agrees with torch, and constants go into convolutions."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function, randomize
from threepc.errors import InputError
from threepc.graph.importer import import_module

torch.manual_seed(0)
X = torch.randn(2, 4, 6, 8, dtype=torch.float64)
MAP = nn.Parameter(torch.randn(1, 4, 6, 8, dtype=torch.float64))
CHANNELS = nn.Parameter(torch.randn(4, 1, 1, dtype=torch.float64))


def imported(forward, x=X, **modules):
    model = randomize(Wrapped(lambda self, x: forward(self, x), offset=MAP, scale=CHANNELS, **modules))
    graph, weights = import_module(model, x)
    assert_same_function(model, graph, weights, x)
    return [node.kind for node in graph.nodes[1:-1]]


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: x * 2, lambda s, x: 3 * x, lambda s, x: x / 3, lambda s, x: x + 1.5, lambda s, x: 1 + x, lambda s, x: x - 2,
        lambda s, x: 2 - x, lambda s, x: -x, lambda s, x: x * s.scale, lambda s, x: s.scale - x, lambda s, x: x / s.scale,
        lambda s, x: x.mul(2).add_(s.scale, alpha=2), lambda s, x: x.sub(s.scale, alpha=3), lambda s, x: torch.add(s.scale, x, alpha=-2),
        lambda s, x: x + torch.full((2, 4, 1, 1), 3.0, dtype=torch.float64), lambda s, x: torch.rsub(x, 3, alpha=2),
    ],
)  # fmt: skip
def test_constants_of_channels_go_into_the_convolution_before_or_behind(forward):
    def whole(self, x):
        return self.after(F.relu(forward(self, self.before(x))) * 2 + 1)

    assert imported(whole, before=nn.Conv2d(4, 4, 3), after=nn.Conv2d(4, 2, 3, groups=2)) == ["conv", "relu", "conv"]
    assert imported(lambda s, x: forward(s, x.relu())) == ["relu", "conv"]


@pytest.mark.parametrize(
    ("forward", "kinds"),
    [
        (lambda s, x: x * s.offset + s.scale, ["gather", "conv", "gather", "conv"]),
        (lambda s, x: x + s.offset[:, :, :, :1], ["gather", "conv", "gather"]),
        (lambda s, x: x + s.offset[:, :1, :1], ["gather", "conv", "gather"]),
        (lambda s, x: x.flatten(1) + s.offset.flatten(), ["reshape", "conv"]),
        (lambda s, x: (x * 1 + 0 - 0) / 1, []),
        (lambda s, x: x + x.mean((2, 3), keepdim=True), ["avgpool", "gather", "add"]),
        (lambda s, x: x[:, :1] - x, ["gather", "add"]),
        (lambda s, x: torch.add(x, x.relu(), alpha=2), ["relu", "conv", "add"]),
        (lambda s, x: torch.sub(x, x.relu(), alpha=-0.5), ["relu", "conv", "add"]),
    ],
)
def test_other_constants_and_sums(forward, kinds):
    assert imported(forward) == kinds


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_batch_norm_before_a_convolution_goes_into_it_unless_padding_would_show(padding, groups):
    parts = {"norm": nn.BatchNorm2d(4), "conv": nn.Conv2d(4, 6, 3, padding=padding, groups=groups)}
    assert imported(lambda s, x: s.conv(s.norm(x)), **parts) == (["conv", "conv"] if padding else ["conv"])


@pytest.mark.parametrize("operation", [torch.mean, torch.sum, torch.amax])
@pytest.mark.parametrize("dims", [1, (2,), -1, (1, 3), (1, 2, 3), (2, 3)])
@pytest.mark.parametrize("keep", [True, False])
def test_reductions_over_any_dimensions(operation, dims, keep):
    def forward(self, x):
        return operation(x.relu(), dims, keep).reshape(2, -1)

    assert "maxpool" in imported(forward) if operation is torch.amax else "avgpool" in imported(forward)


def test_reductions_of_more_dimensions_and_of_maps():
    assert imported(lambda s, x: x.view(2, 2, 2, 6, 8).sum(1)) == ["gather", "avgpool", "gather"]


@pytest.mark.parametrize("size, kinds", [((3, 1), ["maxpool"]), ((4, 5), ["gather", "maxpool"]), ((7, 11), ["gather", "maxpool"])])
def test_maxima_of_windows_of_one_size_and_of_several(size, kinds):
    assert imported(lambda s, x: F.adaptive_max_pool2d(x, size)) == kinds


ROWS = {
    "average": (nn.AvgPool1d(3), "avgpool"),
    "average that hangs over": (nn.AvgPool1d(5, 3, 2, ceil_mode=True), "resample"),
    "average without the padding": (nn.AvgPool1d(3, 2, 1, count_include_pad=False), "resample"),
    "maximum": (nn.MaxPool1d(3, 2, 1), "maxpool"),
    "maximum far apart": (nn.MaxPool1d(3, 1, 1, dilation=2), "maxpool"),
    "maximum that hangs over": (nn.MaxPool1d(5, 2, ceil_mode=True), "maxpool"),
    "maximum and its place": (nn.MaxPool1d(2, return_indices=True), "maxpool"),
    "average to a size": (nn.AdaptiveAvgPool1d(6), "avgpool"),
    "average to a size that divides not": (nn.AdaptiveAvgPool1d(5), "resample"),
    "maximum to a size": (nn.AdaptiveMaxPool1d(6), "maxpool"),
    "maximum to a size that divides not": (nn.AdaptiveMaxPool1d(7), "maxpool"),
    "mirrored": (nn.Conv1d(4, 5, 3, padding=2, padding_mode="reflect"), "conv"),
    "around in a circle": (nn.Conv1d(4, 5, 3, padding=1, padding_mode="circular"), "conv"),
    "spread": (nn.Conv1d(4, 4, 3, padding=3, dilation=3, groups=2), "conv"),
}


@pytest.mark.parametrize("operation, kind", ROWS.values(), ids=ROWS)
def test_poolings_and_convolutions_of_rows_of_numbers(operation, kind):
    def forward(self, x):
        result = self.operation(x.flatten(2))
        return (result[0] if isinstance(result, tuple) else result).unsqueeze(2)

    assert imported(forward, operation=operation)[-1] == kind


MAPS = {
    "far apart": nn.MaxPool2d(3, 2, (1, 0), dilation=(1, 2)),
    "hanging over": nn.MaxPool2d((2, 3), (2, 3), ceil_mode=True),
    "both": nn.MaxPool2d(2, 2, 1, dilation=2, ceil_mode=True),
    "with places": nn.MaxPool2d(2, return_indices=True),
}


@pytest.mark.parametrize("pool", MAPS.values(), ids=MAPS)
def test_maxima_of_maps(pool):
    assert imported(lambda s, x: s.pool(x)[0] if pool.return_indices else s.pool(x), pool=pool) == ["maxpool"]


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_convolution_with_what_is_not_zero_around_its_map(mode):
    assert imported(lambda s, x: s.conv(x), conv=nn.Conv2d(4, 5, 3, 2, padding=(2, 1), padding_mode=mode)) == ["gather", "conv"]


def test_a_constant_around_a_map_goes_into_the_convolutions_before_and_behind():
    parts = {"conv": nn.Conv2d(4, 5, 1), "pad": nn.ConstantPad2d((0, 1, 2, -3), 0.5), "last": nn.Conv2d(5, 3, 3)}
    assert imported(lambda s, x: s.last(s.pad(s.conv(x))), **parts) == ["conv", "gather", "conv"]
    assert imported(lambda s, x: F.pad(x, (1, 0, 0, 1, 1, 0), value=-2.0)) == ["conv", "gather", "conv"]


def test_instance_norms_of_running_statistics():
    assert imported(lambda s, x: s.norm(x), norm=nn.InstanceNorm2d(4, affine=True, track_running_stats=True)) == ["conv"]


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_transposed_convolutions(data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    padding = tuple(data.draw(st.integers(0, d * (k - 1) + 1)) for d, k in zip(dilation, kernel, strict=True))
    beyond = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    axes = zip(X.shape[2:], kernel, stride, dilation, padding, beyond, strict=True)
    assume(all((size - 1) * s - 2 * p + d * (k - 1) + b >= 0 for size, k, s, d, p, b in axes))  # of no output nothing is computed
    groups = data.draw(st.sampled_from([1, 2]))
    conv = nn.ConvTranspose2d(4, 6, kernel, stride, padding, beyond, groups, data.draw(st.booleans()), dilation)
    assert imported(lambda s, x: s.conv(x), conv=conv)[-1] == "conv"


def test_rows_of_numbers():
    def forward(self, x):
        x = self.up(F.relu(self.conv(x.flatten(2))))
        return self.norm(x).unsqueeze(2)

    parts = {"conv": nn.Conv1d(4, 6, 3, 2, 1, groups=2), "up": nn.ConvTranspose1d(6, 4, 3, 2, 1), "norm": nn.BatchNorm1d(4)}
    assert imported(forward, **parts) == ["gather", "conv", "relu", "gather", "conv"]


def test_linear_over_the_last_of_several_dimensions():
    def forward(self, x):
        return self.linear(x.flatten(2).transpose(1, 2)).transpose(1, 2).view(2, 5, 6, 8)

    assert imported(forward, linear=nn.Linear(4, 5)) == ["gather", "conv", "gather"]


def test_zeros_around_a_map_become_the_padding_of_the_convolution():
    parts = {"conv": nn.Conv2d(4, 5, 3, 2, 1), "pad": nn.ZeroPad2d((0, 1, 2, 3))}
    assert imported(lambda s, x: s.conv(s.pad(x)), **parts) == ["conv"]
    assert imported(lambda s, x: s.conv(F.pad(x, (0, 1, -1, 0))), **parts) == ["gather", "conv"]


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda s, x: 1 / x, "with a tensor that depends|which has no secure protocol|by a tensor that depends on the input"),
        (lambda s, x: x / 0, "by zero, or with rounding"),
        (lambda s, x: torch.div(x, 2, rounding_mode="floor"), "by zero, or with rounding"),
        (lambda s, x: x * torch.arange(2.0).view(2, 1, 1, 1), "differ from image to image"),
        (lambda s, x: x.sum(0), "over the batch"),
        (lambda s, x: x.sum(), "over the batch"),
    ],
)
def test_constants_and_sums_that_are_refused(forward, message):
    with pytest.raises(InputError, match=message):
        import_module(Wrapped(lambda self, x: forward(self, x)), X.float())
