"""What is opened to the server: right, at its declared cost, and nothing but the result, of whatever summands it is the sum."""

import numpy as np
import pytest

from tests.protocol.harness import CP, CUTS, SP, Trio, shares, without_zeros
from tests.protocol.uniformity import COUNT, assert_uniform, bits_of, drawn_bits, received_bits
from threepc.kernels.packing import TILE, unpack
from threepc.protocol.input_output import ServerOutput
from threepc.ring import Ring, word_of


def opened(step, summands, **options):
    """(what S decodes, signed; the Trio). summands: of client, server and provider."""
    trio = Trio(**options)
    client, server, provider = summands
    step.deal(trio.provider, provider)
    step.prepare(trio.client, client)
    return Ring(step.bits).signed(step.serve(trio.server, server)), trio


@pytest.mark.parametrize("count", (1, 70, 2 * TILE + 3))
@pytest.mark.parametrize("bits", CUTS)
def test_result_and_cost(bits, count):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    values = rng.integers(-(1 << bits - 3), 1 << bits - 3, count)
    step = ServerOutput(3, count, bits, shift)
    result, trio = opened(step, shares(rng, values, bits))
    assert np.abs(result - values).max() <= 1 << (shift - 1)
    assert trio.measured == without_zeros(step.cost) and not trio.online[0].sent + trio.online[1].sent


@pytest.mark.parametrize("bits", (48, 32))
def test_server_receives_uniform_words(bits):
    """Of equal values, all of whose summands are known; each of the two messages by itself."""
    word, shift = word_of(bits), 0
    summands = np.full(COUNT, 5, word), np.full(COUNT, 7, word), np.full(COUNT, 3, word)
    _, trio = opened(ServerOutput(0, COUNT, bits, shift), summands)
    known = drawn_bits(trio.streams["SP"], bits) if trio.streams["SP"].drawn else None
    for channel in (trio.dealt[0], trio.prepared[0]):
        assert_uniform(received_bits(channel.sent, (bits,)), known)


@pytest.mark.parametrize("bits", (48, 32))
def test_the_result_is_all_that_the_two_messages_tell(bits):
    """Another split of the same value between client and provider shifts both messages alike: what S receives is z less what it holds."""
    shift, count, rng = CUTS[bits][0], 640, np.random.default_rng(0)
    word, step = word_of(bits), ServerOutput(0, count, bits, shift)
    value, server, *splits = rng.integers(0, 1 << bits - 1, (4, count), word)
    for provider in splits:
        _, trio = opened(step, (value - server + provider, server, provider), keys=(CP, SP))
        share, upper = np.empty(count, word), np.empty(count, word)
        unpack(trio.dealt[0].sent[0][2][0].view(np.uint8), count, bits, share)
        unpack(trio.prepared[0].sent[0][2][0].view(np.uint8), count, bits - shift, upper)
        simulated = value - server + share + word(1 << shift >> 1)
        assert np.array_equal(upper, (simulated & word((1 << bits) - 1)) >> word(shift))


def test_attempts_and_sessions_share_no_mask():
    step, zeros = ServerOutput(0, COUNT, 48, 16), np.zeros(COUNT, np.uint64)
    seen = [opened(step, (zeros,) * 3, **options)[1].dealt[0].bytes_sent()[0][2] for options in ({}, {}, *TWICE)]
    assert len({parts[0] for parts in seen}) == 4


TWICE = ({"keys": (CP, SP), "attempt": 0}, {"keys": (CP, SP), "attempt": 1})


def test_client_and_provider_receive_nothing():
    _, trio = opened(ServerOutput(0, 64, 48, 16), (np.zeros(64, np.uint64),) * 3)
    assert not trio.dealt[1].sent + trio.prepared[1].sent + trio.online[1].sent


def test_statistic_would_find_a_missing_mask():
    assert bits_of(np.zeros(COUNT, np.uint64), 48).shape == (48, COUNT // 64)
    with pytest.raises(AssertionError):
        assert_uniform(bits_of(np.full(COUNT, 5, np.uint64), 48), None)
