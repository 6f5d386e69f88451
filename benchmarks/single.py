"""Networks of ReLUs over three processes: a million in one layer for the throughput, a few in each of many for the cost of a message."""

from __future__ import annotations

import numpy as np

from benchmarks.machine import kernels_of
from benchmarks.measure import Progress
from benchmarks.store import Entry, spread
from threepc.graph.ir import Graph, Node
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel, ServedModel
from threepc.party import one_host
from threepc.plan.precision import Precision

MILLION = (64, 125)
FEW = (64, 8)
"""Channels, and the side of the map."""


def network(channels: int, side: int, bits: int, layers: int = 1) -> ServedModel:
    """A grey image, `layers` times a 1x1 convolution to `channels` maps and a ReLU, and the sum over each map."""
    conv = {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}
    nodes, weights, before = [Node("input", "input", (), (1, side, side))], {}, 1
    for layer in range(layers):
        nodes.append(Node(f"conv{layer}", "conv", (nodes[-1].name,), (channels, side, side), conv))
        nodes.append(Node(f"relu{layer}", "relu", (f"conv{layer}",), (channels, side, side)))
        alternating = np.where(np.arange(channels * before).reshape(channels, before, 1, 1) % 2, 1.0, -1.0) / before
        weights[f"conv{layer}"] = {"weight": alternating, "bias": np.zeros(channels)}
        before = channels
    pool = {"kernel": [side, side], "stride": [1, 1], "padding": [0] * 4, "divisor": float(2 ** (side * side - 1).bit_length())}
    nodes += [Node("sums", "avgpool", (nodes[-1].name,), (channels, 1, 1), pool), Node("output", "output", ("sums",), (channels, 1, 1))]
    card = ModelCard("one ReLU layer", Preprocessing((side, side), (0.0,), (1.0,)))
    return ServedModel(PublicModel(Graph(tuple(nodes)), Precision.default(bits), None, card), weights)


def measure(
    channels: int, side: int, bits: int, runs: int, layers: int = 1, transport: str = "ipc", progress: Progress = lambda text: None
) -> Entry:
    """Seconds of all phases overlapped, and of each apart; bytes and memory."""
    model = network(channels, side, bits, layers)
    pixels = (np.arange(side * side, dtype=np.float32).reshape(1, 1, side, side) % 16 - 8) / 16
    with one_host.open_parties(model, transport, progress=progress) as parties:
        records = {}
        for separate in (False, True):
            parties.infer(pixels, separate)
            records[separate] = [parties.infer(pixels, separate)[1] for _ in range(runs)]
    plan, apart = model.public.plan(1), records[True]
    return {
        "case": f"{plan.relus} ReLUs in {layers} layers/l{bits}/{transport}",
        "relus": plan.relus,
        "layers": layers,
        "ring": bits,
        "transport": transport,
        "kernels": kernels_of(bits),
        "seconds": {"total": spread(r.seconds["total"] for r in records[False])}
        | {phase: spread(r.seconds[phase] for r in apart) for phase in ("offline", "online")},
        "cpu_seconds": {role: spread(r.cpu_seconds[role] for r in records[False])["median"] for role in one_host.ROLES},
        "bytes": {phase: plan.cost.total(phase) for phase in ("offline", "online")},
        "messages": plan.cost.messages,
        "peak_rss_mb": apart[-1].peak_rss_mb,
    }
