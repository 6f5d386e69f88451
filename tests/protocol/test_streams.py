"""Which blocks of a keyed stream the kernels draw: each once at most, the same at both holders, and none beyond what was reserved.

A mask that is drawn twice gives right results, so only the draws themselves show it. Here the passes over runs are interpreted, and note them.
"""

import numpy as np
import pytest

from tests.graph.building import Builder
from tests.protocol.harness import CP, SP, WEIGHTS, RecordedKeystream, Trio, network_trio, run_network
from threepc.choices import LABEL, LOGITS
from threepc.kernels import keystream, labels, late_lift, one_level, runs
from threepc.kernels.keystream import BLOCK_BYTES
from threepc.kernels.packing import TILE
from threepc.plan.precision import Precision
from threepc.plan.schedule import DECIDING, schedule
from threepc.prf import Purpose

OF_THEIR_OWN = {Purpose.WEIGHT, Purpose.PRODUCT, Purpose.LOOKUP, Purpose.SHARE}
"""L_W and a data owner's share are drawn by the library, as one run; what the passes of products and lookups draw, tests of these protocols say."""

ALL_PURPOSES = {"CP": set(Purpose) - OF_THEIR_OWN, "SP": {Purpose.OPENING, Purpose.DECISION, Purpose.LIFT}}
"""What client and server share streams with the provider for."""


class ReservedKeystream(RecordedKeystream):
    """A keystream that also keeps (op, purpose, blocks, source) of all that kernels may draw."""

    def __init__(self, key):
        super().__init__(key)
        self.sources = []

    def source(self, attempt, op, purpose, blocks):
        source = super().source(attempt, op, purpose, blocks)
        self.sources.append((op, purpose, blocks, source))
        return source


def interpret(patch):
    """Let the passes over runs be interpreted; returns the list of (source, first block, bytes) to which every draw is added."""
    draws = []

    def draw(source, block, out):
        following = keystream.fill(source, block, out)
        draws.append((source, int(block), out.tobytes()))
        return following

    for name, function in list(vars(runs).items()):
        if getattr(getattr(function, "py_func", None), "__module__", None) == runs.__name__:
            patch.setattr(runs, name, function.py_func)
    for module in (one_level, labels, late_lift):
        for name, function in list(vars(module).items()):
            python = getattr(function, "py_func", None)
            if python is not None and (name.startswith("_draw") or "tiles" in python.__code__.co_varnames):
                patch.setattr(module, name, python)
    for module in (runs, one_level, labels, late_lift):
        patch.setattr(module, "draw", draw)
    return draws


def every_protocol():
    """A network with every activation, blocks, a channel that passes, pooling and truncation, of three tiles and more each; its blocks' sizes.

    Its blocks, and the ReLU that keeps its input, take two messages, its clip takes six.
    """
    net = Builder(1, 2 * TILE // 64 + 10, 64)
    bent = net.node("bend", net.clip(net.conv("input", 1, 1)), slopes=[0.25, 1.0])
    both = net.node("rectify", net.conv(bent, 1, 1), channels=2)
    blocks = net.relu(net.conv(both, 3, 1))
    pooled = net.node("maxpool", net.conv(blocks, 3, 1), kernel=[2, 1], stride=[1, 1], padding=[0] * 4, dilation=[1, 1])
    return *net.output(net.conv(net.add(pooled, pooled), 3, 1)), {blocks: ((1, 1), (1, 2), (0, 1))}


def inferred(reveal, bits, told=False, piece=0):
    """The three roles after an inference of that network under the tests' keys. told: whether the client is told its shares where it decides.

    piece: as of `schedule`.
    """
    graph, weights, sizes = every_protocol()
    of_labels = [graph.output.name] if reveal == LABEL else []
    quick = [node.name for node in graph.nodes if node.kind in ("rectify",) + ("relu",) * (not told)]
    late = [node.name for node in graph.nodes if node.kind == "clip"]
    to_client = [*(node.name for node in graph.nodes if node.kind in DECIDING and node.name not in quick), *of_labels] if told else []
    plan = schedule(graph, Precision.default(bits), sizes, reveal=reveal, to_client=to_client, quick=quick, late=late, piece=piece)
    trio = network_trio(plan, weights, weight_key=WEIGHTS, keys=(CP, SP))
    run_network(trio, plan, np.ones((1, *graph.input.shape)))
    return trio


def blocks_of(draws):
    """Numbers of all blocks that are in (first block, bytes) of draws."""
    return np.concatenate([np.arange(block, block + -(-len(drawn) // BLOCK_BYTES)) for block, drawn in draws])


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(
    "bits, reveal, told, piece",
    [
        pytest.param(48, LOGITS, False, 0, id="48-logits-False"),
        pytest.param(48, LABEL, False, 0, id="48-label-False"),
        pytest.param(32, LOGITS, False, 0, id="32-logits-False"),
        pytest.param(32, LABEL, False, 0, id="32-label-False"),
        pytest.param(48, LABEL, True, 0, id="48-label-True"),
        pytest.param(32, LOGITS, False, 1, id="32-logits-pieces"),
    ],
)
def test_no_block_is_drawn_twice(bits, reveal, told, piece, monkeypatch):
    monkeypatch.setattr(Trio, "new_stream", ReservedKeystream)
    with monkeypatch.context() as patch:
        draws = interpret(patch)
        trio = inferred(reveal, bits, told, piece)
    by_stream = {}
    for holder, stream in trio.streams.items():
        for op, purpose, reserved, source in stream.sources:
            own = sorted((block, drawn) for drawn_from, block, drawn in draws if drawn_from.keys is source.keys)
            by_stream[holder, op, purpose] = own
            assert bool(own) == bool(reserved)
            if own:
                blocks, where = blocks_of(own), f"{holder}, op {op}, {Purpose(purpose).name}"
                assert len(own) >= (1 if piece else 3), f"{where}: every tile draws"
                assert len(np.unique(blocks)) == len(blocks), f"{where}: a block is drawn twice"
                assert blocks.max() < reserved
    for holder, purposes in ALL_PURPOSES.items():
        assert {purpose for of, _, purpose in by_stream if of == holder} == purposes
        drawn = [drawn for (of, _, _), own in by_stream.items() if of == holder for _, drawn in own]
        words = np.concatenate([np.frombuffer(d[: len(d) // BLOCK_BYTES * BLOCK_BYTES], f"V{BLOCK_BYTES}") for d in drawn])
        assert len(np.unique(words)) == len(words), f"{holder}: what kernels draw repeats"
        assert all(own == by_stream[holder[::-1], op, purpose] for (of, op, purpose), own in by_stream.items() if of == holder)
    assert sent(trio) == sent(inferred(reveal, bits, told, piece)), "compiled passes do the same"


def sent(trio):
    """Every message, by sender."""
    return [end.bytes_sent() for pair in (trio.dealt, trio.told, trio.prepared, trio.online) for end in pair]
