"""Modules that return several tensors: the outputs of their graphs, and the structure that comes back."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten

from tests.graph.networks import randomize
from threepc.graph.clear import evaluate
from threepc.graph.importer import import_module
from threepc.graph.ir import Graph
from threepc.graph.outputs import names, structured
from threepc.graph.passes import standard_passes

X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Heads(nn.Module):
    """Two heads on one body, in whatever form."""

    def __init__(self, form):
        super().__init__()
        self.form = form
        self.body, self.fc, self.boxes = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        features = F.relu(self.body(x))
        embedding = F.adaptive_avg_pool2d(features, 1).flatten(1)
        return self.form(self.fc(embedding), embedding, self.boxes(features))


Named = namedtuple("Named", "logits boxes")  # noqa: PYI024 - torch knows both alike

FORMS = {
    "tuple": (lambda logits, embedding, boxes: (logits, embedding, boxes), ["0", "1", "2"]),
    "dict": (lambda logits, embedding, boxes: {"z": logits, "a": embedding}, ["z", "a"]),
    "nest": (lambda logits, embedding, boxes: [boxes, {"b": (logits, logits)}], ["0", "1.b.0", "1.b.1"]),
    "one in a list": (lambda logits, embedding, boxes: [logits], ["0"]),
    "ordered": (lambda logits, embedding, boxes: OrderedDict(out=boxes, aux=logits), ["out", "aux"]),
    "named": (lambda logits, embedding, boxes: Named(logits, boxes), ["0", "1"]),
    "resized": (lambda logits, embedding, boxes: (F.interpolate(boxes, size=(12, 9), mode="bilinear"), boxes), ["0", "1"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_several_outputs_come_back_in_the_same_structure(form):
    make, expected = FORMS[form]
    model = randomize(Heads(make).double())
    graph, weights = standard_passes(*import_module(model, X))
    assert names(graph) == tuple(expected) and [node.name for node in graph.outputs] == [f"output/{name}" for name in expected]
    with torch.no_grad():
        plain, _ = tree_flatten(model(X))
    found = evaluate(graph, weights, X)
    for node, tensor in zip(graph.outputs, plain, strict=True):
        torch.testing.assert_close(found[node.name].reshape(tensor.shape), tensor)
    again = structured(graph, plain)
    assert all(one is other for one, other in zip(tree_flatten(again)[0], plain, strict=True))
    assert type(again) is {"ordered": dict, "named": tuple}.get(form, type(model(X)))
    assert Graph.from_json(graph.to_json()) == graph
