"""What each party receives: uniform given all that it holds, and under the same keys independent of what it must not learn.

The statistical tests use fresh keys, see uniformity.py.
"""

import dataclasses
import math

import numpy as np
import pytest

from tests.graph.building import Builder, gated, mobile, residual
from tests.protocol.harness import CP, CUT_RINGS, CUTS, SP, WEIGHTS, Trio, network_trio, run, run_network, shares, signed
from tests.protocol.uniformity import COUNT, assert_uniform, bits_of, combined_bits, drawn_bits, parts_of, received_bits, unmasked
from threepc import prf
from threepc.errors import RunError
from threepc.kernels.gate import Cut, Slopes
from threepc.kernels.packing import packed_bytes, unpack
from threepc.plan.precision import Precision
from threepc.plan.schedule import DECIDING, schedule
from threepc.prf import Keystream, new_key
from threepc.protocol.argmax import Argmax
from threepc.protocol.input_output import Input, Output
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.linear import Linear
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.product import Product
from threepc.protocol.quick_relu import QuickRelu
from threepc.protocol.relu import Relu
from threepc.ring import word_of

VALUES = {"zero": 0, "negative": -(1 << 13)}
SLOPED = {
    "leaky": {"slopes": Slopes(655, 65536, 16)},
    "abs": {"slopes": Slopes(-1, 1, 0)},
    "both": {"both": True},
    "hardsigmoid": {"start": -30, "offset": 7, "clip": 60, "slopes": Slopes(0, 10923, 16)},
}
COARSE = SLOPED | {
    "leaky": {"slopes": Slopes(10, 1024, 10)},
    "hardsigmoid": {"start": -30, "offset": 7, "clip": 60, "slopes": Slopes(0, 171, 10)},
}
"""The same beside a truncation that leaves a slope 10 bits."""
KINDS = ("relu", "clip", "blocks", *SLOPED)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "of, kind, to_client",
    [(Relu, kind, False) for kind in KINDS]
    + [(Relu, kind, True) for kind in ("relu", "clip", "blocks", "both")]
    + [(QuickRelu, kind, False) for kind in KINDS if kind not in ("clip", "hardsigmoid")]
    + [(LateRelu, kind, kind == "both") for kind in ("relu", "clip", "blocks", "both")],
)
@pytest.mark.parametrize("bits, shift, cut", CUT_RINGS)
def test_relu_shows_nobody_anything(of, bits, shift, cut, kind, to_client, value):
    """The same value in every element. A clip takes four messages. to_client: which party is told its share of the planes that P deals."""
    shape = (1, 1, 64, 128)
    summands = unmasked(VALUES[value] << shift, shape, bits)
    # a second channel, always zero, makes it a mixed layer
    sizes = ((1, 1), (1, 0)) if kind == "blocks" else None
    if kind == "blocks":
        shape = (1, 2, 64, 128)
        summands = tuple(np.concatenate([s, s], axis=1) for s in summands)
    protocol = of(0, shape, Cut(bits, shift, cut), bits, 0, min(cut - 2, 30), sizes, 64 if kind == "clip" else None)
    if kind in SLOPED:
        protocol = dataclasses.replace(protocol, **(COARSE if shift > 16 else SLOPED)[kind])
    if to_client:
        protocol = dataclasses.replace(protocol, to_client=True)
    (_, u, _), trio = run(protocol, summands)
    word = cut if of is LateRelu else bits  # of the gate
    lifted = (
        ((bits, bits - cut), (bits - cut,)) if protocol.both or of is LateRelu else ()
    )  # what the value itself, or the late lift, takes
    if of is QuickRelu:
        lifted += (bits, bits), (bits,) * protocol.gate.classes  # ciphertexts and labels
    mine = received_bits(trio.online[0].sent, (word,), *lifted)
    at_client = received_bits(trio.online[1].sent, (cut,))
    told = [received_bits(trio.told[0].sent)] if to_client else []
    assert_uniform(np.concatenate([at_client, *told]), np.concatenate([mine, drawn_bits(trio.streams["CP"], bits, word)]))
    carries = word - cut + (protocol.slopes.bits if protocol.slopes else 0)
    assert carries <= (32 if protocol.gate.slopes else 16), "what masks them is as long"
    lift = (word, word, carries, carries) if carries else (word, word)
    dealt, offline = received_bits(trio.dealt[0].sent, lift, (*lift, word, word), *lifted), received_bits(trio.prepared[0].sent, (cut,))
    known = np.concatenate([at_client, drawn_bits(trio.streams["SP"], bits)])  # what S sent and drew
    results = [bits_of(u[:, channel].reshape(-1), bits) for channel in range(1 + protocol.both)]
    assert_uniform(np.concatenate([dealt, offline, mine, *results]), known)
    for combine in (np.add, np.subtract):
        assert_uniform(combined_bits(combine, trio.dealt[0].sent + trio.online[0].sent, lift, (*lift, word, word), (word,), *lifted), known)


@pytest.mark.parametrize(
    "of, kind, to_client", [(Relu, "relu", True), (Relu, "blocks", False), (QuickRelu, "relu", False), (LateRelu, "clip", False)]
)
def test_relu_truncated_early_shows_nobody_anything(of, kind, to_client):
    """A narrow ring's gates lift by more than half a 32-bit mask too, where an average follows."""
    test_relu_shows_nobody_anything(of, 32, 19, 13, kind, to_client, "negative")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("bits, shift, cut", CUT_RINGS)
def test_truncation_shows_nobody_anything(bits, shift, cut, value):
    shape = (1, 1, 64, 128)
    summands = unmasked(VALUES[value] << shift, shape, bits)
    (_, u, _), trio = run(Relu(0, shape, Cut(bits, shift, cut), bits, 0, 1, ((0, 1),)), summands)
    carries, reply = received_bits(trio.online[1].sent), received_bits(trio.online[0].sent, (bits - cut,))
    assert_uniform(carries, np.concatenate([reply, drawn_bits(trio.streams["CP"], bits)]))
    dealt, offline = received_bits(trio.dealt[0].sent, (bits, bits - cut)), received_bits(trio.prepared[0].sent, (cut,))
    known = np.concatenate([carries, drawn_bits(trio.streams["SP"], bits)])
    assert_uniform(np.concatenate([dealt, offline, reply, bits_of(u.reshape(-1), bits)]), known)


@pytest.mark.parametrize("lowest", (False, True))
@pytest.mark.parametrize("square", (False, True))
@pytest.mark.parametrize("bits", (48, 32))
def test_product_shows_nobody_anything(bits, square, lowest):
    """The same factors in every element, without any mask of their own: all that pads the messages is the product's.

    At an end of the range the carry is the top bit of what masks it, which S would know it by.
    """
    (shift, cut), shape = CUTS[bits], (1, 1, 64, 128)
    word, count, end = word_of(bits), 1 if square else 2, (1 << cut - 2) - 2
    factors = [math.isqrt(end << shift)] if square else [-end, 1 << shift]
    u, nothing = [np.full(shape, x if lowest else 0).astype(word) for x in factors], [np.zeros(shape, word)] * count
    protocol, trio = Product(0, (shape,) * count, shape, Cut(bits, shift, cut)), Trio()
    protocol.deal(trio.provider, nothing)
    protocol.prepare(trio.client, nothing)
    result, _ = trio.together(lambda server: protocol.serve(server, u), protocol.infer)
    mine, at_client = received_bits(trio.online[0].sent, (bits,)), received_bits(trio.online[1].sent, (bits,), (cut,))
    assert at_client.shape[0] == count * bits + cut and mine.shape[0] == bits + 1
    words = [words for words, _ in parts_of(trio.online[1].sent, ((bits,), (cut,)))]
    opened = words[-1] + ((words[0] * words[count - 1] & word((1 << bits) - 1)) >> word(shift)).astype(words[-1].dtype)
    drawn = drawn_bits(trio.streams["CP"], bits)
    assert_uniform(at_client, np.concatenate([mine, drawn]))
    assert_uniform(bits_of(opened, cut), np.concatenate([at_client[: count * bits], drawn]))
    dealt, known = received_bits(trio.dealt[0].sent, (bits, bits - cut)), np.concatenate([at_client, drawn_bits(trio.streams["SP"], bits)])
    assert dealt.shape[0] == 2 * bits - cut
    assert_uniform(np.concatenate([dealt, mine, bits_of(result.reshape(-1), bits)]), known)
    for combine in (np.add, np.subtract):
        assert_uniform(combined_bits(combine, trio.dealt[0].sent + trio.online[0].sent, (bits, bits - cut), (bits,)), known)
        if not square:
            assert_uniform(combined_bits(combine, trio.online[1].sent, (bits,), (cut,)), drawn_bits(trio.streams["CP"], bits))


def test_product_of_factors_of_few_elements_shows_nobody_anything():
    """A factor a channel, whose message is of its own length, against a map; what both parties receive for the map."""
    bits, (shift, cut), shape = 48, CUTS[48], (1, 8192, 1, 2)
    u, nothing = [np.full(s, 5, np.uint64) for s in (shape, (1, 8192, 1, 1))], [np.zeros(s, np.uint64) for s in (shape, (1, 8192, 1, 1))]
    protocol, trio = Product(0, (shape, (1, 8192, 1, 1)), shape, Cut(bits, shift, cut)), Trio()
    protocol.deal(trio.provider, nothing)
    protocol.prepare(trio.client, nothing)
    trio.together(lambda server: protocol.serve(server, u), protocol.infer)
    words = np.empty(COUNT, np.uint64)
    _, _, (_, factor, _) = trio.online[1].sent[0]
    unpack(factor.view(np.uint8), COUNT, bits, words)
    assert_uniform(bits_of(words, bits), None)


def test_pooling_shows_nobody_anything():
    """Pairs of equal, and of opposite, numbers; two comparisons a result would not fit one tile, so one."""
    cut, shape = 32, (1, 1, 128, 128)
    truth = np.tile(np.array([5, -3], np.int64), COUNT).reshape(shape)
    summands = tuple(x.astype(np.uint32) for x in (np.zeros(shape, np.int64), truth, np.zeros(shape, np.int64)))
    _, trio = run(MaxPool(0, shape, (1, 2), (1, 2), (0,) * 4, (1, 1), cut), summands)
    mine = received_bits(trio.online[0].sent, (cut,))
    assert_uniform(received_bits(trio.online[1].sent, (cut,)), np.concatenate([mine, drawn_bits(trio.streams["CP"], cut)]))
    dealt, offline = received_bits(trio.dealt[0].sent, (cut, cut)), received_bits(trio.prepared[0].sent, (cut,))
    assert_uniform(np.concatenate([dealt, offline, mine]), drawn_bits(trio.streams["SP"], cut))


@pytest.mark.parametrize("bits", (48, 32))
def test_argmax_shows_nobody_anything_but_the_index(bits):
    """The same three channels at every position. Of the last message, which the index and its masks make up, each bit alone tells nothing."""
    (shift, cut), shape = CUTS[bits], (1, 3, 64, 128)
    word, index_bits = cut + 2, 2
    client, server, provider = unmasked(0, shape, bits)
    server += np.array([5, 9, -3], np.int64).astype(server.dtype)[None, :, None, None] << server.dtype.type(shift)
    protocol, trio = Argmax(0, shape, bits, shift), Trio()
    protocol.deal(trio.provider, provider)
    kept = protocol.prepare(trio.client, client)
    _, labels = trio.together(lambda role: protocol.serve(role, server), lambda role: protocol.infer(role, kept))
    assert (labels == 1).all()
    *comparisons, (_, _, (last,)) = trio.online[1].sent
    index = np.empty(COUNT, word_of(index_bits))
    unpack(last.view(np.uint8), COUNT, index_bits, index)
    mine = received_bits(trio.online[0].sent, (word,))
    at_client = np.concatenate([received_bits(comparisons, (word,)), bits_of(index, index_bits)])
    assert_uniform(at_client, np.concatenate([mine, drawn_bits(trio.streams["CP"], word)]))
    *dealt, (_, _, (of_index,)) = trio.dealt[0].sent
    unpack(of_index.view(np.uint8), COUNT, index_bits, index)
    at_server = [received_bits(dealt, (word, word)), bits_of(index, index_bits), received_bits(trio.prepared[0].sent, (word,)), mine]
    assert_uniform(np.concatenate(at_server), np.concatenate([at_client, drawn_bits(trio.streams["SP"], word)]))


@pytest.mark.parametrize("bits", (48, 32))
def test_input_and_output_show_the_server_nothing(bits):
    word, shape = word_of(bits), (1, 1, 64, 128)
    step, trio = Input(0, shape, bits), Trio()
    d = step.mask(trio.client, trio.client.with_provider)
    trio.together(step.serve, lambda client: step.infer(client, np.full(shape, 77, word), d))
    assert_uniform(received_bits(trio.online[0].sent, (bits,)), None)
    Output(1, COUNT, bits, 4).deal(trio.provider, np.full(COUNT, 99, word))
    assert_uniform(received_bits(trio.dealt[0].sent, (bits,)), None)


@pytest.mark.parametrize("bits", (48, 32))
def test_masked_weights_show_the_client_nothing(bits):
    stream = Keystream(new_key())
    stream.begin_attempt(0)
    layer = Linear(0, (1, 64, 1, 1), (64, 128, 1, 1), (1, 1), (0,) * 4, (1, 1), 1, bits)
    message = layer.mask_weights(stream, np.full((64, 128, 1, 1), 3, word_of(bits)))
    assert_uniform(received_bits([(0, "setup", [message])], (bits,)), None)


# The same keys, different inputs

NETWORKS = {
    "residual": (residual, None),
    "mobile": (mobile, None),
    "gated": (gated, None),
    "blocks": (residual, (2, 3)),
    "told": (residual, None),
}


def run_with(images, build, patch, bits, told=False):
    graph, weights = build()
    sizes = {n.name: (patch,) * (n.shape[0] - 2) + ((0, 1), (1, 0)) for n in graph.nodes if n.kind == "relu"} if patch else None
    deciding = [node.name for node in graph.nodes if told and node.kind in DECIDING]
    plan = schedule(graph, Precision.default(bits), sizes, batch=len(images), to_client=deciding)
    trio = network_trio(plan, weights, keys=(CP, SP), weight_key=WEIGHTS)
    logits = run_network(trio, plan, images)
    return trio, plan, logits


@pytest.mark.parametrize("bits", (48, 32))
@pytest.mark.parametrize("name", NETWORKS)
def test_under_the_same_keys_only_online_messages_know_the_input(name, bits):
    build, patch = NETWORKS[name]
    shape = build()[0].input.shape
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, *shape)), np.zeros((2, *shape)), rng.normal(size=(2, *shape))
    trios, _, logits = zip(*(run_with(x, build, patch, bits, name == "told") for x in inputs))
    assert bool(trios[0].told[0].sent) == (name == "told")
    assert not np.allclose(logits[0], logits[2])
    one, *others = trios
    for other in others:
        assert one.dealt[0].bytes_sent() == other.dealt[0].bytes_sent(), "P to S"
        assert one.told[0].bytes_sent() == other.told[0].bytes_sent(), "P to C"
        assert one.prepared[0].bytes_sent() == other.prepared[0].bytes_sent(), "C to S, offline"
        assert one.prepared[1].bytes_sent() == other.prepared[1].bytes_sent(), "S to C, setup"
        for here, there in zip(one.online, other.online):
            layout = lambda channel: [(op, phase, [p.shape for p in parts]) for op, phase, parts in channel.sent]
            assert layout(here) == layout(there), "sizes and order are public"
            assert here.bytes_sent() != there.bytes_sent()
    for trio in trios:
        for ends in (trio.dealt, trio.told):
            assert not ends[1].sent and ends[0].receptions == 0, "P hears nothing"
        assert all(phase == "offline" for _, phase, _ in trio.dealt[0].sent + trio.told[0].sent + trio.prepared[0].sent)


@pytest.mark.parametrize("bits", CUTS)
def test_difference_of_two_inputs_masked_alike_is_the_inputs(bits):
    """u = x - d: one-time padded, so that two runs under one key differ by exactly the inputs' difference."""
    word, shape = word_of(bits), (1, 2, 9, 9)
    rng, step, sent = np.random.default_rng(1), Input(0, shape, bits), []
    inputs = [rng.integers(0, np.iinfo(word).max, shape, word, endpoint=True) for _ in range(2)]
    for x in inputs:
        trio = Trio(keys=(CP, SP))
        step.infer(trio.client, x, step.mask(trio.client, trio.client.with_provider))
        sent.append(step.serve(trio.server))
    assert np.array_equal(signed(sent[0] - sent[1], bits), signed(inputs[0] - inputs[1], bits))


@pytest.mark.parametrize("of", (Relu, QuickRelu))
@pytest.mark.parametrize("bits", CUTS)
def test_difference_of_two_openings_masked_alike_is_the_cut_summands(bits, of):
    (shift, cut), shape, count = CUTS[bits], (1, 2, 8, 8), 128
    rng, mask, word = np.random.default_rng(2), (1 << bits) - 1, word_of(bits)
    client, server, provider = shares(rng, rng.integers(-1000 << shift, 1000 << shift, shape), bits)
    other = rng.integers(0, np.iinfo(word).max, shape, word, endpoint=True)
    opened, results = [], []
    for z in (server, other):
        result, trio = run(of(0, shape, Cut(bits, shift, cut), bits, 0, cut - 2), (client, z, provider), keys=(CP, SP))
        x = np.empty(count, word_of(cut))
        unpack(trio.online[1].sent[0][2][0].view(np.uint8), count, cut, x)
        opened.append(x)
        results.append(result)
    rounded = lambda z: ((z.reshape(-1).astype(object) + (1 << shift - 1)) & mask) >> shift
    wanted = (rounded(server) - rounded(other)) % 2**cut
    assert np.array_equal((opened[0].astype(object) - opened[1].astype(object)) % 2**cut, wanted)
    assert np.array_equal(results[0][0], results[1][0]), "the mask of the result is drawn before the input exists"


def test_difference_of_two_outputs_masked_alike_is_the_summands():
    bits, shift, count = 48, 16, 64
    rng, step, sent = np.random.default_rng(3), Output(0, count, bits, shift), []
    summands = rng.integers(0, 1 << 47, (2, count), np.uint64) >> np.uint64(shift) << np.uint64(shift)
    for z in summands:
        trio = Trio(keys=(CP, SP))
        step.deal(trio.provider, np.zeros(count, np.uint64))
        step.serve(trio.server, z)
        words = np.empty(count, np.uint64)
        unpack(trio.online[1].sent[0][2][0].view(np.uint8), count, bits - shift, words)
        sent.append(words)
    wanted = (summands[0] - summands[1]) >> np.uint64(shift)
    assert np.array_equal((sent[0] - sent[1]) % 2 ** (bits - shift), wanted % 2 ** (bits - shift))


@pytest.mark.parametrize("bits", (48, 32))
def test_low_bits_of_the_result_stay_with_the_server(bits):
    """What C decodes has below `shift` bits what it chose itself before the input existed; a network's result has as many fewer as a product."""
    shift, count = CUTS[bits][0], 640
    rng, step, trio = np.random.default_rng(bits), Output(0, count, bits, shift), Trio()
    summands = rng.integers(0, np.iinfo(word_of(bits)).max, (3, count), word_of(bits), endpoint=True)
    step.deal(trio.provider, summands[0])
    kept = step.prepare(trio.client, summands[1])
    _, result = trio.together(lambda server: step.serve(server, summands[2]), lambda client: step.infer(client, kept))
    assert not ((result - kept) % 2**shift).any()
    assert sum(part.nbytes for part in trio.online[1].sent[-1][2]) == count // 8 * (bits - shift)

    graph, weights = mobile()
    plan = schedule(graph, Precision.default(bits))
    trio = network_trio(plan, weights)
    run_network(trio, plan, np.ones((1, *graph.input.shape)))
    op, _, (message,) = trio.online[1].sent[-1]
    assert op == plan.steps[-1].op and message.nbytes == packed_bytes(graph.nodes[-1].shape[0], {48: 32, 32: 21}[bits])


def test_output_is_all_that_the_last_message_tells():
    """The client's last message and what it kept differ in the logits alone: another summand of the same value gives the same message."""
    bits, shift, count = 48, 16, 64
    rng, step, seen = np.random.default_rng(4), Output(0, count, bits, shift), []
    value, client = rng.integers(0, 1 << 40, count, np.uint64), rng.integers(0, 1 << 47, count, np.uint64)
    for provider in rng.integers(0, 1 << 47, (2, count), np.uint64):
        trio = Trio(keys=(CP, SP))
        step.deal(trio.provider, provider)
        step.serve(trio.server, value - client + provider)
        seen.append(trio.online[1].bytes_sent())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("role", ("provider", "client", "server"))
def test_no_attempt_runs_twice(role):
    """Every party refuses on its own to draw a position again."""
    net = Builder(2, 6, 6)
    graph, weights = net.output(net.conv(net.relu(net.maxpool(net.clip(net.conv("input", 3)))), 2))
    plan = schedule(graph, Precision())
    trio = network_trio(plan, weights)
    run_network(trio, plan, np.ones((1, *graph.input.shape)))
    relu = next(step for step in plan.steps if step.kind == "clip")
    zeros, opening = np.zeros(relu.result.shape, np.uint64), relu.protocol.opening
    again = {
        "provider": lambda: relu.protocol.deal(trio.provider, zeros),
        "client": lambda: relu.protocol.prepare(trio.client, zeros),
        "server": lambda: opening.serve(trio.server, zeros.reshape(-1), np.zeros(opening.message_bytes, np.uint8)),
    }
    with pytest.raises(RunError, match="used twice"):
        again[role]()
    for stream in trio.streams.values():
        with pytest.raises(RunError, match="attempts only increase"):
            stream.begin_attempt(0)


@pytest.mark.parametrize("of", (Relu, QuickRelu, LateRelu))
def test_attempts_share_no_word(of):
    """Two attempts under the same keys draw different words everywhere."""
    shape, summands = (1, 1, 16, 16), shares(np.random.default_rng(0), np.full((1, 1, 16, 16), 1 << 20), 48)
    words = []
    for attempt in (0, 1, 7):
        _, trio = run(of(0, shape, Cut(48, 16, 32), 48, 0, 30), summands, keys=(CP, SP), attempt=attempt)
        words += [a.view("V16") for name in ("CP", "SP") for _, a in trio.streams[name].drawn]
    blocks = np.concatenate(words)
    assert len(np.unique(blocks)) == len(blocks)


@pytest.mark.parametrize("build", (mobile, residual))
def test_instructions_and_library_make_one_transcript(build, monkeypatch):
    """What kernels draw with the processor's instructions, and where the library draws for them, which refuses a word too many."""
    (graph, weights), sent = build(), []
    sizes = {node.name: ((2, 2), (0, 1)) * (node.shape[0] // 2) for node in graph.nodes if node.kind == "relu"}
    plan = schedule(graph, Precision(), sizes)
    for agree in (prf.instructions_agree(), False):
        monkeypatch.setattr(prf, "instructions_agree", lambda agree=agree: agree)
        trio = network_trio(plan, weights, keys=(CP, SP), weight_key=WEIGHTS)
        run_network(trio, plan, np.ones((1, *graph.input.shape)))
        sent.append([end.bytes_sent() for pair in (trio.dealt, trio.prepared, trio.online) for end in pair])
    assert sent[0] == sent[1] and any(sent[0])
