"""Costs by channel add up to what the schedule declares for the whole spec."""

import numpy as np
import pytest

from threepc.errors import InputError
from threepc.graph.relu_spec import patch_counts
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.reduction.candidates import candidates
from threepc.reduction.costs import DeclaredCosts
from threepc.reduction.knapsack import allocate
from threepc.reduction.store import Distortion, LayerDistortion


@pytest.fixture
def distortion(wide_graph):
    layers = []
    for node in wide_graph.nodes:
        if node.kind in ("relu", "clip"):
            patches = candidates(*node.shape[1:])
            values = np.arange(1.0, node.shape[0] + 1)[:, None] / (1 + patch_counts(patches, *node.shape[1:]))
            layers.append(LayerDistortion(node.name, node.kind, node.shape, patches, values))
    return Distortion({"model": "small", "method": "exact", "weights": "00", "images": {"count": 1}}, tuple(layers), 1.0, np.nan)


@pytest.mark.parametrize("bits", [64, 48, 40, 32])
def test_channels_add_up(wide_graph, distortion, bits):
    precision = Precision.default(bits)
    costs = DeclaredCosts(wide_graph, precision)
    full = allocate(distortion, ratio=1.0)
    budget = (costs.fixed[0] + sum(costs(layer, (1, 1))[0] * layer.shape[0] for layer in distortion.layers)) * 0.7
    for allocation in (full, allocate(distortion, bytes=budget, cost=costs, fixed=costs.fixed[0])):
        sizes = {name: tuple(map(tuple, patches.tolist())) for name, patches in allocation.spec.layers.items()}
        declared = schedule(wide_graph, precision, sizes).cost
        predicted, _ = costs.of_spec(distortion.layers, allocation.spec)
        # Rounding up to whole words is once for a layer, not for every channel.
        assert predicted == pytest.approx(declared.total("offline") + declared.total("online"), rel=0.03)
    assert allocation.cost <= budget


def test_seconds_of_a_network(wide_graph, distortion):
    costs = DeclaredCosts(wide_graph, Precision.default(48), "wan")
    size, seconds = costs(distortion.layers[0], (1, 1))
    assert seconds == pytest.approx(8 * size / 100e6)
    assert costs.fixed[1] == pytest.approx(8 * costs.fixed[0] / 100e6 + 20e-3 * schedule(wide_graph, Precision.default(48)).cost.messages)
    assert allocate(distortion, seconds=costs.fixed[1] + 3 * seconds, cost=costs, fixed=costs.fixed[1]).cost <= costs.fixed[1] + 3 * seconds
    assert DeclaredCosts(wide_graph, Precision.default(48)).fixed[1] == 0
    with pytest.raises(InputError, match="network: must be one of"):
        DeclaredCosts(wide_graph, Precision.default(48), "pigeons")
