"""Layers in pieces: what comes out is what comes out of whole layers, what travels is declared, and pieces' messages go in turn."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.building import Builder, bent, gated, mobile, residual
from tests.protocol.harness import CP, SP, WEIGHTS, network_trio, run_network, without_zeros
from threepc.errors import InputError
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel
from threepc.plan.messages import LEAST_PIECE, candidates
from threepc.plan.precision import Precision
from threepc.plan.schedule import deciding, fingerprint, schedule
from threepc.protocol.pieces import CHANNELS, MOST, ROWS, InPieces, evenly
from threepc.protocol.steps import MaxPoolStep, ReluStep


def pooled():
    """ReLU with patches, max pooling, ReLU."""
    net = Builder(3, 12, 12)
    return net.output(net.conv(net.relu(net.maxpool(net.relu(net.conv("input", 6)))), 4))


def pieces_of(plan):
    return [step.pieces for step in plan.steps if isinstance(step, ReluStep | MaxPoolStep)]


@pytest.mark.parametrize("quick", (False, True))
@pytest.mark.parametrize("build", (residual, mobile, gated, bent, pooled))
def test_a_network_gives_what_it_gives_with_whole_layers(build, quick):
    """Masks are others, so a truncation may round otherwise; bytes are those declared, and the longest way of messages stays as it was."""
    graph, weights = build()
    images = np.random.default_rng(5).normal(size=(2, *graph.input.shape))
    precision, told = Precision.default(48), () if quick else deciding(graph, "logits")
    options = {"batch": 2, "quick": candidates(graph) if quick else (), "to_client": told}
    whole, cut = (schedule(graph, precision, piece=piece, **options) for piece in (0, 60))
    assert any(pieces_of(cut)) and not any(pieces_of(whole))
    results = []
    for plan in (whole, cut):
        trio = network_trio(plan, weights, keys=(CP, SP), weight_key=WEIGHTS)
        results.append(run_network(trio, plan, images))
        measured, declared = trio.measured, without_zeros(plan.cost)
        assert (measured.offline, measured.online, measured.setup) == (declared.offline, declared.online, declared.setup)
        assert measured.messages >= declared.messages == whole.cost.messages
    assert np.abs(results[0] - results[1]).max() <= 2e-3 * np.abs(results[0]).max()


@pytest.mark.parametrize("quick", (False, True))
def test_patches_and_channels_that_pass_or_are_zero(quick):
    """A piece may have nothing to decide, or nothing to say at all, and others beside it go on. Patches are never cut by rows."""
    graph, weights = pooled()
    sizes = {"relu2": ((0, 1), (0, 1), (2, 2), (1, 1), (1, 0), (1, 0))}
    images = np.random.default_rng(6).normal(size=(1, *graph.input.shape))
    results = []
    for piece in (0, 100):
        plan = schedule(graph, Precision.default(32), sizes, piece=piece, quick=candidates(graph) if quick else ())
        results.append(run_network(network_trio(plan, weights), plan, images))
    assert len(pieces_of(plan)[0].parts) > 2 and pieces_of(plan)[0].axis == CHANNELS
    assert np.abs(results[0] - results[1]).max() <= 5e-2 * np.abs(results[0]).max()


def test_messages_of_pieces_go_in_turn():
    """The server sends the first message of every piece before it waits for an answer to any."""
    graph, weights = pooled()
    plan = schedule(graph, Precision.default(48), piece=200)
    trio = network_trio(plan, weights)
    run_network(trio, plan, np.zeros((1, *graph.input.shape)))
    for step in plan.steps:
        if isinstance(step, ReluStep) and step.pieces:
            ops = [part.op for part in step.pieces.parts]
            sent = [op for op, phase, _ in trio.online[1].sent if phase == "online" and op in ops]
            assert sent == ops * 2


@given(st.integers(1, 70), st.integers(1, MOST[ROWS]))
def test_what_is_cut_evenly(count, pieces):
    found = [index for piece in evenly(count, pieces) for index in range(count)[piece]]
    assert found == list(range(count))
    assert len(evenly(count, pieces)) == min(count, pieces) and all(piece.stop > piece.start for piece in evenly(count, pieces))


def test_a_layer_has_no_more_pieces_than_channels_or_rows_or_than_are_of_use():
    net = Builder(3, 16, 16)
    graph, _ = net.output(net.conv(net.relu(net.conv(net.relu(net.conv("input", 2)), 40)), 2))
    first, second = pieces_of(schedule(graph, Precision(), piece=10))
    assert isinstance(first, InPieces) and (len(first.parts), len(second.parts)) == (2, MOST[CHANNELS])
    of_rows = pieces_of(schedule(graph, Precision(), piece=10, quick=candidates(graph)))
    assert [(len(pieces.parts), pieces.axis) for pieces in of_rows] == [(MOST[ROWS], ROWS)] * 2
    for one, other in ((first, second), of_rows):
        ops = [part.op for part in (*one.parts, *other.parts)]
        assert len(set(ops)) == len(ops)


@pytest.mark.parametrize("quick", (False, True))
def test_a_layer_that_gives_its_value_too_is_not_cut_and_one_of_one_row_is_cut_by_channels(quick):
    net = Builder(2, 6, 6)
    both = net.node("rectify", net.conv("input", 2), channels=4)
    kept = net.conv(both, 2)
    kept = net.multiply(net.relu(kept), kept)
    graph, _ = net.output(net.conv(net.relu(net.conv(net.avgpool(kept), 8, 1)), 2, 1))
    plan = schedule(graph, Precision(), piece=4, quick=candidates(graph) if quick else ())
    two, own, last = (step for step in plan.steps if isinstance(step, ReluStep) and step.kind != "truncation")
    assert two.pieces is own.pieces is None and two.protocol.both and own.protocol.both
    assert len(last.pieces.parts) == 2 and last.pieces.axis == CHANNELS


def model_of(links, network):
    graph, _ = pooled()
    return PublicModel(graph, Precision(), None, ModelCard("small", Preprocessing((12, 12)))).cut_for(network, links)


def test_pieces_suit_the_links_between_client_and_server():
    assert model_of("", "none").piece == model_of("provider=1M", "none").piece == 0
    assert model_of("", "wan").piece == model_of("client=1M/1G", "none").piece == LEAST_PIECE
    assert LEAST_PIECE < model_of("", "wan352").piece < model_of("", "lan").piece < model_of("", "lan10").piece


def test_the_size_of_pieces_is_public_and_checked():
    model = model_of("", "lan")
    assert PublicModel.from_plain(model.to_plain()).piece == model.piece
    assert fingerprint(model.graph, model.precision, None) != fingerprint(model.graph, model.precision, None, piece=model.piece)
    assert dataclasses.replace(model, piece=0).fingerprint != model.fingerprint, "what the parties compare"
    for bad in (1, -1, LEAST_PIECE - 1, 1 << 40, 1e6, True, "1"):
        with pytest.raises(InputError, match="size of pieces"):
            PublicModel.from_plain(model.to_plain() | {"piece": bad})
