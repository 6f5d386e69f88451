"""Operations that rearrange cells: the import agrees with torch on random chains of them, and each chain is one node."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function, randomize
from threepc.graph.importer import import_module

torch.manual_seed(0)
X = torch.randn(2, 4, 6, 8, dtype=torch.float64)

ONE_GATHER = [
    lambda x: x.view(2, 2, 2, 6, 8).transpose(1, 2).contiguous().view(2, 4, 6, 8),
    lambda x: x[:, :, ::2, 1:],
    lambda x: x[:, -1:],
    lambda x: x[:, 1].unsqueeze(1),
    lambda x: x[:, [3, 0, 0]],
    lambda x: x.index_select(3, torch.tensor([7, 1])),
    lambda x: x.narrow(2, 1, 3),
    lambda x: x.split(3, 1)[1],
    lambda x: x.split([1, 3], 1)[1],
    lambda x: x.chunk(3, 2)[2],
    lambda x: x.unbind(1)[2].unsqueeze(1),
    lambda x: x.flip(2, 3),
    lambda x: x.flip(1),
    lambda x: x.roll(1, 2).roll((3, -1), (1, 3)),
    lambda x: x.swapaxes(2, 3),
    lambda x: x.movedim(1, 3),
    lambda x: x.movedim((1, 2), (3, 1)),
    lambda x: x.repeat(1, 2, 1, 3),
    lambda x: x.repeat_interleave(2, 1),
    lambda x: x[:, :1].expand(-1, 3, -1, -1),
    lambda x: x[:, :1].expand_as(x),
    lambda x: F.pad(x, (1, 2, 0, 3)),
    lambda x: F.pad(x, (-1, 2, 0, -3, 1, 0)),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"),
    nn.ZeroPad2d((1, 0, 2, 1)),
    nn.ReflectionPad2d(2),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
    nn.ChannelShuffle(2),
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.interpolate(x, (13, 5)),
    lambda x: F.interpolate(x, (9, 20), mode="nearest-exact"),
    lambda x: F.interpolate(x, scale_factor=1.7),
    lambda x: F.interpolate(x.flatten(2), 50).unsqueeze(2),
    lambda x: x.view(2, 2, 2, 48)[:, 1].transpose(1, 2).reshape(2, 6, 8, 2).permute(0, 3, 1, 2),
    lambda x: x.reshape(2, 4, 3, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3),
    lambda x: x.squeeze(1).unflatten(1, (2, 2)).flatten(1, 2)[:, 1:],
]


@pytest.mark.parametrize("forward", ONE_GATHER)
def test_a_chain_of_moves_is_one_node(forward):
    model = Wrapped(lambda self, x: forward(x) if isinstance(forward, nn.Module) else forward(x.relu()).relu())
    graph, weights = import_module(model, X)
    kinds = [node.kind for node in graph.nodes if node.kind not in ("relu", "input", "output")]
    assert kinds in (["gather"], ["gather"] * 2)
    assert_same_function(model, graph, weights, X)


OTHERS = [
    (lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1), ["gather"] * 4 + ["concat"]),
    (lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2), ["relu", "gather", "gather", "concat", "gather"]),
    (lambda x: torch.cat([x, x.relu()], 3), ["relu", "gather", "gather", "concat", "gather"]),
    (lambda x: torch.cat([x.flatten(2), x.relu().flatten(2)], 1).view(2, 8, 6, 8), ["relu", "gather", "gather", "concat", "gather"]),
    (lambda x: x.view(2, 4, 48).view(2, 4, 6, 8).flatten(2).reshape(x.shape), []),
    (lambda x: x.transpose(1, 2).transpose(1, 2), []),
    (lambda x: x.flatten(1)[:, 3:9], ["reshape", "gather"]),
    (lambda x: x.repeat(1, 8, 1, 1)[:, :3], ["gather", "gather"]),
    (lambda x: x.chunk(2, 1)[0] + x.chunk(2, 1)[1], ["gather", "gather", "add"]),
]


@pytest.mark.parametrize(("forward", "expected"), OTHERS)
def test_nodes_of_other_rearrangements(forward, expected):
    model = Wrapped(lambda self, x: forward(x))
    graph, weights = import_module(model, X)
    assert [node.kind for node in graph.nodes[1:-1]] == expected
    assert_same_function(model, graph, weights, X)


def test_several_readers_of_a_view_share_one_node():
    model = Wrapped(lambda self, x: (y := x.transpose(2, 3)).relu() + y)
    graph, _ = import_module(model, X)
    assert [(node.name, node.kind) for node in graph.nodes[1:-1]] == [("transpose", "gather"), ("relu", "relu"), ("add", "add")]


def test_a_slice_changed_in_place_changes_what_it_is_a_slice_of():
    def forward(self, x):
        y = x + x
        y[:, :2].relu_()
        return y

    with pytest.raises(Exception, match="shares its memory was changed in place"):
        import_module(Wrapped(forward), X)


@st.composite
def chains(draw):
    """Up to five random moves that keep the number of dimensions, of which there are three behind the batch."""
    steps, shape = [], list(X.shape[1:])
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["permute", "slice", "flip", "roll", "pad", "shuffle", "repeat", "nearest"]))
        axis = draw(st.integers(1, 3))
        if kind == "permute":
            order = [0, *draw(st.permutations([1, 2, 3]))]
            steps.append(lambda x, order=order: x.permute(order))
            shape = [shape[one - 1] for one in order[1:]]
        elif kind == "slice":
            start, step = draw(st.integers(0, shape[axis - 1] - 1)), draw(st.integers(1, 3))
            steps.append(lambda x, a=axis, start=start, step=step: x[(slice(None),) * a + (slice(start, None, step),)])
            shape[axis - 1] = len(range(start, shape[axis - 1], step))
        elif kind == "flip":
            steps.append(lambda x, a=axis: x.flip(a))
        elif kind == "roll":
            shift = draw(st.integers(-3, 3))
            steps.append(lambda x, a=axis, shift=shift: x.roll(shift, a))
        elif kind == "pad":
            sides = draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
            steps.append(lambda x, sides=sides: F.pad(x, sides))
            shape[1:] = [shape[1] + sides[2] + sides[3], shape[2] + sides[0] + sides[1]]
        elif kind == "shuffle":
            steps.append(lambda x: x.reshape(len(x), x.shape[3], -1).transpose(1, 2).reshape(x.shape))
        elif kind == "repeat":
            steps.append(lambda x, a=axis: x.repeat([2 if one == a else 1 for one in range(4)]))
            shape[axis - 1] *= 2
        else:
            size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
            steps.append(lambda x, size=size: F.interpolate(x, size))
            shape[1:] = size
    return steps


@settings(max_examples=15, deadline=None)
@given(chains())
def test_random_chains(steps):
    def forward(self, x):
        for step in steps:
            x = step(x)
        return x

    model = randomize(Wrapped(forward))
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)
