"""The trainable block ReLU against a loop that follows its definition, and its place in real modules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from threepc.errors import InputError
from threepc.graph.block_relu import BlockReLU, CalledInTurn, apply_spec
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module
from threepc.graph.relu_spec import ReluSpec, relu_nodes


def slow(x: np.ndarray, patches: list, maximum: float | None) -> np.ndarray:
    """Block ReLU of x (N, C, H, W), patch by patch."""
    out = np.zeros_like(x)
    _, _, rows, columns = x.shape
    for image in range(len(x)):
        for channel, (height, width) in enumerate(patches):
            if (height, width) == (0, 1):
                out[image, channel] = x[image, channel]
            if 0 in (height, width):
                continue
            for top in range(0, rows, height):
                for left in range(0, columns, width):
                    patch = np.s_[image, channel, top : top + height, left : left + width]
                    out[patch] = (x[patch].sum() >= 0) * x[patch]
                    if maximum is not None:
                        out[patch] -= ((x[patch] - maximum).sum() >= 0) * (x[patch] - maximum)
    return out


@st.composite
def cases(draw):
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    patch = st.one_of(st.just((0, 1)), st.just((1, 0)), st.just((1, 1)), st.tuples(st.integers(1, rows), st.integers(1, columns)))
    patches = draw(st.lists(patch, min_size=1, max_size=6))
    # Small integers: sums are exact, so that ties at zero are ties on both sides.
    values = st.lists(st.integers(-4, 8), min_size=rows * columns * len(patches) * 2, max_size=rows * columns * len(patches) * 2)
    x = np.array(draw(values), dtype=np.float64).reshape(2, len(patches), rows, columns)
    return x, patches, draw(st.sampled_from([None, 3.0]))


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from([torch.float64, torch.float32]))
def test_agrees_with_the_definition(case, dtype):
    x, patches, maximum = case
    ours = BlockReLU(np.array(patches), maximum)(torch.from_numpy(x).to(dtype))
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours.numpy(), slow(x, patches, maximum))


def test_gradient_is_the_decision():
    x = torch.tensor([[[[1.0, -3.0, 5.0], [1.0, 2.0, -1.0]]]], requires_grad=True)
    BlockReLU(np.array([[2, 2]]))(x).sum().backward()
    assert x.grad.tolist() == [[[[1, 1, 1], [1, 1, 1]]]]
    x.grad = None
    BlockReLU(np.array([[1, 2]]))(x).sum().backward()
    assert x.grad.tolist() == [[[[0, 0, 1], [1, 1, 0]]]]


def test_one_by_one_is_relu_and_relu6():
    x = torch.linspace(-3, 9, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    ones = np.ones((3, 2), dtype=int)
    torch.testing.assert_close(BlockReLU(ones)(x), torch.relu(x))
    torch.testing.assert_close(BlockReLU(ones, 6.0)(x), nn.functional.relu6(x))


def test_vectors_and_half_precision():
    x = torch.tensor([[3.0, -2.0], [-1.0, 4.0]])
    assert BlockReLU(np.array([[1, 1], [0, 1]]))(x).tolist() == [[3, -2], [0, 4]]
    # The sum of this patch is beyond float16's largest number on the way: a decision in half precision would be undefined.
    large = torch.full((1, 1, 2, 2), 60000.0, dtype=torch.bfloat16)
    assert torch.equal(BlockReLU(np.array([[2, 2]]))(large), large)


class Reused(nn.Module):
    """One ReLU object called three times, two of them with other channels, and a ReLU6."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.relu, self.tail = nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU6())

    def forward(self, x):
        x = self.second(self.relu(self.first(x)))
        return self.tail(self.relu(self.relu(x) + x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Reused()

    def forward(self, x):
        return self.block(x)


def reused_spec(**changes):
    layers = {
        "block.relu/1": [[2, 2]] * 3,
        "block.relu/2": [[1, 1], [3, 1], [0, 1], [1, 0]],
        "block.relu/3": [[1, 2]] * 4,
        "block.tail.1": [[2, 3], [0, 1]],
    } | changes
    return ReluSpec("reused", {name: patches for name, patches in layers.items() if patches})


def test_a_module_called_several_times():
    torch.manual_seed(0)
    model, x = Net().train(), torch.randn(2, 2, 5, 7)
    keys, expected = list(model.state_dict()), block_forward(model.block, x)
    apply_spec(model, reused_spec(), x)
    assert model.training and list(model.state_dict()) == keys
    assert isinstance(model.block.relu, CalledInTurn)
    for _ in range(2):
        torch.testing.assert_close(model(x), expected)
    # A pass that breaks off after one call must not shift the next.
    model.block.relu(model.block.first(x))
    torch.testing.assert_close(model(x), expected)


def block_forward(block, x):
    spec = reused_spec()

    def apply(name, maximum, z):
        return torch.from_numpy(slow(z.detach().double().numpy(), spec.layers[name].tolist(), maximum)).float()

    x = apply("block.relu/1", None, block.first(x))
    x = block.second(x)
    return apply("block.tail.1", 6.0, block.tail[0](apply("block.relu/3", None, apply("block.relu/2", None, x) + x)))


def test_survives_export():
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(2, 2, 5, 7)
    apply_spec(model, reused_spec(), x)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_survives_distributed_training(tmp_path):
    torch.manual_seed(0)
    model, x = Net(), torch.randn(2, 2, 5, 7)
    apply_spec(model, reused_spec(), x)
    model(x).sum().backward()
    alone = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    torch.distributed.init_process_group("gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            parallel.zero_grad()
            parallel(x).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, alone[name])


def test_names_and_function_are_those_of_the_graph():
    torch.manual_seed(0)
    model, x = Net().double(), torch.randn(2, 2, 5, 7, dtype=torch.float64)
    graph, weights = import_module(model, x)
    assert [node.name for node in relu_nodes(graph)] == ["block.relu/1", "block.relu/2", "block.relu/3", "block.tail.1"]
    sizes = {name: tuple(map(tuple, patches.tolist())) for name, patches in reused_spec().layers.items()}
    reference = evaluate(graph, weights, x, sizes=sizes)[graph.output.name]
    torch.testing.assert_close(apply_spec(model, reused_spec(), x)(x), reference)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"block.relu/3": None}, "'block.relu/3' of this network is missing"),
        ({"other": [[1, 1]]}, "calls no ReLU module 'other'"),
        ({"block.tail.1": [[1, 1]]}, "'block.tail.1' has 1 patch sizes, the network's has 2"),
    ],
)
def test_spec_of_another_model(changes, message):
    with pytest.raises(InputError, match=message):
        apply_spec(Net(), reused_spec(**changes), torch.zeros(1, 2, 5, 7))


def test_a_function_is_named():
    class Functional(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    with pytest.raises(InputError, match=r"'relu': .* called as a function"):
        apply_spec(Functional(), ReluSpec("f", {"relu": [[1, 1]]}), torch.zeros(1, 1, 2, 2))
