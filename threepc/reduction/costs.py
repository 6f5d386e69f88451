"""What a patch size costs in bytes and seconds, from the costs that the protocols declare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from threepc.choices import NETWORKS
from threepc.errors import InputError
from threepc.graph.ir import Graph
from threepc.graph.relu_spec import ReluSpec
from threepc.plan.precision import Precision
from threepc.plan.schedule import Plan, schedule
from threepc.protocol.cost import Cost
from threepc.protocol.relu_layer import ReluLayer
from threepc.protocol.steps import ReluStep
from threepc.reduction.store import LayerDistortion


def _bytes(cost: Cost) -> int:
    return cost.total("offline") + cost.total("online")


@dataclass(frozen=True)
class DeclaredCosts:
    """Cost of one image's inference, apart by channel; an instance is the `cost` that `knapsack.allocate` takes.

    Bytes are over all links, offline and online. Seconds are the time `network` ("lan", "wan", ...) takes to carry them one after the
    other, and the delays of the online messages; computing is not counted, which a patch size hardly changes. The four messages
    of a ReLU count as fixed even where no channel decides any more.
    """

    graph: Graph
    precision: Precision
    network: str = "none"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise InputError(f"network: must be one of {', '.join(NETWORKS)}, not {self.network}")

    @cached_property
    def _known(self) -> dict[tuple[str, tuple[int, int]], float]:
        return {}

    @cached_property
    def _relus(self) -> dict[str, ReluLayer]:
        # what keeps its input for a product costs the same whatever the patches are: it counts as fixed
        steps = (step for step in self._plan.steps if isinstance(step, ReluStep) and step.kind in ("relu", "clip"))
        return {step.name: replace(step.protocol, both=False) for step in steps}

    @cached_property
    def _plan(self) -> Plan:
        return schedule(self.graph, self.precision)

    def _seconds(self, count: float, messages: int = 0) -> float:
        network = NETWORKS[self.network]
        return 0.0 if network is None else 8 * count / network.rate_bits_per_s + messages * network.one_way_delay_s

    def __call__(self, layer: LayerDistortion, patch: tuple[int, int]) -> tuple[float, float]:
        """(bytes, seconds) of one channel of a ReLU with a patch size."""
        key = layer.name, patch
        if key not in self._known:
            relu = self._relus[layer.name]
            channels = relu.shape[1]
            self._known[key] = _bytes(replace(relu, sizes=(key[1],) * channels).cost) / channels
        return self._known[key], self._seconds(self._known[key])

    @cached_property
    def fixed(self) -> tuple[float, float]:
        """(bytes, seconds) of all else: linear layers, input, output, pooling, and every message's delay."""
        count = _bytes(self._plan.cost) - sum(_bytes(relu.cost) for relu in self._relus.values())
        return count, self._seconds(count, self._plan.cost.messages)

    def of_spec(self, layers: Iterable[LayerDistortion], spec: ReluSpec) -> tuple[float, float]:
        """(bytes, seconds) of an inference with `spec`, all else included."""
        parts = [self.fixed, *(self(layer, (h, w)) for layer in layers for h, w in spec.layers[layer.name].tolist())]
        return sum(count for count, _ in parts), sum(seconds for _, seconds in parts)
