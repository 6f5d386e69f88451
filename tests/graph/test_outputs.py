"""What a network of several outputs returns: paths make one structure or are refused, and users name what is revealed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.graph.outputs import check_path, joined, name_of, names, nested, reveal_text, revealed, split, structured

keys = st.text("abcXYZ019_-.", min_size=1, max_size=5).filter(lambda key: key[0] not in "-.")
structures = st.recursive(
    st.integers(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def flat(structure):
    """(path, leaf) of a structure."""
    if isinstance(structure, int):
        return [([], structure)]
    items = structure.items() if isinstance(structure, dict) else enumerate(structure)
    kind = type(structure).__name__
    return [([[kind, key], *path], leaf) for key, inner in items for path, leaf in flat(inner)]


def graph_of(*paths, shapes=((4, 1, 1), (3, 2, 2))):
    nodes = [Node("input", "input", (), (3, 4, 4))]
    for index, shape in enumerate(shapes[: len(paths)]):
        attrs = {"kernel": [3, 3] if shape[1] == 2 else [4, 4], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}
        nodes.append(Node(f"conv{index}", "conv", ("input",), shape, attrs))
    outputs = [Node(f"output{i}", "output", (f"conv{i}",), shapes[i], {"path": p} if p else {}) for i, p in enumerate(paths)]
    return Graph((*nodes, *outputs))


HEADS = graph_of([["dict", "logits"]], [["dict", "boxes"], ["list", 0]])


@given(structures)
def test_paths_and_leaves_are_the_structure(structure):
    paths, leaves = zip(*flat(structure), strict=True)
    for path in paths:
        if 1 <= len(path) <= 8:
            check_path(path)
    again = nested(paths, leaves)
    assert again == structure and flat(again) == flat(structure)


@pytest.mark.parametrize(
    "paths",
    [
        [[["tuple", 0]], [["list", 1]]],
        [[["tuple", 0]], [["tuple", 0]]],
        [[["tuple", 0]], [["tuple", 2]]],
        [[["tuple", 1]], [["tuple", 0]]],
        [[["tuple", 1]]],
        [[["dict", "a"]], [["dict", "b"]], [["dict", "a"], ["list", 0]]],
        [[["dict", "a"]], [["dict", "a"], ["list", 0]]],
        [[["dict", "a"], ["list", 0]], [["dict", "a"]]],
        [[["dict", "a"], ["list", 0]], [["dict", "a"], ["tuple", 1]]],
    ],
)
def test_paths_that_are_no_structure_are_refused(paths):
    with pytest.raises(InputError, match=r"^outputs: "):
        nested(paths, paths)
    with pytest.raises(InputError, match=r"^graph: outputs: "):
        graph_of(*paths, shapes=[(4, 1, 1)] * 3)


@pytest.mark.parametrize(
    "path",
    [
        [], {}, "a", [["tuple", 0]] * 9, ["tuple", 0], [["tuple"]], [["set", 0]], [[["tuple"], 0]], [["tuple", "0"]], [["tuple", -1]],
        [["list", True]], [["dict", 0]], [["dict", ""]], [["dict", "a/b"]], [["dict", ".."]], [["dict", "a\n"]], [["dict", "a" * 65]],
        [["dict", "a=b"]], [["dict", "a,b"]],
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InputError, match=r"^must (be|have) "):
        check_path(path)


def test_names_and_structure_of_a_graph():
    assert names(HEADS) == ("logits", "boxes.0") and structured(HEADS, [1, 2]) == {"logits": 1, "boxes": [2]}
    single = graph_of([])
    assert single.returns_tensor and names(single) == ("output",) and structured(single, [7]) == 7
    assert not graph_of([["tuple", 0]]).returns_tensor and structured(graph_of([["tuple", 0]]), [7]) == (7,)
    assert name_of([["tuple", 1], ["dict", "a"]]) == "1.a"


@pytest.mark.parametrize(
    "reveal, expected",
    [
        ("logits", "logits,logits"), ("label", "label,label"), ("label,logits", "label,logits"), ("boxes.0=label", "logits,label"),
        ("logits=label", "label,logits"), ("boxes.0=label,logits=label", "label,label"), ("logits=logits", "logits,logits"),
    ],
)  # fmt: skip
def test_what_is_revealed_of_each(reveal, expected):
    each = revealed(HEADS, reveal)
    assert ",".join(each) == expected and revealed(HEADS, reveal_text(each)) == each
    assert reveal_text(("label", "label")) == "label" and reveal_text(("label", "logits")) == "label,logits"


@pytest.mark.parametrize(
    "reveal",
    ["", "all", "label,", "label,label,label", "boxes=label", "logits=label,logits=logits", "logits=label,label", "logits=", None, 3],
)
def test_what_nobody_can_reveal(reveal):
    with pytest.raises(InputError, match=r"^reveal: must be logits or label, one for each of logits, boxes.0, or NAME=WHAT for some, not "):
        revealed(HEADS, reveal)
    with pytest.raises(InputError, match=r"^reveal: must be logits or label, not "):
        revealed(graph_of([]), reveal)


def test_results_travel_as_one_array():
    logits, boxes = np.arange(8.0).reshape(2, 4, 1, 1), np.arange(24.0).reshape(2, 3, 2, 2)
    together = joined(HEADS, [logits, boxes])
    assert together.shape == (2, 16)
    for found, expected in zip(split(HEADS, ("logits", "logits"), together), (logits, boxes), strict=True):
        np.testing.assert_array_equal(found, expected)
    labels = boxes[:, :1]
    found = split(HEADS, ("logits", "label"), joined(HEADS, [logits, labels]))
    np.testing.assert_array_equal(found[1], labels)
    assert joined(graph_of([]), [logits]) is logits
