"""Rows that come one after the other: results to the bit those of whole layers, in order, each once, and messages that do not wait for others."""

import numpy as np
import pytest

from tests.graph.building import Builder, bent, branching, gated, mobile, residual, twins
from tests.protocol.harness import CP, SP, WEIGHTS, network_trio, run_network, without_zeros
from threepc.errors import RunError
from threepc.plan.messages import candidates
from threepc.plan.precision import Precision
from threepc.plan.schedule import schedule
from threepc.protocol.linear import Linear
from threepc.protocol.pieces import ROWS
from threepc.protocol.rows import Rows, rows_of, whole
from threepc.protocol.steps import LinearStep, ReluStep, Step, SumStep


def strided():
    """Kernels, strides and dilations that skip rows, read the padding alone at first, and leave rows unread."""
    net = Builder(3, 19, 11, seed=4)
    x = net.relu(net.conv(net.relu(net.conv("input", 4)), 5, 5, stride=3))
    wide = {"kernel": [3, 3], "stride": [2, 1], "padding": [5, 2, 0, 2], "dilation": [2, 2]}
    name = net.node("conv", x, channels=4, **wide, groups=1)
    net.weights[name] = {"weight": np.random.default_rng(8).normal(size=(4, 5, 3, 3)) * 0.3, "bias": np.zeros(4)}
    x = net.relu(net.conv(net.relu(name), 4, 1, stride=2))
    return net.output(net.conv(net.avgpool(x), 3, 1))


def chain():
    """Three ReLUs, one after the other."""
    net = Builder(2, 8, 8, seed=6)
    x = "input"
    for _ in range(3):
        x = net.relu(net.conv(x, 3))
    return net.output(net.conv(x, 2, 1))


def planned(graph, bits=48, **options):
    return schedule(graph, Precision.default(bits), quick=candidates(graph), piece=30, **options)


@pytest.mark.parametrize("bits, batch", ((48, 2), (32, 1)))
@pytest.mark.parametrize("build", (residual, mobile, gated, bent, branching, twins, strided, chain))
def test_rows_as_they_come_give_what_whole_layers_give(build, bits, batch, monkeypatch):
    """Under the same keys: the same words; and what travels is what is declared."""
    graph, weights = build()
    plan = planned(graph, bits, batch=batch)
    images, results = np.random.default_rng(bits).normal(size=(batch, *graph.input.shape)), []
    for _ in range(2):
        trio = network_trio(plan, weights, keys=(CP, SP), weight_key=WEIGHTS)
        results.append((run_network(trio, plan, images), trio.online[0].bytes_sent(), trio.online[1].bytes_sent()))
        assert trio.server.coming is None, "nothing of the last layer by rows is held any longer"
        measured, declared = trio.measured, without_zeros(plan.cost)
        assert (measured.offline, measured.online) == (declared.offline, declared.online)
        for kind in (LinearStep, SumStep, ReluStep):  # from here on each waits for all of the one before
            monkeypatch.setattr(kind, "serve_by_rows", Step.serve_by_rows)
    assert np.array_equal(results[0][0], results[1][0]), "results"
    assert results[0][1:] == results[1][1:], "what client and server say to each other, in their order, to the byte"


def test_a_layer_begins_before_the_last_answers_of_the_one_before():
    graph, weights = chain()
    plan = planned(graph)
    trio, said = network_trio(plan, weights), []
    online = trio.server.online
    send, receive = online.send, online.receive
    online.send = lambda op, parts, phase: (said.append(("sent", op)), send(op, parts, phase))
    online.receive = lambda op, layout: (said.append(("heard", op)), receive(op, layout))[1]
    run_network(trio, plan, np.zeros((1, *graph.input.shape)))
    first, second, third = ([part.op for part in step.pieces.parts] for step in plan.steps if isinstance(step, ReluStep))
    assert all(step.pieces.axis == ROWS for step in plan.steps if isinstance(step, ReluStep)) and len(first) > 3
    heard = [op for what, op in said if what == "heard" and op != 0]
    assert heard == [*first, *second, *third], "in the order in which the client answers"
    for before, after in ((first, second), (second, third)):
        begins = said.index(("sent", after[0]))
        assert begins == said.index(("heard", before[1])) + 1, "as soon as the rows of the kernel are there"
        assert begins < said.index(("heard", before[2]))


def test_rows_are_filled_once_in_order_and_what_they_came_from_is_let_go():
    asked = []

    def fill(words, begin, end):
        asked.append((begin, end))
        words[:, :, begin : end + 1] = begin
        return min(end + 1, 6)

    rows = Rows((1, 2, 6, 3), np.uint32, fill)
    assert rows_of(rows, 0, 2).shape == (1, 2, 2, 3) and rows_of(rows, 1, 3).flags.c_contiguous
    assert asked == [(0, 2)] and not rows.is_whole, "the third row came with the others"
    assert whole(rows)[0, 0, :, 0].tolist() == [0, 0, 0, 3, 3, 3] and whole(rows) is rows.before(1)
    assert asked == [(0, 2), (3, 6)] and rows.is_whole and rows._fill is not fill
    assert whole(None) is None and rows_of(None, 0, 1) is None


def test_a_client_that_goes_away_between_rows_ends_the_server_by_a_line():
    graph, weights = chain()
    plan = planned(graph)
    trio = network_trio(plan, weights)
    second = [part.op for part in [step for step in plan.steps if isinstance(step, ReluStep)][1].pieces.parts]
    send = trio.client.online.send

    def leave(op, parts, phase):
        if op == second[1]:
            trio.client.online.close()
        send(op, parts, phase)

    trio.client.online.send = leave
    with pytest.raises(RunError):
        run_network(trio, plan, np.zeros((1, *graph.input.shape)))


def test_a_kernel_that_may_read_padding_alone_takes_whole_maps():
    geometry = {"shape": (1, 4, 8, 8), "weight_shape": (4, 4, 3, 3), "stride": (1, 1), "groups": 1, "bits": 32}
    takes = lambda padding, dilation: Linear(0, padding=padding, dilation=dilation, **geometry).takes_rows
    assert takes((1, 1, 1, 1), (1, 1)) and takes((2, 9, 2, 9), (1, 1)) and takes((4, 4, 4, 4), (2, 2))
    assert not takes((3, 1, 0, 1), (1, 1)) and not takes((0, 0, 5, 0), (2, 1))


def test_what_rows_are_computed_from_is_counted_until_the_next_layer_has_begun():
    """The server holds the ReLU's result beside what the convolution makes of it, as whole layers do not."""
    graph, _ = chain()
    for piece, values in ((0, 4), (30, 5)):
        plan = schedule(graph, Precision.default(48), quick=candidates(graph), piece=piece)
        cost = [step for step in plan.steps if isinstance(step, ReluStep)][1].cost
        assert plan.held_bytes == values * 8 * 3 * 8 * 8 + cost.total("offline") + 2 * cost.total("online")


def test_all_that_rows_are_computed_from_is_counted():
    """The first ReLU's result, and both convolutions of it, beside their sum."""
    net = Builder(2, 8, 8)
    x = net.relu(net.conv("input", 3))
    graph, _ = net.output(net.conv(net.relu(net.add(net.conv(x, 3), net.conv(x, 3))), 2, 1))
    for piece, values in ((0, 4), (30, 7)):
        plan = schedule(graph, Precision.default(48), quick=candidates(graph), piece=piece)
        cost = [step for step in plan.steps if isinstance(step, ReluStep)][1].cost
        assert plan.held_bytes == values * 8 * 3 * 8 * 8 + cost.total("offline") + 2 * cost.total("online")
