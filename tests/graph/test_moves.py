"""Moves of cells: the protocol's numpy, the clear arithmetic's torch and plain indexing say the same; what a stranger may ask is bounded."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.graph.clear import moved
from threepc.graph.kinds import infer_shape
from threepc.graph.moves import MAX_MOVES, apply, moved_shape


@st.composite
def some_moves(draw):
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    sizes, moves = shape, []
    for _ in range(draw(st.integers(0, 5))):
        axis = draw(st.integers(0, len(sizes) - 1))
        kind = draw(st.sampled_from(["reshape", "permute", "take", "index"]))
        if kind == "reshape":
            factor = draw(st.sampled_from([n for n in range(1, sizes[axis] + 1) if sizes[axis] % n == 0]))
            wanted = [*sizes[:axis], factor, sizes[axis] // factor, *sizes[axis + 1 :]]
            move = [kind, wanted if len(wanted) <= 6 else [math.prod(sizes)]]
        elif kind == "permute":
            move = [kind, list(draw(st.permutations(range(len(sizes)))))]
        elif kind == "take":
            move = [kind, axis, draw(st.integers(-3, 6)), draw(st.integers(-3, 3)), draw(st.integers(1, 7))]
        else:
            move = [kind, axis, draw(st.lists(st.integers(-1, sizes[axis] - 1), min_size=1, max_size=7))]
        try:
            sizes = moved_shape(shape, [*moves, move])
        except InputError as error:
            assert "larger than both" in str(error)
        else:
            moves.append(move)
    return shape, moves


def by_plain_indexing(x, moves):
    for name, *arguments in moves:
        if name == "reshape":
            x = x.reshape(len(x), *arguments[0])
        elif name == "permute":
            x = np.transpose(x, [0, *(axis + 1 for axis in arguments[0])])
        else:
            axis, *rest = arguments
            chosen = [rest[0] + rest[1] * i for i in range(rest[2])] if name == "take" else rest[0]
            cells = [np.take(x, i, axis + 1) if 0 <= i < x.shape[axis + 1] else np.zeros_like(np.take(x, 0, axis + 1)) for i in chosen]
            x = np.stack(cells, axis + 1)
    return x


@given(some_moves())
def test_moves_in_numpy_and_torch(case):
    shape, moves = case
    x = np.arange(1, 1 + 2 * math.prod(shape), dtype=np.uint32).reshape(2, *shape)
    expected = by_plain_indexing(x, moves)
    found = apply(x, moves)
    assert found.shape == (2, *moved_shape(shape, moves)) and found.flags.c_contiguous and np.array_equal(found, expected)
    assert np.array_equal(moved(torch.from_numpy(x.astype(np.float64)), moves).numpy(), expected)
    assert moved_shape(shape, json.loads(json.dumps(moves))) == found.shape[1:]


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        ("reshape", "must be a list"),
        ([["reshape", [24]]] * (MAX_MOVES + 1), "must be a list of at most"),
        ([["reshape", [23]]], "number 0: is no move of a tensor of shape (2, 3, 4)"),
        ([["reshape", [-2, -12]]], "number 0"),
        ([["reshape", [1] * 8 + [24]]], "number 0"),
        ([["reshape", [24.0]]], "number 0"),
        ([["reshape", [True, 24]]], "number 0"),
        ([["permute", [0, 1]]], "number 0"),
        ([["permute", [0, 1, 1]]], "number 0"),
        ([["take", 3, 0, 1, 1]], "number 0"),
        ([["take", -1, 0, 1, 1]], "number 0"),
        ([["take", 0, 0, 1, 0]], "number 0"),
        ([["take", 0, 0, 1]], "number 0"),
        ([["take", 0, 1 << 60, 1, 1]], "number 0"),
        ([["take", 0, 0, 0, 1 << 27]], "would give more than"),
        ([["index", 0, []]], "number 0"),
        ([["index", 0, [2]]], "number 0"),
        ([["index", 0, [-2]]], "number 0"),
        ([["take", 0, 0, 1, 3], ["take", 0, 0, 1, 1]], "a tensor on the way is larger than both the first and the last"),
        ([["sort", 0]], "number 0"),
        ([[]], "number 0"),
        ([7], "number 0"),
    ],
)
def test_moves_that_a_stranger_may_not_ask_for(moves, reason):
    with pytest.raises(InputError) as error:
        moved_shape((2, 3, 4), moves)
    assert reason in str(error.value)


def test_a_gather_gives_channels_height_and_width():
    with pytest.raises(InputError, match="moves: give 1 dimensions"):
        infer_shape("gather", [(2, 3, 4)], {"moves": [["reshape", [24]]]})


def test_zeros_alone():
    assert not apply(np.ones((1, 2, 3, 4), np.uint64), [["take", 1, 9, 1, 2]]).any()
