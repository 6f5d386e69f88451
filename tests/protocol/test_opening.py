"""Masked openings: x - r is the value, cut, for every value and every summand; half of what is checked here is that nothing wraps."""

import numpy as np
import pytest

from tests.protocol.harness import CUTS, Trio, shares, signed, values_up_to
from threepc.kernels.gate import Cut
from threepc.prf import Purpose
from threepc.protocol.opening import Opening, draw_words


def open_values(opening, truth, seed=0, **options):
    """x at C, x at S, r at P and the two messages for values of the ring."""
    rng, trio = np.random.default_rng(seed), Trio(**options)
    client, server, provider = shares(rng, truth, opening.cut.bits)
    r = opening.deal(trio.provider, provider)
    half = opening.prepare(trio.client, client)
    x, message = opening.serve(trio.server, server, half)
    return opening.infer(trio.client, message), x, r, half, message


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", CUTS)
def test_difference_of_opened_value_and_mask_is_the_cut_value(bits, threads):
    (shift, cut), count = CUTS[bits], 33000
    truth = values_up_to(np.random.default_rng(bits), (1 << bits - 1) - 1, count)
    mine, theirs, r, half, message = open_values(Opening(3, count, Cut(bits, shift, cut)), truth, threads=threads)
    mask = np.uint64((1 << cut) - 1)
    assert np.array_equal(mine[:count].astype(np.uint64) & mask, theirs[:count].astype(np.uint64) & mask)
    assert half.nbytes == message.nbytes == Opening(3, count, Cut(bits, shift, cut)).message_bytes == -(-count // 64) * 8 * cut
    # modulo 2^cut: at the ring's very end a rounding may step over, as the exact value does
    error = signed((theirs - r)[:count], cut) - truth / 2.0**shift
    error -= np.rint(error / 2.0**cut) * 2.0**cut
    assert np.abs(error).max() < 1.5
    inside = np.abs(truth) < (1 << bits - 2)
    assert np.abs((signed((theirs - r)[:count], cut) - truth / 2.0**shift)[inside]).max() < 1.5, "no value inside the bound wraps"


@pytest.mark.parametrize("bits", CUTS)
def test_without_a_cut_openings_are_exact(bits):
    truth = values_up_to(np.random.default_rng(1), (1 << bits - 1) - 1, 500)
    _, x, r, *_ = open_values(Opening(0, 500, Cut(bits, 0, bits)), truth)
    assert np.array_equal(signed((x - r)[:500], bits), truth)


@pytest.mark.parametrize("bits", CUTS)
def test_error_has_mean_zero_for_every_remainder(bits):
    """Unbiased also for values whose low bits are always the same, such as multiples of the unit or halves of it."""
    (shift, cut), count = CUTS[bits], 40000
    for remainder in (0, 1, 1 << shift - 1, (1 << shift) - 1):
        truth = np.full(count, (5 << shift) + remainder, np.int64)
        _, x, r, *_ = open_values(Opening(0, count, Cut(bits, shift, cut)), truth, seed=remainder)
        error = signed((x - r)[:count], cut) - truth / 2.0**shift
        assert abs(error.mean()) < 8 * 0.5 / np.sqrt(count), remainder


def test_activations_are_the_same_words_at_client_and_provider():
    trio = Trio()
    at_client = draw_words(trio.client, trio.client.with_provider, 7, Purpose.ACTIVATION, 40000, np.uint64)
    at_provider = draw_words(trio.provider, trio.provider.with_client, 7, Purpose.ACTIVATION, 40000, np.uint64)
    assert np.array_equal(at_client, at_provider) and len(np.unique(at_client)) == at_client.size
