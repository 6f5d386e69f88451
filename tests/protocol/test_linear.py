"""Linear layers, input and output."""

import numpy as np
import pytest

from tests.kernels.test_convolution import definition
from tests.protocol.harness import CUTS, WEIGHTS, Trio, signed, without_zeros
from threepc.kernels.packing import packed_bytes
from threepc.prf import Keystream
from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Input, Output
from threepc.protocol.linear import Linear
from threepc.ring import Ring, word_of


def key(attempt=0, secret=WEIGHTS):
    stream = Keystream(secret)
    stream.begin_attempt(attempt)
    return stream


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", CUTS)
@pytest.mark.parametrize(
    "groups, weight_shape, padding, stride, dilation",
    [
        (1, (5, 3, 3, 3), (1, 1, 1, 1), (1, 1), (1, 1)),
        (3, (6, 1, 3, 3), (0, 2, 1, 0), (2, 1), (1, 2)),
        (1, (10, 3, 1, 1), (0, 0, 0, 0), (1, 1), (1, 1)),
    ],
)
def test_three_summands_give_the_layer(bits, threads, groups, weight_shape, padding, stride, dilation):
    rng, word = np.random.default_rng(bits), word_of(bits)
    random = lambda shape: rng.integers(0, np.iinfo(word).max, shape, word, endpoint=True)
    x, d, weight, bias = random((2, 3, 9, 8)), random((2, 3, 9, 8)), random(weight_shape), random(weight_shape[0])
    wanted = definition(x, weight, groups, stride, padding, dilation, bias) % 2**bits
    layer = Linear(6, wanted.shape, weight_shape, stride, padding, dilation, groups, bits)
    message = layer.mask_weights(key(), weight)
    at_client = layer.apply(layer.client_weights(message), d, None, threads)
    at_provider = layer.apply(layer.provider_weights(key()), d, None, threads)
    at_server = layer.apply(layer.server_weights(weight), x - d, bias, threads)
    np.testing.assert_array_equal((at_client + at_server - at_provider).astype(object) % 2**bits, wanted)
    assert message.nbytes == layer.mask_bytes
    assert layer.cost == Cost(setup={"server->client": packed_bytes(weight.size, bits)}) and layer.cost.messages == 0


def test_masked_weights_of_two_layers_share_no_mask():
    """Equal weights of two ops, or under two keys, look unlike each other."""
    weight = np.zeros((64, 64, 1, 1), np.uint64)
    layer = lambda op: Linear(op, (1, 64, 1, 1), weight.shape, (1, 1), (0, 0, 0, 0), (1, 1), 1, 64)
    pairs = (0, WEIGHTS), (1, WEIGHTS), (0, b"m" * 16)
    messages = [layer(op).mask_weights(key(secret=secret), weight).view(np.uint64) for op, secret in pairs]
    assert len(np.unique(np.concatenate(messages))) == 3 * 4096


def test_a_weight_mask_is_drawn_once_from_a_key():
    layer, stream = Linear(0, (1, 4, 1, 1), (4, 4, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1, 48), key()
    layer.mask_weights(stream, np.zeros((4, 4, 1, 1), np.uint64))
    with pytest.raises(Exception, match="used twice"):
        layer.mask_weights(stream, np.ones((4, 4, 1, 1), np.uint64))


@pytest.mark.parametrize("bits", CUTS)
def test_input_reaches_the_server_masked(bits):
    rng, word = np.random.default_rng(bits), word_of(bits)
    x = rng.integers(0, np.iinfo(word).max, (2, 3, 7, 5), word, endpoint=True)
    step, trio = Input(0, x.shape, bits), Trio()
    d, at_provider = step.mask(trio.client, trio.client.with_provider), step.mask(trio.provider, trio.provider.with_client)
    u, _ = trio.together(step.serve, lambda client: step.infer(client, x, d))
    assert np.array_equal(d, at_provider)
    assert np.array_equal(signed(u + d, bits), signed(x, bits))
    assert trio.measured == without_zeros(step.cost)


@pytest.mark.parametrize("shift", (0, 1, 12, 16))
@pytest.mark.parametrize("bits", CUTS)
def test_output_is_decoded_by_the_client(bits, shift):
    rng, word, count = np.random.default_rng(shift), word_of(bits), 1000
    limit = min((1 << bits - 2) - (1 << shift), 1 << 50)  # the result is a float
    truth = rng.integers(-limit, limit, count)
    random = lambda: rng.integers(0, np.iinfo(word).max, count, word, endpoint=True)
    z_client, z_provider = random(), random()
    z_server = truth.astype(word) - z_client + z_provider
    step, trio = Output(2, count, bits, shift), Trio()
    step.deal(trio.provider, z_provider)
    kept = step.prepare(trio.client, z_client)
    _, got = trio.together(lambda server: step.serve(server, z_server), lambda client: step.infer(client, kept))
    assert np.abs(Ring(bits).signed(got) - truth).max() <= (1 << shift) / 2
    assert trio.measured == without_zeros(step.cost)
