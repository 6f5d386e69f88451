"""Every network that cannot be computed securely is refused at import, by the module and the operation that stand in the way."""

import re
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped
from threepc.errors import InputError
from threepc.graph.importer import import_module

X = torch.zeros(2, 3, 8, 8)


def lines_of(model, example=None):
    with pytest.raises(InputError) as error:
        import_module(model, X if example is None else example)
    return error.value.lines


def refused(model, message, example=X):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        import_module(model, example)
    assert "\n" not in str(error.value)


def test_the_module_the_operation_and_what_is_supported_are_named():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU(), nn.Softmax(1)))
    refused(model, "module '1.1' uses torch.softmax, which has no secure protocol; supported: conv2d, batch_norm, linear, relu")


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: torch.ops.aten.elu(x, 1.0, 1.0, 2.0), "with input_scale=2; only 1 has a secure protocol"),
        (lambda x: F.softplus(x, threshold=3), "with threshold=3, where it jumps; only what is smooth has a secure protocol"),
        (F.hardshrink, "uses torch.hardshrink, which jumps; only what has no jumps has a secure protocol"),
        (lambda x: F.threshold(x, 0.5, 0), "uses torch.threshold, which jumps from 0 to 0.5; only what has no jumps has a secure protocol"),
        (F.softsign, "uses torch.div, by a tensor that depends on the input; only division by constants has a secure protocol"),
        (lambda x: F.softplus(x, beta=20), "with a parameter of 20, which must be a float from 0.0625 to 16"),
        (lambda x: F.softmax(x, 1), "uses torch.softmax, which has no secure protocol"),
        (lambda x: x**3, "uses torch.pow, with the exponent 3; only squares have a secure protocol"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], "uses aten.getitem, of the places of maxima, which have no secure"),
        (lambda x: F.adaptive_max_pool1d(x.flatten(2), 5, True)[1], "uses aten.getitem, of the places of maxima, which have no secure"),
        (lambda x: F.interpolate(x, 16, mode="bicubic"), "uses torch.nn.functional.interpolate (bicubic2d), which has no secure protocol"),
        (lambda x: torch.cat([x, x]), "uses torch.cat, over the batch; every image is by itself"),
        (lambda x: x.mean(1), "the model returns a tensor of shape (2, 8, 8)"),
        (lambda x: x.mean((2, 3)).mean(1), "the model returns a tensor of shape (2,)"),
        (lambda x: x.mean((0, 2, 3)), "uses torch.mean, over the batch; every image is by itself"),
        (lambda x: x.view(2, 24, 8), "the model returns a tensor of shape (2, 24, 8)"),
        (lambda x: x.reshape(1, -1), "from (2, 3, 8, 8) to (1, 384); the batch must stay the first dimension, and apart"),
        (lambda x: x.view(6, 64), "the batch must stay the first dimension"),
        (lambda x: x.flatten(0), "the batch must stay the first dimension"),
        (lambda x: x.clamp(0, 0), "from 0 to 0; the result is constant"),
        (lambda x: x.clamp(3, 2), "from 3 to 2; the result is constant"),
        (lambda x: x.clamp(torch.zeros(1)), "with a bound that is no number"),
        (lambda x: F.rrelu(x, training=True), "in training mode"),
        (lambda x: x + x.max(), "uses torch.max, of one tensor"),
        (lambda x: torch.maximum(x, x.mean((2, 3), keepdim=True)), "only tensors of one shape can be compared"),
        (lambda x: x.double(), "changes the number type to torch.float64"),
        (lambda x: F.dropout(x, 0.5, True), "uses torch.dropout, in training mode"),
        (lambda x: F.max_pool2d(x[0], 2), "uses torch.select, over the batch"),
        (lambda x: F.batch_norm(x, None, None, training=True), "with the statistics of the batch"),
        (lambda x: F.conv2d(x, x), "with a weight that depends on the input"),
        (lambda x: x.permute(1, 0, 2, 3), "uses torch.permute, that moves the batch; it must stay the first dimension"),
        (lambda x: x.transpose(0, 1), "uses torch.transpose, that moves the batch"),
        (lambda x: torch.stack([x, x]), "uses torch.stack, over the batch"),
        (lambda x: x.flip(0), "uses torch.flip, over the batch"),
        (lambda x: x.roll(1), "uses torch.roll, over the batch"),
        (lambda x: x.repeat(2, 1, 1, 1), "uses torch.Tensor.repeat, over the batch"),
        (lambda x: x[:, [0, 1], [1, 0]], "with indices along several dimensions at once"),
        (lambda x: x[:1], "uses aten.slice, over the batch"),
        (lambda x: x.unbind()[0], "uses torch.unbind, over the batch"),
        (lambda x: x.expand(2, 2, 3, 8, 8).flatten(1), "the batch must stay the first dimension"),
        (lambda x: F.pad(x, (1, 1), value=-torch.inf), "uses torch.nn.functional.pad, with the constant -inf; only finite ones"),
        (lambda x: F.max_pool2d(x, 2, 1, 1, dilation=9, ceil_mode=True), "would hold padding only"),
        (lambda x: (x.relu(), None), "the model returns None; it must return nothing but tensors"),
        (lambda x: [x.relu(), 3], "the model returns 3; it must return nothing but tensors"),
        (lambda x: {1: x.relu()}, "the model returns a dict with the key 1: the way to an output must have indices of tuples and lists"),
        (lambda x: {"a/b": x.relu()}, "the model returns a dict with the key 'a/b': the way to an output must have"),
        (lambda x: (x.relu(), []), "the model returns an empty list; it must return a tensor, or tuples, lists and dicts of tensors"),
        (lambda x: defaultdict(list, a=x.relu()), "the model returns a defaultdict; it must return a tensor, or tuples"),
        (lambda x: None, "the model returns None"),
        (lambda x: x.relu().sum(), "uses torch.sum, over the batch"),
    ],
)
def test_operations(forward, message):
    refused(Wrapped(lambda self, x: forward(x)), message)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.Softmax2d()

    def forward(self, x):
        return self.conv(x) * self.act(self.conv(x))


def test_all_that_stands_in_the_way_is_named_with_modules_and_counts():
    model = nn.Sequential(*(Gated() for _ in range(5)), nn.Conv2d(3, 3, 3, padding_mode="reflect"))
    summary, *details = lines_of(Wrapped(lambda self, x: torch.special.erf(self.inner(x)).topk(2)[0].relu(), inner=model))
    assert any(line.startswith("torch.softmax, which has no secure protocol: 5 times, in module 'inner.0.act',") for line in details)
    assert any("'inner.2.act' and 2 more" in line for line in details)
    assert any(line == "torch.topk, which has no secure protocol: once, in the model's own forward" for line in details)
    assert str(len(details)) in summary and "supported:" in summary


def test_what_follows_a_refusal_is_judged_too():
    summary, *details = lines_of(Wrapped(lambda self, x: F.dropout(torch.special.erf(x), 0.5, True).mean((0, 1))))
    assert len(details) == 3 and any("in training mode" in line for line in details) and any("over the batch" in line for line in details)


class Asserts(nn.Module):
    def __init__(self, *said):
        super().__init__()
        self.said = said

    def forward(self, x):
        if x.shape[2] != 7:
            raise AssertionError(*self.said)
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Asserts("maps must be\n 7 high"),
            "the network itself fails on a tensor of shape (2, 3, 8, 8): AssertionError: maps must be 7 high",
        ),
        (Asserts(), "AssertionError: at line"),
        (nn.Sequential(nn.Flatten(), nn.Linear(7, 7)), "the network itself fails on a tensor of shape (2, 3, 8, 8): RuntimeError: "),
        (nn.Conv2d(3, 3, 1).half(), "; its weights are torch.float16 on cpu, the tensor is not: call .to('cpu', torch.float32) on it"),
        (nn.Conv2d(3, 3, 1, device="meta"), "the model has weights on the device meta, which holds no numbers: make it on cpu"),
    ],
)
def test_what_the_network_itself_raises_is_told_as_its_own(model, message):
    refused(model, message)


def test_what_torch_cannot_trace_is_said_in_one_line_and_nothing_else_is_printed(capfd):
    model = Wrapped(lambda self, x: x.relu() if x.sum() > 0 else x)
    refused(
        model,
        "torch.export cannot trace the model on one tensor of shape (2, 3, 8, 8): its own code decides by the value of a tensor at line ",
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_module_is_refused_before_anything_is_asked_of_it():
    refused(
        torch.jit.script(nn.ReLU()), "the model is a TorchScript module, which torch.export does not trace: give the module that it was"
    )


def changed_view(x):
    y = x + x
    flat = y.flatten(1)
    y.relu_()
    return flat


def changed_base(x):
    y = x + x
    F.dropout(y, training=False).relu_()
    return y


@pytest.mark.parametrize("forward", [changed_view, changed_base])
def test_tensors_that_share_memory_with_one_changed_in_place(forward):
    refused(Wrapped(lambda self, x: forward(x)), "is read after a tensor that shares its memory was changed in place")


class Parameter(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3, 1, 1, dtype=dtype), requires_grad=False)
        self.register_buffer("offset", torch.ones(3, 1, 1))


class ReturnsParameter(Parameter):
    def forward(self, x):
        return self.offset


class CountsCalls(Parameter):
    def forward(self, x):
        self.offset += 1
        return x.relu()


class QuantizedWeight(Parameter):
    def __init__(self):
        super().__init__(dtype=torch.int8)

    def forward(self, x):
        return F.conv2d(x, self.weight)


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x + y


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ReturnsParameter(), "returns one of its own parameters"),
        (CountsCalls(), "changes a parameter or buffer in place"),
        (Wrapped(lambda self, x: F.conv2d(x, torch.rand(3, 3, 1, 1))), "uses torch.rand, whose result depends on chance"),
        (QuantizedWeight(), "torch.int8"),
        (TwoInputs(), "missing 1 required positional argument"),
        (nn.BatchNorm2d(3, track_running_stats=False), "with the statistics of the batch"),
        (nn.GroupNorm(1, 3), "uses torch.group_norm, which has no secure protocol"),
        (nn.InstanceNorm2d(3), "uses torch.instance_norm, with the statistics of the batch"),
        (F.relu, "must be a torch.nn.Module, not function"),
    ],
)
def test_modules(model, message):
    refused(model, message)


@pytest.mark.parametrize("example", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.int64), torch.zeros(0, 3, 8, 8), [X], None])
def test_examples(example):
    refused(nn.ReLU(), "the example input must be one float tensor (N, C, H, W)", example)


def broken(parameter, value):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    with torch.no_grad():
        model.state_dict()[parameter].view(-1)[0] = value
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (broken("0.weight", float("nan")), "weight of '0' holds infinite or undefined numbers"),
        (broken("1.bias", float("inf")), "bias of '0' holds infinite or undefined numbers"),
        (broken("1.running_var", -1.0), "module '1' uses torch.batch_norm, with a running variance that is not positive"),
    ],
)
def test_broken_weights(model, message):
    refused(model, message)


def test_names_that_cannot_be_printed():
    model = nn.Module()
    model.add_module("conv\n", nn.Conv2d(3, 3, 1))
    refused(Wrapped(lambda self, x: self.inner.get_submodule("conv\n")(x), inner=model), "name must be 1 to 256 printable ASCII characters")


def test_the_model_is_left_as_it_was_found():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(1))
    model[1].eval()
    refused(model, "torch.softmax")
    assert [module.training for module in model.modules()] == [True, True, False]
