"""The knapsack against enumeration, HiGHS and the paper's dynamic program, and its bound against all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import block_diag, csr_array

from threepc.errors import InputError
from threepc.graph.relu_spec import check, drelus, patch_counts
from threepc.reduction import knapsack
from threepc.reduction.candidates import candidates
from threepc.reduction.knapsack import Problem, allocate, solve
from threepc.reduction.store import Distortion, LayerDistortion


def value_and_cost(problem, choice):
    rows = [
        (values[np.arange(len(chosen)), chosen].sum(), prices[chosen].sum())
        for values, prices, chosen in zip(problem.distortion, problem.cost, choice)
    ]
    return np.sum(rows, axis=0)


def by_enumeration(problem):
    best = np.inf
    channels = [(row, prices) for values, prices in zip(problem.distortion, problem.cost) for row in values]
    for pick in itertools.product(*(range(len(prices)) for _, prices in channels)):
        cost = sum(prices[index] for index, (_, prices) in zip(pick, channels))
        value = sum(row[index] for index, (row, _) in zip(pick, channels))
        if cost <= problem.budget and not np.isnan(value):
            best = min(best, value)
    return best


def by_highs(problem):
    rows = [row for values in problem.distortion for row in values]
    cost = np.concatenate([np.tile(prices, len(values)) for values, prices in zip(problem.distortion, problem.cost)])
    values = np.concatenate(rows)
    one = csr_array(block_diag([np.ones((1, len(row))) for row in rows]))
    result = milp(
        values,
        integrality=np.ones(len(values)),
        bounds=(0, 1),
        options={"mip_rel_gap": 1e-9},
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(cost[None], -np.inf, problem.budget)],
    )
    return result.fun


def by_the_papers_program(problem):
    """Least distortion for every budget, channel after channel: the paper's program, for integer costs."""
    table = np.zeros(int(problem.budget) + 1)
    for values, prices in zip(problem.distortion, problem.cost):
        for row in values:
            shifted = np.full((len(row), len(table)), np.inf)
            for index, price in enumerate(prices.astype(int)):
                if price < len(table):
                    shifted[index, price:] = row[index] + table[: len(table) - price]
            table = shifted.min(axis=0)
    return table[-1]


@st.composite
def problems(draw):
    distortion, cost = [], []
    for _ in range(draw(st.integers(1, 2))):
        count, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        # Few different values: ties, dominated and equal choices are common.
        value = st.integers(0, 12).map(float)
        distortion.append(np.array([[draw(value) for _ in range(count)] for _ in range(channels)]))
        # Exact in binary, so that sums are the same in every order.
        cost.append(np.array([draw(st.integers(0, 72)) / 8 for _ in range(count)]))
    least, most = (sum(len(values) * bound(prices) for values, prices in zip(distortion, cost)) for bound in (min, max))
    return Problem(tuple(distortion), tuple(cost), draw(st.floats(least, most)))


@settings(max_examples=500)
@given(problems())
def test_optimal_on_small_instances(problem):
    solution = solve(problem)
    value, cost = value_and_cost(problem, solution.choice)
    assert cost <= problem.budget and value == solution.objective and cost == solution.cost
    assert solution.objective == pytest.approx(by_enumeration(problem), abs=1e-9)
    assert solution.bound <= solution.objective and solution.gap <= 1e-9


def realistic(seed, layers, ratio):
    """Distortions as networks have them: lognormal between channels, falling with the number of patches, with noise."""
    generator = np.random.default_rng(seed)
    distortion, cost = [], []
    for channels, size in layers:
        patches = candidates(size, size)
        prices = patch_counts(patches, size, size).astype(float)
        values = np.exp(generator.normal(-6, 1.5, (channels, 1)) + generator.normal(0, 0.4, (channels, len(patches))))
        values *= (1 - prices / prices.max()) ** 2
        distortion.append(values)
        cost.append(prices)
    full = sum(len(values) * prices[0] for values, prices in zip(distortion, cost))
    return Problem(tuple(distortion), tuple(cost), ratio * full)


@pytest.mark.parametrize("seed, ratio", [(0, 0.03), (1, 0.06), (2, 0.25), (3, 0.7)])
def test_as_good_as_highs(seed, ratio):
    problem = realistic(seed, [(24, 16), (40, 8), (60, 7)], ratio)
    solution = solve(problem)
    assert value_and_cost(problem, solution.choice)[1] <= problem.budget
    assert solution.objective == pytest.approx(by_highs(problem), rel=1e-6)
    assert solution.gap == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_worse_than_the_papers_program(seed):
    problem = realistic(seed, [(16, 8), (30, 4)], 0.1)
    assert solve(problem).objective <= by_the_papers_program(problem) * (1 + 1e-12)


def test_costs_that_are_no_integers():
    problem = realistic(5, [(20, 16), (40, 8)], 0.1)
    scaled = Problem(problem.distortion, tuple(1e-6 * prices + 3.3e-6 * (prices > 0) for prices in problem.cost), 2e-3)
    assert solve(scaled).objective == pytest.approx(by_highs(scaled), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_budgets_in_between(seed):
    """Costs of many sizes and budgets of any, where the Lagrangian choice itself can be the best."""
    generator = np.random.default_rng(seed)
    cost = tuple(np.append(0.0, generator.integers(1, 4000, 5) / 16) for _ in range(3))
    problem = Problem(tuple(generator.lognormal(0, 2, (4, 6)) for _ in cost), cost, float(generator.uniform(0, 12 * 250)))
    solution = solve(problem)
    value, spent = value_and_cost(problem, solution.choice)
    assert spent <= problem.budget and value == pytest.approx(solution.objective) == pytest.approx(by_highs(problem), rel=1e-6)


def test_full_size():
    problem = realistic(7, [(64, 112), (1024, 56), (3072, 28), (9000, 14), (9560, 7)], 0.06)
    solution = solve(problem)
    assert value_and_cost(problem, solution.choice)[1] <= problem.budget
    assert solution.gap < 1e-4


def test_the_bound_holds_where_the_core_is_cut(monkeypatch):
    monkeypatch.setattr(knapsack, "MOST_STATES", 2)
    for seed in range(5):
        problem = realistic(seed, [(24, 16), (40, 8)], 0.06)
        solution, optimum = solve(problem), by_highs(problem)
        assert solution.bound <= optimum * (1 + 1e-9) <= solution.objective * (1 + 1e-8)


def distortion_of(small_graph):
    layers = []
    for node in small_graph.nodes:
        if node.kind in ("relu", "clip"):
            patches = candidates(*node.shape[1:])
            counts = patch_counts(patches, *node.shape[1:])
            values = np.arange(1, node.shape[0] + 1)[:, None] * (1.0 - counts / counts[0])
            layers.append(LayerDistortion(node.name, node.kind, node.shape, patches, values))
    manifest = {"model": "small", "method": "exact", "weights": "00", "images": {"count": 1}}
    return Distortion(manifest, tuple(layers), 1.0, np.nan)


@pytest.mark.parametrize("budget, most", [({"ratio": 0.3}, 0.3 * 385), ({"drelus": 17}, 17), ({"ratio": 1.0}, 385), ({"drelus": 0}, 0)])
def test_specs_fit_the_network_and_the_budget(small_graph, budget, most):
    allocation = allocate(distortion_of(small_graph), **budget)
    check(allocation.spec, small_graph)
    assert sum(drelus(allocation.spec, small_graph).values()) == allocation.drelus == allocation.cost <= most
    assert allocation.spec.provenance["budget"] == pytest.approx(most)
    assert (allocation.least, allocation.full) == (0, 385)


def test_budgets_in_bytes_and_seconds(small_graph):
    def cost(layer, patch):
        return 10.0 * patch_counts(np.array(patch), *layer.shape[1:]) + 1, 1e-3 * (patch != (1, 0))

    distortion = distortion_of(small_graph)
    allocation = allocate(distortion, bytes=1500, cost=cost, fixed=100)
    assert 107 == allocation.least <= allocation.cost <= 1500 and allocation.full == 107 + 10 * (105 + 140)
    assert allocate(distortion, seconds=3e-3, cost=cost).cost == pytest.approx(3e-3)


@pytest.mark.parametrize(
    "budget, message",
    [
        ({"ratio": 1.01}, "ratio 1.01 is out of range: from 0 to 1"),
        ({"ratio": -0.1}, "out of range"),
        ({"ratio": float("nan")}, "out of range"),
        ({"drelus": 386}, "drelus 386 is out of range: from 0 to 385"),
        ({"bytes": 5, "cost": lambda layer, patch: (1.0, 1.0), "fixed": 100}, "bytes 5 is out of range: from 107 to 107"),
        ({"bytes": 5}, "needs a cost model"),
        ({}, "give one budget"),
        ({"ratio": 0.1, "drelus": 3}, "give one budget"),
    ],
)
def test_budgets_out_of_range(small_graph, budget, message):
    with pytest.raises(InputError, match=message):
        allocate(distortion_of(small_graph), **budget)


def test_skipped_candidates_are_not_chosen(small_graph):
    distortion = distortion_of(small_graph)
    distortion.layers[0].distortion[:, 5:] = np.nan
    allocation = allocate(distortion, ratio=0.3)
    assert np.isfinite(allocation.solution.objective)
    distortion.layers[0].distortion[1] = np.nan
    with pytest.raises(InputError, match="no measured candidate"):
        allocate(distortion, ratio=0.3)
