"""What graphs of jobs have beyond those of networks: arrays of the server's, public ones, outputs to the server. Strangers send these too."""

import pytest

from threepc.errors import InputError
from threepc.graph.ir import Graph, Node


def nodes(**changes):
    """A small job: the client's input times a public array, plus the server's, shown to the server. changes: attributes by node."""
    attributes = {
        "x": {},
        "w": {"owner": "server"},
        "c": {"values": [0.5, -1.0]},
        "product": {},
        "sum": {},
        "z": {"to": "server", "path": [["dict", "z"]]},
    } | changes
    kinds = {"x": "input", "w": "input", "c": "constant", "product": "multiply", "sum": "add", "z": "output"}
    inputs = {"product": ("x", "c"), "sum": ("product", "w"), "z": ("sum",)}
    return [Node(name, kind, inputs.get(name, ()), (1, 1, 2), attributes[name]) for name, kind in kinds.items()]


def test_a_job_survives_its_text():
    graph = Graph(tuple(nodes()))
    assert Graph.from_json(graph.to_json()) == graph and Graph.from_json(graph.to_json()).fingerprint() == graph.fingerprint()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x": {"owner": "server"}}, "the first node must be the client's input, without attributes"),
        ({"w": {}}, "'w': kind: a second node of kind input"),
        ({"w": {"owner": "client"}}, "'w': owner: must be server, or left out for the client"),
        ({"w": {"owner": ["server"]}}, "'w': owner: must be server, or left out for the client"),
        ({"z": {"to": "provider"}}, "'z': to: must be server, or left out for the client"),
        ({"c": {}}, "'c': values: is missing"),
        ({"c": {"values": [0.5]}}, "'c': values: must be 2, not 1"),
        ({"c": {"values": [0.5, 1]}}, "'c': values: must be a list of finite floats"),
        ({"c": {"values": [0.5, float("nan")]}}, "'c': values: must be a list of finite floats"),
        ({"c": {"values": "ab"}}, "'c': values: must be a list of finite floats"),
        ({"w": {"limit": 3.0}}, "'w': attrs: must be an object with the keys owner"),
        ({"product": {"owner": "server"}}, "'product': attrs: must be an object with the keys none"),
    ],
)
def test_a_tampered_job_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Graph(tuple(nodes(**changes)))


def test_an_input_reads_nothing():
    spoilt = nodes()
    spoilt[2] = Node("c", "constant", ("x",), (1, 1, 2), {"values": [1.0, 2.0]})
    with pytest.raises(InputError, match="'c': inputs: a node of kind constant has 0"):
        Graph(tuple(spoilt))


@pytest.mark.parametrize(
    "attributes, message",
    [
        ({}, "size: is missing"),
        ({"size": 3}, "size: must be a finite float above 0"),
        ({"size": 0.0}, "size: must be a finite float above 0"),
        ({"size": -1.0}, "size: must be a finite float above 0"),
        ({"size": float("nan")}, "size: must be a finite float above 0"),
        ({"size": float("inf")}, "size: must be a finite float above 0"),
        ({"size": 1.0, "by": ""}, "by: must be 1 to 64 printable ASCII characters"),
        ({"size": 1.0, "by": "a" * 65}, "by: must be 1 to 64 printable ASCII characters"),
        ({"size": 1.0, "by": "\x1b[2J"}, "by: must be 1 to 64 printable ASCII characters"),
        ({"size": 1.0, "by": None}, "by: must be 1 to 64 printable ASCII characters"),
    ],
)
def test_a_limit_that_says_nothing_is_refused(attributes, message):
    limited = nodes()
    limited[4:] = [Node("limit", "limit", ("product",), (1, 1, 2), attributes), Node("z", "output", ("limit",), (1, 1, 2))]
    with pytest.raises(InputError, match=f"'limit': {message}"):
        Graph(tuple(limited))
