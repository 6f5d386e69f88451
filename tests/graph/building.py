"""Small graphs with random weights, written down a node a line."""

from __future__ import annotations

import numpy as np

from threepc.graph.ir import Graph, Node, Weights, weight_shape
from threepc.graph.kinds import infer_shape


class Builder:
    """Nodes in order; every method adds one and returns its name. Weights keep the size of activations, roughly."""

    def __init__(self, *shape: int, seed: int = 0):
        self.nodes = [Node("input", "input", (), shape)]
        self.weights: Weights = {}
        self._rng = np.random.default_rng(seed)

    def _shape(self, name: str):
        return next(node.shape for node in self.nodes if node.name == name)

    def node(self, kind: str, *inputs: str, channels: int | None = None, **attrs) -> str:
        """A node named after its kind and number."""
        shape = infer_shape(kind, [self._shape(i) for i in inputs], attrs, channels)
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(Node(name, kind, inputs, shape, attrs))
        return name

    def conv(self, x: str, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, gain: float = 1.0) -> str:
        """A convolution whose padding keeps the size, but for the stride."""
        geometry = {"kernel": [kernel] * 2, "stride": [stride] * 2, "padding": [kernel // 2] * 4, "dilation": [1, 1]}
        name = self.node("conv", x, channels=channels, **geometry, groups=groups)
        graph_shape = channels, self._shape(x)[0] // groups, kernel, kernel
        scale = gain * np.sqrt(2 / np.prod(graph_shape[1:]))
        self.weights[name] = {"weight": self._rng.normal(size=graph_shape) * scale, "bias": self._rng.normal(size=channels) * 0.3}
        return name

    def relu(self, x: str) -> str:
        """ReLU."""
        return self.node("relu", x)

    def clip(self, x: str, maximum: float = 6.0) -> str:
        """min(max(x, 0), maximum)."""
        return self.node("clip", x, max=maximum)

    def maxpool(self, x: str, kernel: int = 2, stride: int = 2, padding: int = 0) -> str:
        """Max pooling."""
        return self.node("maxpool", x, kernel=[kernel] * 2, stride=[stride] * 2, padding=[padding] * 4, dilation=[1, 1])

    def avgpool(self, x: str, kernel: int | None = None, stride: int = 1, padding: int = 0) -> str:
        """Average pooling, by default global; zeros of the padding count."""
        size = list(self._shape(x)[1:]) if kernel is None else [kernel] * 2
        return self.node("avgpool", x, kernel=size, stride=[stride] * 2, padding=[padding] * 4, divisor=float(np.prod(size)))

    def add(self, *inputs: str) -> str:
        """A sum."""
        return self.node("add", *inputs)

    def multiply(self, x: str, y: str) -> str:
        """A product of two hidden values."""
        return self.node("multiply", x, y)

    def hardswish(self, x: str) -> str:
        """x * clamp(x + b, 0, 2 b) with b = 3 / sqrt(6)."""
        bound = 3 / 6**0.5
        return self.multiply(x, self.node("clip", x, min=-bound, max=bound, to=[0.0, 2 * bound]))

    def concat(self, *inputs: str) -> str:
        """A concatenation of channels."""
        return self.node("concat", *inputs)

    def flat(self, x: str) -> str:
        """(C, H, W) to (C H W, 1, 1)."""
        return self.node("reshape", x)

    def outputs(self, **inputs: str) -> tuple[Graph, Weights]:
        """The finished graph of a network that returns a dict, and its weights."""
        for name, x in inputs.items():
            self.nodes.append(Node(f"output/{name}", "output", (x,), self._shape(x), {"path": [["dict", name]]}))
        return Graph(tuple(self.nodes)), self.weights

    def output(self, x: str) -> tuple[Graph, Weights]:
        """The end: the graph and its weights."""
        self.node("output", x)
        graph = Graph(tuple(self.nodes))
        assert all(self.weights[n.name]["weight"].shape == weight_shape(graph, n) for n in graph.nodes if n.kind == "conv")
        return graph, self.weights


def residual():
    """ResNet-like: pooled stem, a residual block with a projection, one without, an average, a classifier."""
    net = Builder(3, 21, 19)
    x = net.maxpool(net.relu(net.conv("input", 8, kernel=3, stride=2)), 3, 2, 1)
    for channels, stride in ((12, 2), (12, 1)):
        shortcut = net.conv(x, channels, 1, stride) if stride > 1 else x
        y = net.conv(net.relu(net.conv(x, channels, 3, stride)), channels)
        x = net.relu(net.add(y, shortcut))
    return net.output(net.conv(net.flat(net.avgpool(x)), 10, 1))


def mobile():
    """MobileNetV2-like: clips, depthwise convolutions, linear bottlenecks whose sum is not followed by a ReLU."""
    net = Builder(3, 17, 15, seed=1)
    x = net.clip(net.conv("input", 8, stride=2))
    for i in range(2):
        y = net.clip(net.conv(x, 16, 1))
        y = net.conv(net.clip(net.conv(y, 16, 3, groups=16)), 8, 1)
        x = net.add(x, y) if i else y
    return net.output(net.conv(net.avgpool(net.clip(net.conv(x, 24, 1))), 7, 1))


def gated():
    """MobileNetV3-like: hardswish, squeeze-and-excite gates, a map for all channels, a square, and a product of matrices."""
    net = Builder(3, 15, 13, seed=3)
    x = net.hardswish(net.conv("input", 6, stride=2))
    gate = net.clip(net.conv(net.relu(net.conv(net.avgpool(x), 4, 1)), 6, 1), 1.0)
    x = net.hardswish(net.conv(net.multiply(net.relu(net.conv(x, 6)), gate), 5, gain=0.4))
    x = net.multiply(net.clip(net.conv(x, 1, 1), 1.0), net.conv(x, 7, 1, gain=0.5))
    x = net.node("matmul", x, net.maxpool(x, 2, 1))
    x = net.conv(x, 6, 1, gain=0.5)
    return net.output(net.conv(net.avgpool(net.multiply(x, x)), 5, 1))


def bent():
    """Leaky and clipped activations of every kind, with a residual sum, a difference and a pooling that is not moved."""
    net = Builder(3, 13, 11, seed=3)
    x = net.node("bend", net.conv("input", 8, stride=2), slopes=[0.1, 1.0])
    y = net.node("clip", net.conv(x, 8), min=-1.0, max=2.0)
    x = net.node("bend", net.node("add", x, y, signs=[1, -1]), slopes=[-0.3, 0.7], at=0.25)
    gate = net.node("clip", net.conv(x, 8), min=-3.0, max=3.0, to=[0.0, 1.0])
    x = net.maxpool(net.node("bend", net.add(gate, x), slopes=[-1.0, 1.0]), 3, 2, 1)
    return net.output(net.conv(net.avgpool(net.conv(x, 9, 1)), 6, 1))


def branching():
    """Inception-like: branches of four kinds, raw and reduced, meet in a concatenation."""
    net = Builder(4, 13, 13, seed=2)
    x = net.relu(net.conv("input", 6))
    branches = net.relu(net.conv(x, 5, 1)), net.conv(x, 4, 3), net.conv(net.avgpool(x, 3, 1, 1), 3, 1), net.maxpool(x, 3, 1, 1)
    y = net.relu(net.concat(*branches))
    return net.output(net.conv(net.avgpool(net.relu(net.conv(y, 9, 3, 2))), 6, 1))


def twins(shared: bool = True):
    """A convolution and, with its weights and a bias and a stride of its own, a second one of what came of the first; or both with weights of theirs."""
    net = Builder(4, 9, 9, seed=5)
    first = net.conv("input", 4)
    second = net.conv(net.relu(first), 4, stride=2)
    net.weights[second]["weight"] = net.weights[first]["weight"]
    if shared:
        net.nodes[-1].attrs["weights"] = first
    return net.output(net.conv(net.avgpool(net.relu(second)), 5, 1))


def heads() -> tuple[Graph, Weights]:
    """Three outputs: logits, the ReLU's map that they come from, and a map of its own."""
    net = Builder(3, 8, 8)
    features = net.relu(net.conv("input", 6, stride=2))
    logits = net.conv(net.avgpool(features), 5, 1)
    return net.outputs(logits=logits, features=features, boxes=net.conv(net.maxpool(features), 4, 1))
