"""Evaluating a Graph in torch from a changed ReLU on, and only where the change reaches.

The change touches one channel of one ReLU. Its trace through the network is a range of channels of each later node: one
channel through depthwise convolutions, pooling and further ReLUs, all channels behind a dense convolution. Ranges are known
before anything is computed, and the first convolution behind the change costs one input channel instead of all:
conv(x + delta) = conv(x) + conv(delta), where conv(x) is shared by all changes.

Activations are held channels-last, the layout in which CPU convolutions run at full speed for small maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch.nn import functional

from threepc.graph.clear import operate, padded
from threepc.graph.ir import Graph, Node, Weights, signs

Range = tuple[int, int]


def macs(graph: Graph, node: Node) -> int:
    """Multiplications of one image in a conv node, else 0."""
    if node.kind != "conv":
        return 0
    height, width = node.attrs["kernel"]
    return math.prod(node.shape) * int(height) * int(width) * graph[node.inputs[0]].shape[0] // int(node.attrs["groups"])


class TorchGraph:
    """A Graph with its weights on a device, float32."""

    def __init__(self, graph: Graph, weights: Weights, device: str = "cpu") -> None:
        self.graph, self.device = graph, torch.device(device)
        self.weights = {
            name: (
                _channels_last(torch.from_numpy(value["weight"]).to(self.device, torch.float32)),
                torch.from_numpy(value["bias"]).to(self.device, torch.float32),
            )
            for name, value in weights.items()
        }

    def operate(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        """The node's output for these inputs (N, C, H, W)."""
        return operate(node, inputs, *self.weights.get(node.name, (None, None)))

    def forward(self, images: torch.Tensor, keep: set[str]) -> dict[str, torch.Tensor]:
        """The nodes named in `keep` for images (N, C, H, W); others are freed as soon as nothing reads them."""
        waiting = {name: len(readers) for name, readers in self.graph.consumers().items()}
        values: dict[str, torch.Tensor] = {}
        for node in self.graph.nodes:
            values[node.name] = self.operate(node, [values[name] for name in node.inputs]) if node.inputs else _channels_last(images)
            for name in node.inputs:
                waiting[name] -= 1
                if not waiting[name] and name not in keep:
                    del values[name]
        return {name: values[name] for name in keep}


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def reach(graph: Graph, relu: str, channel: int) -> dict[str, Range]:
    """The range [start, stop) of channels of each node that a change of one channel of `relu` can reach; others are absent."""
    ranges = {relu: (channel, channel + 1)}
    for node in graph.nodes:
        changed = [name for name in node.inputs if name in ranges]
        if changed and node.name != relu:
            ranges[node.name] = _reach_of(graph, node, ranges)
    return ranges


def _reach_of(graph: Graph, node: Node, ranges: dict[str, Range]) -> Range:
    found = [ranges[name] for name in node.inputs if name in ranges]
    if node.kind == "conv":
        groups, channels = node.attrs["groups"], graph[node.inputs[0]].shape[0]
        per_group, outputs = channels // groups, node.shape[0] // groups
        return found[0][0] // per_group * outputs, (-(-found[0][1] // per_group)) * outputs
    if node.kind == "gather":
        return 0, node.shape[0]
    if node.kind == "rectify":
        return 2 * found[0][0], 2 * found[0][1]
    if node.kind == "reshape":
        pixels = math.prod(graph[node.inputs[0]].shape[1:])
        return found[0][0] * pixels, found[0][1] * pixels
    if node.kind == "concat":
        found, offset = [], 0
        for name in node.inputs:
            if name in ranges:
                found.append((offset + ranges[name][0], offset + ranges[name][1]))
            offset += graph[name].shape[0]
    if node.kind == "multiply" and any(graph[name].shape[0] < node.shape[0] for name in node.inputs if name in ranges):
        return 0, node.shape[0]
    return min(start for start, _ in found), max(stop for _, stop in found)


def _factors(graph: Graph, node: Node, output: Range) -> list[Range]:
    """The channels of both factors that the channels `output` of their product need."""
    return [output if graph[name].shape[0] == node.shape[0] else (0, 1) for name in node.inputs]


@dataclass(frozen=True)
class _Step:
    """A node behind the change: which channels of its inputs and of itself differ."""

    node: Node
    inputs: tuple[Range | None, ...]
    output: Range


class Suffix:
    """The network behind one ReLU, for a fixed set of images.

    `before` is the ReLU's input and `plain` its plain output, (S, C, H, W); `output` the network's output (S, O, H', W').
    Building runs the network once; `evaluate` then runs only what a change reaches.
    """

    def __init__(self, network: TorchGraph, relu: str, images: torch.Tensor) -> None:
        self.network, self.relu = network, network.graph[relu]
        graph = network.graph
        keep = {self.relu.inputs[0], relu, graph.output.name} | _frontier(graph, relu)
        values = network.forward(images, keep)
        self.before, self.plain, self.output = values[self.relu.inputs[0]], values[relu], values[graph.output.name]
        # Rows are gathered from images whose pixels lie channel by channel: a gather then is a copy of whole images.
        ranges = reach(graph, relu, 0)
        self.largest = max(math.prod(node.shape) for node in graph.nodes if node.name in ranges)
        self._base = {name: value.permute(0, 2, 3, 1).contiguous() for name, value in values.items()}

    def _rows(self, name: str, samples: torch.Tensor, channels: Range) -> torch.Tensor:
        base = self._base[name]
        whole = channels == (0, base.shape[3])
        return (base if whole else base[..., slice(*channels)]).index_select(0, samples).permute(0, 3, 1, 2)

    def evaluate(self, channel: int, values: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """The network's output where the ReLU's `channel` is replaced.

        `values` (R, 1, H, W): that channel's new output for each row; `samples` (R,) int64: the image each row belongs to.
        Returns (R, O, H', W').
        """
        graph = self.network.graph
        ranges = reach(graph, self.relu.name, channel)
        if graph.output.name not in ranges:
            return self.output.index_select(0, samples)
        waiting = {name: sum(reader.name in ranges for reader in readers) for name, readers in graph.consumers().items()}
        changed = {self.relu.name: values}
        for node in graph.nodes:
            if node.name not in ranges or node.name == self.relu.name:
                continue
            step = _Step(node, tuple(ranges.get(name) for name in node.inputs), ranges[node.name])
            changed[node.name] = self._advance(step, [changed.get(name) for name in node.inputs], samples)
            for name in set(node.inputs) & changed.keys():
                waiting[name] -= node.inputs.count(name)
                if not waiting[name]:
                    del changed[name]
        return self._completed(graph.output.name, changed[graph.output.name], ranges[graph.output.name], samples)

    def _completed(self, name: str, values: torch.Tensor, channels: Range, samples: torch.Tensor) -> torch.Tensor:
        total = self.network.graph[name].shape[0]
        if channels == (0, total):
            return values
        whole = self._rows(name, samples, (0, total)).clone()
        whole[:, slice(*channels)] = values
        return whole

    def _advance(self, step: _Step, inputs: list[torch.Tensor | None], samples: torch.Tensor) -> torch.Tensor:
        node = step.node
        if node.kind == "add":
            return self._add(step, inputs, samples)
        if node.kind == "concat":
            return self._concat(step, inputs, samples)
        if node.kind in ("multiply", "matmul"):
            return self._multiply(step, inputs, samples)
        changed = [values for values in inputs if values is not None]
        if node.kind == "gather":
            changed = [self._completed(node.inputs[0], changed[0], cast("Range", step.inputs[0]), samples)]
        return self._convolve(step, changed[0], samples) if node.kind == "conv" else self.network.operate(node, changed)

    def _convolve(self, step: _Step, values: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        node, source = step.node, step.node.inputs[0]
        start, stop = cast("Range", step.inputs[0])
        per_group = self.network.graph[source].shape[0] // node.attrs["groups"]
        if (start, stop) == (0, self.network.graph[source].shape[0]):
            return self.network.operate(node, [values])
        if start // per_group != (stop - 1) // per_group:
            whole = self.network.operate(node, [self._completed(source, values, (start, stop), samples)])
            return whole[:, slice(*step.output)]
        weight = self.network.weights[node.name][0][slice(*step.output), start % per_group : (stop - 1) % per_group + 1]
        delta, padding = padded(values - self._rows(source, samples, (start, stop)), node.attrs["padding"], 0.0)
        # As a product of matrices: few input channels, and the sum with the base needs no pass of its own.
        columns = functional.unfold(
            delta, *(tuple(v) for v in (node.attrs["kernel"], node.attrs["dilation"], padding, node.attrs["stride"]))
        )
        whole = self._rows(node.name, samples, step.output).permute(0, 2, 3, 1)
        flat = whole.view(-1, whole.shape[3])
        flat.addmm_(columns.transpose(1, 2).reshape(len(flat), -1), weight.reshape(len(weight), -1).t())
        return whole.permute(0, 3, 1, 2)

    def _add(self, step: _Step, inputs: list[torch.Tensor | None], samples: torch.Tensor) -> torch.Tensor:
        start, _ = step.output
        total: torch.Tensor | None = None
        partial = []
        for name, sign, channels, values in zip(step.node.inputs, signs(step.node), step.inputs, inputs, strict=True):
            if channels == step.output and values is not None:
                term = values
            else:
                term = base = self._rows(name, samples, step.output)
                if channels is not None and values is not None:
                    partial.append((slice(channels[0] - start, channels[1] - start), sign, values, base))
            term = term if sign > 0 else -term
            total = term if total is None else total + term
        whole = cast("torch.Tensor", total)  # a sum has inputs
        for where, sign, changed, base in partial:
            whole[:, where] += sign * (changed - base[:, where])
        return whole

    def _multiply(self, step: _Step, inputs: list[torch.Tensor | None], samples: torch.Tensor) -> torch.Tensor:
        factors = []
        for name, needed, channels, values in zip(
            step.node.inputs, _factors(self.network.graph, step.node, step.output), step.inputs, inputs, strict=True
        ):
            if channels == needed and values is not None:
                factors.append(values)
                continue
            factors.append(self._rows(name, samples, needed).clone())
            if channels is not None and values is not None:
                factors[-1][:, channels[0] - needed[0] : channels[1] - needed[0]] = values
        return self.network.operate(step.node, factors)

    def _concat(self, step: _Step, inputs: list[torch.Tensor | None], samples: torch.Tensor) -> torch.Tensor:
        if sum(values is not None for values in inputs) == 1:
            return next(values for values in inputs if values is not None)
        start, stop = step.output
        whole = self._rows(step.node.name, samples, (start, stop)).clone()
        offset = -start
        for name, channels, values in zip(step.node.inputs, step.inputs, inputs, strict=True):
            if channels is not None and values is not None:
                whole[:, offset + channels[0] : offset + channels[1]] = values
            offset += self.network.graph[name].shape[0]
        return whole


def _frontier(graph: Graph, relu: str) -> set[str]:
    """Nodes whose unchanged value some step behind `relu` needs. Whether a range is a whole map does not depend on the channel."""
    ranges, needed = reach(graph, relu, 0), set()
    for node in graph.nodes:
        if node.name not in ranges or node.name == relu:
            continue
        if node.kind == "conv" and ranges[node.inputs[0]] != (0, graph[node.inputs[0]].shape[0]):
            needed |= {node.inputs[0], node.name}
        if node.kind == "gather":
            needed.add(node.inputs[0])
        if node.kind in ("multiply", "matmul"):
            factors = zip(node.inputs, _factors(graph, node, ranges[node.name]), strict=True)
            needed |= {name for name, channels in factors if ranges.get(name) != channels}
        if node.kind == "add":
            needed |= {name for name in node.inputs if ranges.get(name) != (0, node.shape[0])}
        if node.kind == "concat" and sum(name in ranges for name in node.inputs) > 1:
            needed.add(node.name)
    return needed


def suffix_macs(graph: Graph, relu: str) -> int:
    """Multiplications of one image behind `relu` by the plain method with a shared prefix: all convolutions it reaches, in full."""
    ranges = reach(graph, relu, 0)
    return sum(macs(graph, node) for node in graph.nodes if node.name in ranges)
