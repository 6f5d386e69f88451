"""The importer of the paper's pickles: reads every way numpy has pickled integer arrays, and runs nothing."""

import collections
import os
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


class Executes:
    """Pickles as a call; a reader that runs it creates a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch ran"),
        (eval, "open('ran', 'w')"),
        (exec, "open('ran', 'w')"),
        (open, "ran", "w"),
        (np.save, "ran", 1),
        (Path.touch, Path("ran")),
    ],
)
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, arrays, write, protocol, call):
    monkeypatch.chdir(tmp_path)
    path = write(arrays | {"stem": Executes(*call)}, protocol)
    with pytest.raises(InputError, match="refused, the pickle holds the name"):
        read_arrays(path)
    assert [file.name for file in tmp_path.iterdir()] == ["spec.pickle"]


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "not a readable pickle"),
        (b"garbage", "not a readable pickle"),
        (pickle.dumps([1, 2]), "holds no dict"),
        (pickle.dumps({}), "holds no dict"),
        (pickle.dumps({1: [[1, 1]]}), "a int where a layer name"),
        (pickle.dumps({"stem": 3}), "'stem' is not an integer array"),
        (pickle.dumps({"stem": [[1, 2, 3]]}), "'stem' is not an integer array"),
        (pickle.dumps({"stem": [[1, 1 << 70]]}), "'stem' is not an integer array"),
        (pickle.dumps({"stem": np.ones((2, 2))}), "'f8', not of integers"),
        (pickle.dumps({"stem": np.array([[os.system, 1]])}), "refused"),
        (pickle.dumps({"stem": np.zeros(2, dtype=[("a", "i4")])}), "not of integers"),
        (pickle.dumps({"stem": np.ones((2, 2), int)})[:-30] + b".", "not a readable pickle"),
        # A memo index of 2^31: the unpickler would reserve that many entries.
        (b"\x80\x04}r\xff\xff\xff\x7f.", "memo index out of range"),
        # BUILD on an admitted function, and an array whose bytes do not match its shape.
        (b"\x80\x02c_codecs\nencode\n}b.", "an assignment to a function"),
        (
            b"\x80\x02}U\x04stemcnumpy.core.numeric\n_frombuffer\n(U\x02abcnumpy\ndtype\nU\x02i8\x85RK\x09K\x02\x86U\x01CtRs.",
            "do not match its shape",
        ),
    ],
)
def test_other_pickles_are_refused(write, raw, message):
    with pytest.raises(InputError, match=message):
        read_arrays(write(raw))


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
    with pytest.raises(InputError, match="cannot read nowhere.pickle"):
        read_arrays("nowhere.pickle")
