"""The label alone: the index of the largest channel, for any values, and nothing else in the last message."""

import numpy as np
import pytest

from tests.protocol.harness import CUTS, Trio, shares, values_up_to, without_zeros
from threepc.protocol.argmax import Argmax


def label(protocol, truth, seed=0, **options):
    """The indices that the client learns for values (N, C, H, W), and the Trio."""
    trio = Trio(**options)
    client, server, provider = shares(np.random.default_rng(seed), truth, protocol.bits)
    protocol.deal(trio.provider, provider)
    kept = protocol.prepare(trio.client, client)
    _, got = trio.together(lambda role: protocol.serve(role, server), lambda role: protocol.infer(role, kept))
    return got, trio


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("channels", (1, 2, 3, 7, 10, 100))
@pytest.mark.parametrize("bits", CUTS)
def test_index_of_the_largest(bits, channels, threads):
    rng, shift = np.random.default_rng(channels), CUTS[bits][0]
    protocol = Argmax(0, (2, channels, 3, 5), bits, shift)
    room = protocol.cut.kept_bits - 2
    # distinct after the cut, which moves a value by up to a unit and a half
    truth = np.stack([rng.permutation(np.arange(channels) - channels // 2) * 4 for _ in range(30)])
    truth[:10] <<= max(0, room - 9)
    truth = truth.reshape(2, 3, 5, channels).transpose(0, 3, 1, 2)
    got, trio = label(protocol, truth << shift, threads=threads)
    assert np.array_equal(got, truth.argmax(axis=1, keepdims=True))
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", CUTS)
def test_any_values_give_an_index_of_a_value_that_is_as_large(bits):
    rng, shift, channels = np.random.default_rng(bits), CUTS[bits][0], 6
    protocol = Argmax(0, (40, channels, 1, 1), bits, shift)
    limit = (1 << protocol.cut.kept_bits - 2 + shift) - (4 << shift)
    truth = rng.permutation(values_up_to(rng, limit, 40 * channels)).reshape(40, channels, 1, 1)
    got, _ = label(protocol, truth)
    chosen = np.take_along_axis(truth, got.astype(np.int64), axis=1)
    assert (truth.max(axis=1, keepdims=True) - chosen < 3 << shift).all()


def test_the_last_message_has_the_bits_of_an_index():
    protocol = Argmax(0, (1, 10, 8, 8), 48, 16)
    _, trio = label(protocol, np.zeros((1, 10, 8, 8), np.int64))
    *_, (_, phase, parts) = trio.online[1].sent
    assert (phase, sum(part.nbytes for part in parts)) == ("online", 64 // 8 * 4)
