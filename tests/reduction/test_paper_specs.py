"""The importer of the paper's pickles: every way numpy has pickled integer arrays, and what a spec must hold."""

import collections
import pickle
from pathlib import Path

import numpy as np
import pytest

from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.graph.relu_spec import check
from threepc.reduction.paper import import_paper, paper_networks, read_arrays

NETWORK = "resnet18_cifar100"


def graph_like(layers):
    """A chain of ReLUs with the channels and sizes of a paper network."""
    first = layers[0]
    nodes = [Node("input", "input", (), (first["channels"], first["size"], first["size"]))]
    for index, layer in enumerate(layers):
        conv = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
        size, before = layer["size"], nodes[-1].shape[1]
        conv["stride"] = [before // size] * 2
        nodes.append(Node(f"conv{index}", "conv", (nodes[-1].name,), (layer["channels"], size, size), conv))
        nodes.append(Node(f"relu{index}", "relu", (nodes[-1].name,), (layer["channels"], size, size)))
    return Graph((*nodes, Node("output", "output", (nodes[-1].name,), nodes[-1].shape)))


@pytest.fixture
def arrays():
    return {layer["name"]: np.tile([[2, 3], [1, 0]], (layer["channels"] // 2, 1)) for layer in paper_networks()[NETWORK]}


@pytest.fixture
def write(tmp_path):
    def to_file(content, protocol=4, replace=None) -> Path:
        raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
        path = tmp_path / "spec.pickle"
        path.write_bytes(raw.replace(*replace) if replace else raw)
        return path

    return to_file


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        np.asfortranarray,
        lambda a: a.astype(">i4"),
        lambda a: a.astype(np.uint8),
        lambda a: a.tolist(),
        lambda a: [list(row) for row in a.tolist()],
    ],
)
def test_every_pickle_protocol(arrays, write, protocol, form):
    path = write(collections.OrderedDict((name, form(array)) for name, array in arrays.items()), protocol)
    for name, array in read_arrays(path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_module_path_of_old_numpy(arrays, write):
    # Protocol 0 names modules in plain text, so the path of numpy 1 can be put there.
    for old in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        path = write(arrays, 0, (b"numpy._core.multiarray", old))
        assert old in path.read_bytes()
        assert len(read_arrays(path)) == len(arrays)


def test_import_maps_layers_in_order_and_clips(arrays, write):
    arrays["layer4_0_1"] = np.tile([[4, 15], [0, 1]], (256, 1))
    graph = graph_like(paper_networks()[NETWORK])
    spec = import_paper(write(arrays), NETWORK, graph)
    check(spec, graph)
    assert spec.layers["relu0"][:2].tolist() == [[2, 3], [1, 0]]
    assert spec.layers["relu13"][:2].tolist() == [[4, 4], [0, 1]]


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "holds no dict from 1 to 1000"),
        ({1: [[1, 1]]}, "holds an int where a layer name"),
        ({"stem": 3}, "'stem' is not an integer array"),
        ({"stem": [[1, 2, 3]]}, "'stem' is not an integer array"),
        ({"stem": [[1, 1 << 70]]}, "'stem' is not an integer array"),
        ({"stem": np.zeros((0, 2), int)}, "'stem' is not an integer array"),
        ({"a\x1b[2J": 3}, r"'a\\x1b\[2J' is not an integer array"),
    ],
)
def test_a_pickle_of_something_else_is_refused(write, content, message):
    with pytest.raises(InputError, match=message):
        read_arrays(write(content))


def test_wrong_network(arrays, write):
    graph = graph_like(paper_networks()[NETWORK])
    with pytest.raises(InputError, match="unknown network 'alexnet'"):
        import_paper(write(arrays), "alexnet", graph)
    with pytest.raises(InputError, match="the model has 17 ReLU layers, the paper's resnet50_in1k has 49"):
        import_paper(write({"stem": arrays["stem"]}), "resnet50_in1k", graph)
    with pytest.raises(InputError, match="layer 'stem' of the paper's resnet18_cifar100 is missing"):
        import_paper(write({name: array for name, array in arrays.items() if name != "stem"}), NETWORK, graph)
    with pytest.raises(InputError, match="'head' is not one of"):
        import_paper(write(arrays | {"head": arrays["stem"]}), NETWORK, graph)
    with pytest.raises(InputError, match="'stem' has 2 channels, the model's 'relu0' has 64"):
        import_paper(write(arrays | {"stem": arrays["stem"][:2]}), NETWORK, graph)


def test_missing_file():
    with pytest.raises(InputError, match=r"cannot read nowhere.pickle"):
        read_arrays("nowhere.pickle")
