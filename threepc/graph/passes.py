"""Rewritings of a network that keep what it computes. Each is pure: (Graph, Weights) in, a new pair out."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from threepc.graph.activations import clip_bounds, clip_slope, rises
from threepc.graph.ir import Graph, Node, Weights, signed, signs


def sweep(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Drop the nodes that no output depends on."""
    live = {graph.input.name, *(node.name for node in graph.outputs)}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.name in live)
    return Graph(nodes), {name: value for name, value in weights.items() if name in live}


class _Once:
    """Arrays made of others, the same ones of the same: so layers that begin with one array as weight keep one as long as equal things befall them.

    Which layers share weights follows from how the network is written, never from numbers that happen to be equal.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[np.ndarray, tuple[object, ...]]] = {}

    def __call__(self, make: Callable[..., np.ndarray], *arguments: object) -> np.ndarray:
        key = (make, *(id(one) if isinstance(one, np.ndarray) else one for one in arguments))
        if key not in self._made:
            self._made[key] = make(*arguments), arguments  # which keeps them, so that no other array gets one's id
        return self._made[key][0]


def share_weights(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Convolutions whose weights are one array name the first of them: these weights are encoded, masked, sent and kept once."""
    first: dict[tuple[int, int], str] = {}
    nodes = []
    for node in graph.nodes:
        if node.kind == "conv":
            name = first.setdefault((id(weights[node.name]["weight"]), node.attrs["groups"]), node.name)
            attrs = {key: value for key, value in node.attrs.items() if key != "weights"}
            node = replace(node, attrs=attrs | ({} if name == node.name else {"weights": name}))  # noqa: PLW2901 - its other attributes
        nodes.append(node)
    return Graph(tuple(nodes)), dict(weights)


def fold_affine(graph: Graph, weights: Weights, names: frozenset[str]) -> tuple[Graph, Weights]:
    """Fold those named nodes, each a depthwise 1x1 convolution (a batch norm), that alone read a convolution, into that convolution.

    A PReLU's convolution stays as it is, without a bias, so that `fold_hidden_slopes` can fold it whatever padding comes after it.
    """
    readers = graph.consumers()
    weights = dict(weights)
    source: dict[str, str] = {}
    nodes, once = [], _Once()
    for node in graph.nodes:
        inputs = tuple(source.get(name, name) for name in node.inputs)
        single = node.name in names and inputs[0] in weights and len(readers[node.inputs[0]]) == 1
        if single and not _hidden_slopes(graph, graph[inputs[0]]):
            affine, conv = weights.pop(node.name), weights[inputs[0]]
            scale = affine["weight"][:, 0, 0, 0]
            weight = once(_scaled_outputs, conv["weight"], affine["weight"])
            weights[inputs[0]] = {"weight": weight, "bias": conv["bias"] * scale + affine["bias"]}
            source[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return Graph(tuple(nodes)), weights


def _scaled_outputs(weight: np.ndarray, affine: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = weight * affine.reshape(-1, 1, 1, 1)
    return scaled


def fold_forward(graph: Graph, weights: Weights, names: frozenset[str]) -> tuple[Graph, Weights]:
    """Fold those named nodes, each a depthwise 1x1 convolution, that convolutions alone read, into these. Zero padding hides no bias."""
    weights, readers, source, once = dict(weights), graph.consumers(), dict[str, str](), _Once()
    for node in graph.nodes:
        targets = readers[node.name]
        if node.name not in names or node.name not in weights or not targets or any(t.kind != "conv" or t.name in names for t in targets):
            continue
        bias = weights[node.name]["bias"]
        if bias.any() and any(any(target.attrs["padding"]) for target in targets):
            continue
        for target in targets:
            weight, groups = weights[target.name]["weight"], target.attrs["groups"]
            added = (weight.sum((2, 3)) * bias[_read_channels(weight, groups)]).sum(1)
            scaled = once(_scaled_inputs, weight, weights[node.name]["weight"], groups)
            weights[target.name] = {"weight": scaled, "bias": weights[target.name]["bias"] + added}
        del weights[node.name]
        source[node.name] = source.get(node.inputs[0], node.inputs[0])
    nodes = (replace(node, inputs=tuple(source.get(name, name) for name in node.inputs)) for node in graph.nodes if node.name not in source)
    return Graph(tuple(nodes)), weights


def _read_channels(weight: np.ndarray, groups: int) -> np.ndarray:
    """The channel of the map (O, C / groups) that each weight (O, C / groups, h, w) meets: of output o in group g, input j is g * per + j."""
    first = np.arange(len(weight)) // (len(weight) // groups) * weight.shape[1]
    channels: np.ndarray = first[:, None] + np.arange(weight.shape[1])
    return channels


def _scaled_inputs(weight: np.ndarray, affine: np.ndarray, groups: int) -> np.ndarray:
    scaled: np.ndarray = weight * affine[:, 0, 0, 0][_read_channels(weight, groups)][:, :, None, None]
    return scaled


def standard_passes(graph: Graph, weights: Weights, blocks: frozenset[str] = frozenset()) -> tuple[Graph, Weights]:
    """All passes below, in order. `blocks` names the relu and clip nodes that a relu spec computes in patches: they stay in place."""
    graph, weights = fold_hidden_slopes(*average_before_slopes(*merge_additions(*merge_gates(*sweep(graph, weights)))))
    return share_weights(*fold_average(*pool_before_relu(*short_slopes(*fold_slopes(graph, weights)), blocks)))


GATES = {("sigmoid",): "silu", ("tanh", "softplus"): "mish"}
"""Smooth functions by whose chain a value is multiplied, the outermost first -> the smooth function that this is of the value."""


def merge_gates(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """The product of x and sigmoid(x) becomes silu(x), that of x and tanh(softplus(x)) mish(x): one lookup instead of lookups and a product.

    Networks write them out, and ONNX files before opset 18 have no other way. Only where nothing else reads the factor.
    """
    readers, nodes = graph.consumers(), {node.name: node for node in graph.nodes}
    for product in graph.nodes:
        if product.kind == "multiply" and not product.attrs:
            for x, factor in (product.inputs, product.inputs[::-1]):
                chain = _smooth_chain(nodes, readers, x, factor)
                function = GATES.get(tuple(str(node.attrs["function"]) for node in chain))
                if function is not None:
                    attrs = {"function": function, "parameter": 1.0}
                    nodes[product.name] = replace(product, kind="smooth", inputs=(x,), attrs=attrs)
                    for node in chain:
                        del nodes[node.name]
                    break
    return Graph(tuple(nodes.values())), dict(weights)


def _smooth_chain(nodes: Mapping[str, Node], readers: Mapping[str, list[Node]], x: str, factor: str) -> list[Node]:
    """The smooth nodes that lead from x to the factor, the last one first; empty where others do too, or read one of them."""
    chain: list[Node] = []
    while factor != x:
        node = nodes.get(factor)
        if node is None or node.kind != "smooth" or node.attrs["parameter"] != 1 or len(readers[factor]) != 1:
            return []
        chain.append(node)
        factor = node.inputs[0]
    return chain


def fold_slopes(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """A convolution that a clip with a rising slope (hardsigmoid) alone reads takes the slope into its weights: a gate sends less without one."""
    readers, weights, once = graph.consumers(), dict(weights), _Once()
    attrs: dict[str, dict[str, Any]] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        if node.kind != "clip" or "to" not in node.attrs or source not in weights or len(readers[source]) > 1:
            continue
        (low, _), (first, slope), (_, last) = clip_bounds(node.attrs), clip_slope(node.attrs), node.attrs["to"]
        if slope > 0:
            conv = weights[source]
            weights[source] = {"weight": once(np.multiply, conv["weight"], slope), "bias": (conv["bias"] - low) * slope + first}
            attrs[node.name] = {"max": last} | ({"min": first} if first else {})
    return Graph(tuple(replace(node, attrs=attrs.get(node.name, node.attrs)) for node in graph.nodes)), weights


MOST_SLOPE_BITS = 8


def short_slopes(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """A LeakyReLU that alone reads a convolution gets slopes of few bits in an exact ratio, and the convolution the factor that is missing.

    Slopes of 0.01 and 1 become 1/128 and 100/128, for weights times 1.28: a gate sends a few bits for them instead of 16, and rounds nothing.
    """
    readers, weights, once = graph.consumers(), dict(weights), _Once()
    attrs: dict[str, dict[str, Any]] = {}
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else ""
        if node.kind != "bend" or source not in weights or len(readers[source]) > 1 or node.attrs["slopes"][1] != 1 or node.attrs.get("at"):
            continue
        found = _short_ratio(node.attrs["slopes"][0])
        if found and not _hidden_slopes(graph, graph[source]):
            below, above = found
            weights[source] = {key: once(np.divide, array, above) for key, array in weights[source].items()}
            attrs[node.name] = {"slopes": [below, above]}
    return Graph(tuple(replace(node, attrs=attrs.get(node.name, node.attrs)) for node in graph.nodes)), weights


def _short_ratio(slope: float) -> tuple[float, float] | None:
    """Multiples (below, above) of 2^-bits, of the fewest bits, whose ratio is `slope`, with above from 1/2 to 1; None where that needs too many."""
    for bits in range(MOST_SLOPE_BITS + 1):
        for above in range(2**bits, 2**bits // 2, -1):
            below = round(slope * above)
            if math.isclose(below, slope * above, rel_tol=1e-9):
                return below / 2**bits, above / 2**bits
    return None


def _hidden_slopes(graph: Graph, node: Node) -> bool:
    """Whether a node is the convolution of a PReLU: it alone has a rectify node's two channels as a group."""
    a = node.attrs
    return node.kind == "conv" and graph[node.inputs[0]].kind == "rectify" and a["kernel"] == [1, 1] and a["groups"] == node.shape[0]


def average_before_slopes(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """average(prelu(x)) becomes prelu's slopes times the averages of x and relu(x), where the average alone reads the PReLU.

    The same numbers, and the slopes' product is truncated once for each average instead of once for each value.
    """
    readers, nodes = graph.consumers(), {node.name: node for node in graph.nodes}
    for pool in graph.nodes:
        mix = nodes[pool.inputs[0]] if pool.kind == "avgpool" else None
        if mix is None or not _hidden_slopes(graph, mix) or weights[mix.name]["bias"].any() or len(readers[mix.name]) != 1:
            continue
        nodes[mix.name] = replace(pool, name=mix.name, inputs=mix.inputs, shape=(2 * pool.shape[0], *pool.shape[1:]))
        nodes[pool.name] = replace(mix, name=pool.name, inputs=(mix.name,), shape=pool.shape)
        weights = {pool.name if name == mix.name else name: part for name, part in weights.items()}
    return Graph(tuple(nodes.values())), dict(weights)


def fold_hidden_slopes(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Every convolution that reads a PReLU takes its slopes into weights, reading what that makes of x and relu(x) instead.

    So no truncation comes between the two. A PReLU is a convolution of a rectify node, without a bias; it goes where nothing else reads it.
    """
    weights = dict(weights)
    mixes = {n.name: n.inputs[0] for n in graph.nodes if _hidden_slopes(graph, n) and not weights[n.name]["bias"].any()}
    nodes, once = [], _Once()
    for node in graph.nodes:
        if node.kind == "conv" and node.inputs[0] in mixes:
            own, slopes = weights[node.name], weights[node.inputs[0]]["weight"]
            weights[node.name] = own | {"weight": once(_with_slopes, own["weight"], slopes, node.attrs["groups"])}
            nodes.append(replace(node, inputs=(mixes[node.inputs[0]],)))
        else:
            nodes.append(node)
    return sweep(Graph(tuple(nodes)), weights)


def _with_slopes(weight: np.ndarray, slopes: np.ndarray, groups: int) -> np.ndarray:
    factors = slopes.reshape(groups, -1).repeat(len(weight) // groups, axis=0)
    paired: np.ndarray = weight.repeat(2, axis=1) * factors[:, :, None, None]
    return paired


def merge_additions(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """add(add(a, b), c) becomes add(a, b, c), with the terms' signs, where the inner sum has no other reader."""
    readers = graph.consumers()
    terms = {
        node.name: tuple(zip(node.inputs, signs(node), strict=True))
        for node in graph.nodes
        if node.kind == "add" and len(readers[node.name]) == 1 and readers[node.name][0].kind == "add"
    }

    def flat(name: str, sign: int) -> list[tuple[str, int]]:
        return [part for term, own in terms[name] for part in flat(term, sign * own)] if name in terms else [(name, sign)]

    nodes = []
    for node in graph.nodes:
        if node.kind == "add" and node.name not in terms:
            parts = [part for term, sign in zip(node.inputs, signs(node), strict=True) for part in flat(term, sign)]
            nodes.append(replace(node, inputs=tuple(name for name, _ in parts), attrs=signed(sign for _, sign in parts)))
        elif node.name not in terms:
            nodes.append(node)
    return Graph(tuple(nodes)), dict(weights)


def pool_before_relu(graph: Graph, weights: Weights, blocks: frozenset[str] = frozenset()) -> tuple[Graph, Weights]:
    """maxpool(relu(x)) becomes relu(maxpool(x)): the same numbers with fewer comparisons. So with every activation that never falls; it keeps its name.

    Only where the pooling is all that reads the relu, and the relu is not among `blocks`: a decision shared by a patch is not
    monotone in each pixel, so it does not commute with the maximum.
    """
    nodes = list(graph.nodes)
    moved = True
    while moved:
        moved = False
        readers = Graph(tuple(nodes)).consumers()
        for relu in nodes:
            if rises(relu.kind, relu.attrs) and relu.name not in blocks and [r.kind for r in readers[relu.name]] == ["maxpool"]:
                nodes = _swap(nodes, relu, readers[relu.name][0])
                moved = True
                break
    return Graph(tuple(nodes)), dict(weights)


def _swap(nodes: list[Node], relu: Node, pool: Node) -> list[Node]:
    result = []
    for node in nodes:
        if node is pool:
            result += [replace(pool, inputs=relu.inputs), replace(relu, inputs=(pool.name,), shape=pool.shape)]
        elif node is not relu:
            result.append(replace(node, inputs=tuple(relu.name if name == pool.name else name for name in node.inputs)))
    return result


def fold_average(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Where only convolutions read an average pooling (directly, or flattened or broadcast), they take part of its division into their weights.

    What stays is the next power of two, by which fixed-point values are divided without arithmetic: the sum is read as one with more
    fractional bits. The weights keep their size to a factor of two, and with it their precision.
    """
    readers, weights, once = graph.consumers(), dict(weights), _Once()

    def final_readers(name: str) -> list[Node]:
        return [last for r in readers[name] for last in (final_readers(r.name) if r.kind in ("reshape", "resize", "gather") else [r])]

    nodes = list(graph.nodes)
    for index, node in enumerate(nodes):
        targets = final_readers(node.name) if node.kind == "avgpool" and node.attrs["divisor"] != 1 else []
        if targets and all(target.kind == "conv" for target in targets):
            power = 2.0 ** math.ceil(math.log2(node.attrs["divisor"]))
            for target in targets:
                scaled = once(np.multiply, weights[target.name]["weight"], power / node.attrs["divisor"])
                weights[target.name] = weights[target.name] | {"weight": scaled}
            nodes[index] = replace(node, attrs=node.attrs | {"divisor": power})
    return Graph(tuple(nodes)), weights
