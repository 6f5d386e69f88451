"""Small graphs for the tests of specs, here and in reduction."""

import pytest

from threepc.graph.ir import Graph, Node

CONV = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}


def two_relus(height: int, width: int) -> Graph:
    """A ReLU of 3 channels on a (height, width) map and a ReLU6 of 4 channels on the same."""
    return Graph(
        (
            Node("input", "input", (), (2, height, width)),
            Node("conv1", "conv", ("input",), (3, height, width), CONV),
            Node("relu", "relu", ("conv1",), (3, height, width)),
            Node("conv2", "conv", ("relu",), (4, height, width), CONV),
            Node("clip", "clip", ("conv2",), (4, height, width), {"max": 6.0}),
            Node("output", "output", ("clip",), (4, height, width)),
        )
    )


@pytest.fixture
def small_graph() -> Graph:
    """Small enough to count by hand."""
    return two_relus(5, 7)


@pytest.fixture
def wide_graph() -> Graph:
    """Large enough that what is rounded up to whole words weighs little."""
    return two_relus(60, 84)
