"""The formulas of SecureNN and Porthos."""

from benchmarks.published import SYSTEMS, network_bytes
from threepc.graph.ir import Graph, Node

SECURENN, PORTHOS = SYSTEMS


def _graph() -> Graph:
    conv = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    pool = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    return Graph(
        (
            Node("input", "input", (), (3, 4, 4)),
            Node("conv", "conv", ("input",), (5, 4, 4), conv),
            Node("relu", "relu", ("conv",), (5, 4, 4)),
            Node("pool", "maxpool", ("relu",), (5, 2, 2), pool),
            Node("clip", "clip", ("pool",), (5, 2, 2), {"max": 6.0}),
            Node("output", "output", ("clip",), (5, 2, 2)),
        )
    )


def test_a_relu_costs_what_their_papers_say():
    assert SECURENN.relu_bytes() == (8 * 64 * 8 + 24 * 64) // 8 == 704
    assert PORTHOS.relu_bytes() == (6 * 64 * 8 + 19 * 64) // 8 == 536


def test_a_network_is_the_sum_of_its_layers():
    parts = network_bytes(SECURENN, _graph(), batch=2)
    assert parts["relu"] == 704 * 2 * (80 + 2 * 20)
    assert parts["maxpool"] == 2 * 20 * 3 * (8 * 64 * 8 + 29 * 64) // 8
    assert parts["conv"] == 8 * (2 * 2 * 27 * 16 + 2 * 135 + 2 * 80)
    assert parts["total"] == parts["relu"] + parts["maxpool"] + parts["conv"]


def test_porthos_sends_images_that_are_not_unfolded():
    assert network_bytes(PORTHOS, _graph())["conv"] == 8 * (2 * 48 + 2 * 135 + 80)
