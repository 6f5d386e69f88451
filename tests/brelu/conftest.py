"""Small graphs for the tests of brelu."""
import pytest

from threepc.graph import Graph, Node

CONV = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}


@pytest.fixture
def small_graph() -> Graph:
    """A ReLU of 3 channels on 5x7 and a ReLU6 of 4 channels on the same map."""
    return Graph((
        Node("input", "input", (), (2, 5, 7)),
        Node("conv1", "conv", ("input",), (3, 5, 7), CONV),
        Node("relu", "relu", ("conv1",), (3, 5, 7)),
        Node("conv2", "conv", ("relu",), (4, 5, 7), CONV),
        Node("clip", "clip", ("conv2",), (4, 5, 7), {"max": 6.0}),
        Node("output", "output", ("clip",), (4, 5, 7)),
    ))
