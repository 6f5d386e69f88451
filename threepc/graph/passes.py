"""Rewritings of a network that keep what it computes. Each is pure: (Graph, Weights) in, a new pair out."""

import math
from dataclasses import replace

from threepc.graph.ir import Graph, Node, Weights, signed, signs


def sweep(graph: Graph, weights: Weights) -> tuple[Graph, Weights]:
    """Drop the nodes that the output does not depend on."""
    live = {graph.output.name, graph.input.name}
    for node in reversed(graph.nodes):
        if node.name in live:
            live.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.name in live)
    return Graph(nodes), {name: value for name, value in weights.items() if name in live}


def fold_affine(graph: Graph, weights: Weights, names: frozenset[str]) -> tuple[Graph, Weights]:
    """Fold those named nodes, each a depthwise 1x1 convolution (a batch norm), that alone read a convolution, into that convolution."""
    readers = graph.consumers()
    weights = dict(weights)
    source: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(source.get(name, name) for name in node.inputs)
        if node.name in names and inputs[0] in weights and len(readers[node.inputs[0]]) == 1:
            affine, conv = weights.pop(node.name), weights[inputs[0]]
            scale = affine["weight"][:, 0, 0, 0]
            weights[inputs[0]] = {"weight": conv["weight"] * scale[:, None, None, None], "bias": conv["bias"] * scale + affine["bias"]}
            source[node.name] = inputs[0]
        else:
            nodes.append(replace(node, inputs=inputs))
    return Graph(tuple(nodes)), weights


def standard_passes(graph: Graph, weights: Weights, blocks: frozenset[str] = frozenset()) -> tuple[Graph, Weights]:
    """All passes below, in order. `blocks` names the relu and clip nodes that a relu spec computes in patches: they stay in place."""
    return fold_average(*pool_before_relu(*merge_additions(*sweep(graph, weights)), blocks))


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
    """maxpool(relu(x)) becomes relu(maxpool(x)): the same numbers with fewer comparisons. The relu (or clip) keeps its name.

    Only where the pooling is all that reads the relu, and the relu is not among `blocks`: a decision shared by a patch is not
    monotone in each pixel, so it does not commute with the maximum.
    """
    nodes = list(graph.nodes)
    moved = True
    while moved:
        moved = False
        readers = Graph(tuple(nodes)).consumers()
        for relu in nodes:
            if relu.kind in ("relu", "clip") and relu.name not in blocks and [r.kind for r in readers[relu.name]] == ["maxpool"]:
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
    readers = graph.consumers()
    weights = dict(weights)

    def final_readers(name: str) -> list[Node]:
        return [last for r in readers[name] for last in (final_readers(r.name) if r.kind in ("reshape", "resize", "gather") else [r])]

    nodes = list(graph.nodes)
    for index, node in enumerate(nodes):
        targets = final_readers(node.name) if node.kind == "avgpool" and node.attrs["divisor"] != 1 else []
        if targets and all(target.kind == "conv" for target in targets):
            power = 2.0 ** math.ceil(math.log2(node.attrs["divisor"]))
            for target in targets:
                weights[target.name] = weights[target.name] | {"weight": weights[target.name]["weight"] * (power / node.attrs["divisor"])}
            nodes[index] = replace(node, attrs=node.attrs | {"divisor": power})
    return Graph(tuple(nodes)), weights
