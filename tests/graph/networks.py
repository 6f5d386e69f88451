"""Networks for the tests of threepc.graph: random ones of every supported operation, and helpers to compare them with their import."""

from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from threepc.graph.clear import evaluate
from threepc.graph.ir import Graph, Weights

Step = Callable[["Steps", list[torch.Tensor]], torch.Tensor]


class Wrapped(nn.Module):
    """A function as a module; further modules are reached as attributes of its first argument."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


class Steps(nn.Module):
    """Runs its steps in turn; each sees the results of all before it, the input first, and gives one more."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.parts = nn.ModuleList()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [x]
        for step in self.steps:
            values.append(step(self, values))
        return values[-1]


def randomize(model: nn.Module) -> nn.Module:
    """Give batch norms statistics unlike their initial ones, so that folding them is not trivial; float64, evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    model.double()
    model.eval()
    return model


def assert_same_function(model: nn.Module, graph: Graph, weights: Weights, x: torch.Tensor) -> None:
    """`model` (float64) and its import agree on x to 1e-9 of the largest output."""
    with torch.no_grad():
        expected = model(x.clone())
    found = evaluate(graph, weights, x)[graph.output.name].reshape(expected.shape)
    assert (found - expected).abs().max() <= 1e-9 * max(1.0, expected.abs().max())


@st.composite
def random_networks(draw: st.DrawFn) -> tuple[nn.Module, torch.Tensor]:
    """A network of up to eight random operations with skips between them, and an input for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    net = Steps()
    batch, channels, height, width = (draw(st.integers(*limits)) for limits in ((1, 2), (1, 4), (5, 11), (5, 11)))
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    values, fresh = [x.clone()], False

    def add(step: Step) -> None:
        net.steps.append(step)
        net.double()
        net.eval()
        with torch.no_grad():
            values.append(step(net, values))

    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(sorted(_STEPS)))
        index = draw(st.integers(0, len(values) - 1))
        if kind == "inplace" and not fresh:
            kind = "relu"
        add(_STEPS[kind](draw, net, values, index))
        fresh = kind in ("conv", "norm", "max", "inplace")
    if draw(st.booleans()):
        add(_head(draw, net, values))
    randomize(net)
    return net, x


def _part(net: Steps, module: nn.Module, index: int) -> Step:
    net.parts.append(module)
    number = len(net.parts) - 1
    return lambda net, values: net.parts[number](values[index])


def _conv(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    channels, *size = values[index].shape[1:]
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    if draw(st.booleans()):
        padding, stride = "same", 1
    else:
        padding, stride = draw(st.sampled_from([(2, 2), (3, 2)])), (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    dilation = (draw(st.integers(1, 2)), 1)
    outputs = groups * draw(st.integers(1, 2))
    return _part(net, nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())), index)


def _norm(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    return _part(net, nn.BatchNorm2d(values[index].shape[1], eps=draw(st.sampled_from([1e-5, 1e-3])), affine=draw(st.booleans())), index)


def _relu(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    functions = [F.relu, torch.relu, lambda x: x.relu(), lambda x: x.clamp(min=0), lambda x: torch.clamp_min(x, 0), None]
    function = draw(st.sampled_from(functions))
    return lambda net, values: (function or net.relu)(values[index])


def _inplace(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    """Changes the last value in place: later steps that read it see the change."""
    last = len(values) - 1

    def add_(x: torch.Tensor) -> torch.Tensor:
        x += x
        return x

    functions = [torch.relu_, lambda x: F.relu(x, inplace=True), lambda x: x.clamp_(0, 3), nn.ReLU6(inplace=True), add_]
    function = draw(st.sampled_from(functions))
    return lambda net, values: function(values[last])


def _clip(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    function = draw(st.sampled_from([F.relu6, nn.ReLU6(), lambda x: F.hardtanh(x, 0, 0.5), lambda x: x.clamp(0, 2)]))
    return lambda net, values: function(values[index])


def _max(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    kernel = tuple(min(draw(st.integers(1, 3)), size) for size in values[index].shape[2:])
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = 2 if all(2 * (k - 1) < size for k, size in zip(kernel, values[index].shape[2:], strict=True)) and draw(st.booleans()) else 1
    stride, ceil_mode = draw(st.integers(1, 3)), draw(st.booleans())
    return _part(net, nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode), index)


def _average(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    height, width = values[index].shape[2:]
    if draw(st.booleans()):
        size = tuple(draw(st.sampled_from([n for n in range(1, side + 1) if side % n == 0])) for side in (height, width))
        return lambda net, values: F.adaptive_avg_pool2d(values[index], size)
    kernel = min(draw(st.integers(1, 3)), height, width)
    divisor = draw(st.sampled_from([None, 5]))
    return _part(net, nn.AvgPool2d(kernel, draw(st.integers(1, 2)), padding=kernel // 2, divisor_override=divisor), index)


def _add(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    others = [i for i, value in enumerate(values) if value.shape == values[index].shape]
    other = draw(st.sampled_from(others))
    function = draw(
        st.sampled_from([lambda a, b: a + b, torch.add, lambda a, b: sum([a, b, a]), lambda a, b: b - a, lambda a, b: a.add(b, alpha=-1)])
    )
    return lambda net, values: function(values[index], values[other])


def _multiply(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    """By itself, a tensor of the same shape, one number a channel, or one map for all channels."""
    x = values[index]
    others = [i for i, value in enumerate(values) if value.shape == x.shape]
    other = draw(st.sampled_from(others))
    functions = [
        lambda a, b: a * b, torch.mul, lambda a, b: a.square(), lambda a, b: a**2, lambda a, b: a * b.mean((2, 3), keepdim=True),
        lambda a, b: F.adaptive_avg_pool2d(a, 1) * b,
    ]  # fmt: skip
    function = draw(st.sampled_from(functions))
    return lambda net, values: function(values[index], values[other])


def _hard(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    return _part(net, draw(st.sampled_from([nn.Hardswish, nn.Hardsigmoid]))(), index)


def _cat(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    others = [i for i, value in enumerate(values) if value.shape[2:] == values[index].shape[2:] and value.shape[1] < 20]
    chosen = draw(st.lists(st.sampled_from(others or [index]), min_size=1, max_size=3))
    return lambda net, values: torch.cat([values[i] for i in chosen], 1)


def _nothing(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    return _part(net, draw(st.sampled_from([nn.Identity, nn.Dropout, nn.Dropout2d]))(), index)


def _broadcast(draw: st.DrawFn, net: Steps, values: list[torch.Tensor], index: int) -> Step:
    align = draw(st.booleans())

    def step(net: Steps, values: list[torch.Tensor]) -> torch.Tensor:
        mean = values[index].mean(dim=(2, 3), keepdim=True)
        return F.interpolate(mean, size=values[index].shape[2:], mode="bilinear", align_corners=align)

    return step


def _head(draw: st.DrawFn, net: Steps, values: list[torch.Tensor]) -> Step:
    last, (channels, height, width) = len(values) - 1, values[-1].shape[1:]
    kind = draw(st.sampled_from(["flatten", "mean", "resize"]))
    if kind == "resize":
        align = draw(st.booleans())
        return lambda net, values: F.interpolate(values[last], size=(2 * height + 1, 3 * width), mode="bilinear", align_corners=align)
    if kind == "mean":
        net.parts.append(nn.Linear(channels, 3, bias=draw(st.booleans())))
        return lambda net, values: net.parts[-1](values[last].mean([-1, -2]))
    net.parts.append(nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 3), nn.BatchNorm1d(3), nn.ReLU()))
    return lambda net, values: net.parts[-1](values[last])


_STEPS = {
    "conv": _conv, "norm": _norm, "relu": _relu, "inplace": _inplace, "clip": _clip, "max": _max,
    "average": _average, "add": _add, "multiply": _multiply, "hard": _hard, "cat": _cat, "nothing": _nothing, "broadcast": _broadcast,
}  # fmt: skip
