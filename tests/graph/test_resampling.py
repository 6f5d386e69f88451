"""Maps of another size: the import agrees with torch, and whole weights lose nothing of a constant."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.graph.networks import Wrapped, assert_same_function
from threepc.errors import InputError
from threepc.graph import resampling
from threepc.graph.importer import import_module

torch.manual_seed(0)
X = torch.randn(2, 3, 7, 10, dtype=torch.float64)


def agrees(forward, kinds=("relu", "resample", "relu"), x=X):
    model = Wrapped(lambda self, x: forward(x.relu()).relu())
    graph, weights = import_module(model, x)
    assert [node.kind for node in graph.nodes[1:-1]] == list(kinds)
    assert_same_function(model, graph, weights, x)
    return graph


@settings(max_examples=12, deadline=None)
@given(st.tuples(st.integers(1, 23), st.integers(1, 23)), st.booleans())
def test_bilinear_to_any_size(size, align):
    model = Wrapped(lambda self, x: F.interpolate(x.relu(), size, mode="bilinear", align_corners=align).relu())
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 13), st.integers(1, 13))
def test_adaptive_averages_to_any_size(height, width, rows, columns):
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    model = Wrapped(lambda self, x: F.adaptive_avg_pool2d(x.relu(), (rows, columns)).relu())
    graph, weights = import_module(model, x)
    assert_same_function(model, graph, weights, x)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_averages_whose_divisor_varies_along_the_border(data):
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in kernel)
    pool = nn.AvgPool2d(kernel, stride, padding, data.draw(st.booleans()), data.draw(st.booleans()))
    model = Wrapped(lambda self, x: pool(x.relu()).relu())
    graph, weights = import_module(model, X)
    assert_same_function(model, graph, weights, X)


@pytest.mark.parametrize("factor", [1.3, 2, 0.5, (1.5, 2.25)])
def test_bilinear_by_a_factor(factor):
    agrees(lambda x: F.interpolate(x, scale_factor=factor, mode="bilinear"))


def test_a_resize_that_is_read_and_is_the_output_is_done_by_one_node_where_it_is_read():
    graph = agrees(lambda x: (y := F.interpolate(x, (14, 20), mode="bilinear")).relu() + y, ("relu", "resample", "relu", "add", "relu"))
    assert graph["upsample_bilinear2d"].attrs == {"rows": ["linear", 14, False, 0.5], "columns": ["linear", 20, False, 0.5]}


RULES = st.one_of(
    st.builds(lambda size, aligned, ratio: ["linear", size, aligned, ratio], st.integers(1, 20), st.booleans(), st.floats(0.1, 9.0)),
    st.builds(lambda size: ["adaptive", size], st.integers(1, 20)),
    st.builds(lambda size, name: [name, size, 3, 2, 1, 2], st.integers(1, 3), st.sampled_from(["window", "counted"])),
)


@given(RULES, st.integers(4, 20), st.integers(1, 12))
def test_whole_weights(rule, cells, bits):
    resampling.check_rule(rule)
    found, weights = resampling.taps(rule, cells)
    assert found.shape == weights.shape == (resampling.resampled(rule, cells), found.shape[1])
    assert found.min() >= 0 and found.max() < cells and weights.min() >= 0
    whole = resampling.whole(weights, bits)
    assert np.array_equal(whole.sum(1), np.rint(weights.sum(1) * 2**bits))
    assert (np.abs(whole - weights * 2**bits) <= 0.5 + 0.5 * weights.shape[1]).all()
    x = np.arange(cells * 6, dtype=np.uint64).reshape(1, 2, cells, 3)
    expected = np.einsum("oc,nkcw->nkow", _matrix(found, whole, cells), x.astype(np.int64))
    assert np.array_equal(resampling.apply(x, 2, found, whole.astype(np.uint64)).astype(np.int64), expected)


def _matrix(found, weights, cells):
    matrix = np.zeros((len(found), cells), np.int64)
    for row, (columns, values) in enumerate(zip(found, weights, strict=True)):
        np.add.at(matrix[row], columns, values)
    return matrix


def test_exact_bits():
    assert resampling.exact_bits(resampling.taps(["linear", 20, False, 0.5], 10)) == 2
    assert resampling.exact_bits(resampling.taps(["adaptive", 7], 2)) == 1
    assert resampling.exact_bits(resampling.taps(["adaptive", 2], 6)) is None


@pytest.mark.parametrize(
    "rule",
    [["linear"], ["linear", 0, True, 1.0], ["linear", 4, 1, 1.0], ["linear", 4, True, float("nan")], ["linear", 4, True, 1], ["adaptive", 1 << 17],
     ["adaptive", True], ["adaptive", 3, 3], ["window", 3, 2, 1, 2, 0], ["window", 3, 2, 0, 0, 0], ["cubic", 3], "linear", {}, [[]]],
)  # fmt: skip
def test_rules_that_a_stranger_may_not_give(rule):
    with pytest.raises(InputError, match="must be the rule of an axis"):
        resampling.check_rule(rule)


@pytest.mark.parametrize(
    ("rule", "cells"), [(["adaptive", 1 << 11], 1 << 30), (["window", 9, 2, 2, 0, 0], 16), (["counted", 1 << 16, 100, 1, 0, 0], 1 << 16)]
)
def test_sizes_that_a_stranger_may_not_give(rule, cells):
    with pytest.raises(InputError, match=r"at most|padding only"):
        resampling.resampled(rule, cells)
