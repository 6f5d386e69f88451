"""Which patch for every channel: the multiple-choice knapsack, solved to a proven gap.

    minimise sum_i d[i, j(i)]   subject to   fixed + sum_i c[i, j(i)] <= budget,   one j(i) for every channel i

The bound is Lagrangian: L(m) = sum_i min_j (d + m c) - m (budget - fixed), maximised over m >= 0 by bisection; its value is that of
the linear relaxation, since each minimum falls on the lower convex hull of a channel's choices (LP-dominated ones never win). With
r[i, j] = d + m c - min_j (d + m c), any solution costs L + sum r + m * (unspent budget), all terms non-negative: a choice with r above
the gap between a known solution and L is in no better solution. What such fixing leaves, the core, is solved by a dynamic program over
the few states within the gap (Pisinger, A minimal algorithm for the multiple-choice knapsack problem, EJOR 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from threepc.errors import InputError
from threepc.graph.relu_spec import PLAIN, ReluSpec
from threepc.reduction.store import Distortion, LayerDistortion

# States of the core's dynamic program; beyond them the gap is stated as it is then.
MOST_STATES = 50_000

# (ReLU, [height, width]) -> (bytes, seconds) of one channel.
Cost = Callable[[LayerDistortion, tuple[int, int]], tuple[float, float]]


@dataclass(frozen=True)
class Problem:
    """`distortion` and `cost`: float64 (C, K) and (K,) for each layer; NaN distortion forbids a choice. `budget`: of summed costs."""

    distortion: tuple[np.ndarray, ...]
    cost: tuple[np.ndarray, ...]
    budget: float


@dataclass(frozen=True)
class Solution:
    """`choice`: int64 (C,) for each layer. `objective` is its sum of distortions, `bound` a proven lower bound on every solution's."""

    choice: tuple[np.ndarray, ...]
    objective: float
    bound: float
    cost: float

    @property
    def gap(self) -> float:
        """(objective - bound) / objective; 0 for a proven optimum."""
        return max(0.0, self.objective - self.bound) / self.objective if self.objective > 0 else 0.0


def solve(problem: Problem) -> Solution:
    """Solve to a proven gap. Raises InputError, naming the range, where the budget is below the cheapest choice."""
    least = sum(_cheapest(distortion, cost) for distortion, cost in zip(problem.distortion, problem.cost, strict=True))
    if problem.budget < least:
        raise InputError(f"a budget of {problem.budget:g} cannot be met: the cheapest choice for every channel costs {least:g}")
    distortion = [_undominated(values, cost) for values, cost in zip(problem.distortion, problem.cost, strict=True)]
    multiplier, choice, bound = _lagrange(distortion, problem.cost, problem.budget)
    choice = _spend(distortion, problem.cost, problem.budget, choice)
    best = _evaluate(distortion, problem.cost, choice, bound)
    return _core(distortion, problem, multiplier, best) if best.gap > 0 else best


def _cheapest(distortion: np.ndarray, cost: np.ndarray) -> float:
    allowed = np.where(np.isnan(distortion), np.inf, cost)
    if np.isinf(allowed.min(axis=1)).any():
        raise InputError("a channel has no measured candidate")
    return float(allowed.min(axis=1).sum())


def _undominated(distortion: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The distortions with infinity where another choice of the channel costs no more and distorts no more."""
    order = np.argsort(cost, kind="stable")
    values = np.where(np.isnan(distortion), np.inf, distortion)[:, order]
    # Among equal costs the least distortion comes first; the argsort keeps the order by cost.
    inner = np.lexsort((values, np.broadcast_to(cost[order], values.shape)), axis=1)
    values = np.take_along_axis(values, inner, axis=1)
    before = np.minimum.accumulate(values, axis=1)[:, :-1]
    values[:, 1:][values[:, 1:] >= before] = np.inf
    result = np.empty_like(values)
    np.put_along_axis(result, order[inner], values, axis=1)
    return result


def _select(distortion: list[np.ndarray], cost: tuple[np.ndarray, ...], multiplier: float) -> tuple[list[np.ndarray], float, float]:
    """The choice that minimises d + multiplier * c, the sum of these minima, and its cost."""
    choice, total, spent = [], 0.0, 0.0
    for values, prices in zip(distortion, cost, strict=True):
        penalised = values + multiplier * prices
        chosen = penalised.argmin(axis=1)
        total += penalised[np.arange(len(chosen)), chosen].sum()
        spent += prices[chosen].sum()
        choice.append(chosen)
    return choice, float(total), float(spent)


def _lagrange(distortion: list[np.ndarray], cost: tuple[np.ndarray, ...], budget: float) -> tuple[float, list[np.ndarray], float]:
    """The best multiplier, its choice within the budget, and the bound L."""
    choice, total, spent = _select(distortion, cost, 0.0)
    if spent <= budget:
        return 0.0, choice, total
    low, high, bound, best = 0.0, 1.0, total, 0.0
    found = False
    while True:
        # Until a multiplier is found that meets the budget, go up in large steps; then halve.
        middle = (low + high) / 2 if found else high
        if not low < middle <= high or (found and middle == high):
            return best, choice, bound
        chosen, total, spent = _select(distortion, cost, middle)
        if total - middle * budget > bound:
            bound, best = total - middle * budget, middle
        if spent <= budget:
            high, choice, found = middle, chosen, True
        elif found:
            low = middle
        else:
            low, high = middle, middle * 16


def _spend(distortion: list[np.ndarray], cost: tuple[np.ndarray, ...], budget: float, choice: list[np.ndarray]) -> list[np.ndarray]:
    """Spend what is left of the budget: the best single change again and again, until none fits."""
    choice = [chosen.copy() for chosen in choice]
    left = budget - sum(prices[chosen].sum() for prices, chosen in zip(cost, choice, strict=True))
    while True:
        best = (0.0, 0, 0, 0)
        for layer, (values, prices) in enumerate(zip(distortion, cost, strict=True)):
            rows = np.arange(len(values))
            gain = values[rows, choice[layer]][:, None] - values
            gain[prices[None, :] - prices[choice[layer]][:, None] > left] = 0.0
            channel, candidate = np.unravel_index(gain.argmax(), gain.shape)
            best = max(best, (float(gain[channel, candidate]), layer, int(channel), int(candidate)))
        gain, layer, channel, candidate = best
        if gain <= 0:
            return choice
        left -= cost[layer][candidate] - cost[layer][choice[layer][channel]]
        choice[layer][channel] = candidate


def _evaluate(distortion: list[np.ndarray], cost: tuple[np.ndarray, ...], choice: list[np.ndarray], bound: float) -> Solution:
    objective = sum(float(values[np.arange(len(chosen)), chosen].sum()) for values, chosen in zip(distortion, choice, strict=True))
    spent = sum(float(prices[chosen].sum()) for prices, chosen in zip(cost, choice, strict=True))
    return Solution(tuple(choice), objective, min(bound, objective), spent)


def _core(distortion: list[np.ndarray], problem: Problem, multiplier: float, known: Solution) -> Solution:
    """The optimum, by a dynamic program over the choices whose reduced distortion is within the gap.

    A state is a set of changes to the Lagrangian choice: the cost they add and the reduced distortion they sum up to. It ends where
    that sum passes the gap, or where another state costs no more and distorts no more. Channels enter by their least reduced
    distortion, so better solutions are met early, and each narrows the gap for the rest.
    """
    base, lagrangian, spent = _select(distortion, problem.cost, multiplier)
    lagrangian -= multiplier * problem.budget
    left, gap = problem.budget - spent, known.objective - lagrangian
    added, summed = np.zeros(1), np.zeros(1)
    history: list[tuple[tuple[int, int], np.ndarray, np.ndarray]] = []
    best, proven = None, True
    for channel, candidates, weights, extra in _entering(distortion, problem.cost, multiplier, base, gap):
        if weights.min() > gap:
            break
        parent = np.tile(np.arange(len(added)), len(weights) + 1)
        taken = np.repeat(np.append(-1, candidates), len(added))
        added = (np.append(0.0, extra)[:, None] + added).reshape(-1)
        summed = (np.append(0.0, weights)[:, None] + summed).reshape(-1)
        value = np.where(added <= left, summed + multiplier * (left - added), np.inf)
        winner = int(value.argmin())
        if value[winner] < gap:
            gap, best = float(value[winner]), (len(history), int(parent[winner]), (channel, int(taken[winner])))
        within = np.flatnonzero(summed <= gap)
        order = within[np.lexsort((summed[within], added[within]))]
        distorts = summed[order] - multiplier * added[order]
        order = order[np.append(True, distorts[1:] < np.minimum.accumulate(distorts)[:-1])]
        if len(order) > MOST_STATES:
            order, proven = np.sort(order[np.argsort(summed[order], kind="stable")[:MOST_STATES]]), False
        history.append((channel, parent[order], taken[order]))
        added, summed = added[order], summed[order]
    if best is not None:
        stage, state, last = best
        for (layer, row), candidate in (last, *_changes(history[:stage], state)):
            if candidate >= 0:
                base[layer][row] = candidate
        found = _evaluate(distortion, problem.cost, base, known.bound)
        if found.cost > problem.budget:  # by the rounding of sums in another order
            return known
        known = found
    return replace(known, bound=known.objective) if proven else known


def _changes(history: list[tuple[tuple[int, int], np.ndarray, np.ndarray]], state: int) -> Iterator[tuple[tuple[int, int], int]]:
    """What led to a state, from its last stage back: (layer, channel) and the candidate taken, -1 for the one it had."""
    for channel, parent, taken in reversed(history):
        yield channel, int(taken[state])
        state = int(parent[state])


def _entering(
    distortion: list[np.ndarray], cost: tuple[np.ndarray, ...], multiplier: float, base: list[np.ndarray], gap: float
) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """(layer, channel), its candidates within the gap but the base, their reduced distortions and the costs they add; least first."""
    channels = []
    for layer, (values, prices, chosen) in enumerate(zip(distortion, cost, base, strict=True)):
        rows = np.arange(len(values))
        penalised = values + multiplier * prices
        reduced = penalised - penalised[rows, chosen][:, None]
        reduced[rows, chosen] = np.inf
        for row in np.flatnonzero(reduced.min(axis=1) <= gap).tolist():
            some = np.flatnonzero(reduced[row] <= gap)
            channels.append(((layer, row), some, reduced[row, some], prices[some] - prices[chosen[row]]))
    yield from sorted(channels, key=lambda channel: channel[2].min())


@dataclass(frozen=True)
class Allocation:
    """A relu spec with what it costs: `unit` is DReLUs, bytes or seconds, `least` and `full` the range of possible budgets."""

    spec: ReluSpec
    solution: Solution
    unit: str
    budget: float
    cost: float
    least: float
    full: float
    drelus: int


def allocate(
    distortion: Distortion,
    *,
    ratio: float | None = None,
    drelus: int | None = None,
    bytes: float | None = None,  # noqa: A002 - the budget's name
    seconds: float | None = None,
    cost: Cost | None = None,
    fixed: float = 0.0,
) -> Allocation:
    """The relu spec with the least sum of distortions within one budget: exactly one of the four has to be given.

    `ratio` in 0..1 of all DReLUs, `drelus` a count, `bytes` or `seconds` for one image; these two need `cost`, which gives (bytes, seconds)
    of one channel with a patch, and `fixed`, the bytes or seconds of everything else. Raises InputError naming the possible range.
    """
    budgets = {"ratio": ratio, "drelus": drelus, "bytes": bytes, "seconds": seconds}
    given = {name: value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        raise InputError("give one budget: ratio, drelus, bytes or seconds")
    ((kind, amount),) = given.items()
    unit = "DReLUs" if kind in ("ratio", "drelus") else kind
    if unit == "DReLUs":
        prices, fixed = [layer.drelus.astype(float) for layer in distortion.layers], 0.0
    elif cost is None:
        raise InputError(f"a budget in {kind} needs a cost model")
    else:
        prices = [
            np.array([cost(layer, tuple(patch))[kind == "seconds"] for patch in layer.patches.tolist()]) for layer in distortion.layers
        ]
    counts = [layer.shape[0] for layer in distortion.layers]
    full = fixed + sum(count * price[_plain(layer)] for count, price, layer in zip(counts, prices, distortion.layers, strict=True))
    least = fixed + sum(_cheapest(layer.distortion, price) for layer, price in zip(distortion.layers, prices, strict=True))
    budget = float(amount * full if kind == "ratio" else amount)
    if not least <= budget <= full:
        scale = full if kind == "ratio" else 1.0
        raise InputError(f"{kind} {amount:g} is out of range: from {least / scale:g} to {full / scale:g} for this network")
    solution = solve(Problem(tuple(layer.distortion for layer in distortion.layers), tuple(prices), budget - fixed))
    layers = {layer.name: layer.patches[choice] for layer, choice in zip(distortion.layers, solution.choice, strict=True)}
    kept = sum(int(layer.drelus[choice].sum()) for layer, choice in zip(distortion.layers, solution.choice, strict=True))
    provenance: dict[str, Any] = {
        "method": "knapsack",
        "distortion": distortion.fingerprint,
        "distortion_method": distortion.manifest["method"],
        "weights": distortion.manifest["weights"],
        "images": distortion.manifest["images"]["count"],
        "unit": unit,
        "budget": budget,
        "cost": fixed + solution.cost,
        "drelus": kept,
        "sum_of_distortions": solution.objective,
        "proven_gap": solution.gap,
    }
    spec = ReluSpec(distortion.manifest["model"], layers, provenance, "knapsack")
    return Allocation(spec, solution, unit, budget, fixed + solution.cost, least, full, kept)


def _plain(layer: LayerDistortion) -> int:
    return [tuple(patch) for patch in layer.patches.tolist()].index(PLAIN)
