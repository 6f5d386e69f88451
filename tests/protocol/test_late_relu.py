"""ReLU in six messages, three roles side by side, against Python's integers and against ReLU in four."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.harness import CUTS, DEEP, Trio, opened, run, shares, values_up_to, without_zeros
from tests.protocol.test_relu import RINGS, bound, check_any_mixture, measured_value_and_relu, relu, within
from threepc.kernels.gate import Cut, Slopes
from threepc.protocol.late_relu import LateRelu
from threepc.protocol.relu import Relu


def late(bits, shape, **options):
    """The same ReLU as `relu` makes, in six messages."""
    four = relu(bits, shape, **options)
    return LateRelu(**{field.name: getattr(four, field.name) for field in dataclasses.fields(LateRelu)})


@pytest.mark.parametrize("to_client", (False, True))
@pytest.mark.parametrize("bits", RINGS)
def test_relu_of_any_value_is_right_to_a_unit_and_a_half(bits, to_client):
    rng, shift, shape = np.random.default_rng(bits), CUTS[bits][0], (3, 5, 47, 47)
    truth = values_up_to(rng, bound(bits) << shift, int(np.prod(shape))).reshape(shape)
    protocol = dataclasses.replace(late(bits, shape), to_client=to_client)
    results, trio = run(protocol, shares(rng, truth, bits), threads=1 + to_client)
    assert within(opened(results, bits), np.maximum(truth, 0) / 2.0**shift)
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == 6
    assert not trio.client.kept, "what was kept is used"


@pytest.mark.parametrize("count", (1, 63, 64, 65, 16383, 16384, 16385, 32768))
def test_sizes_around_words_and_tiles(count):
    rng = np.random.default_rng(count)
    truth = values_up_to(rng, bound(48) << 16, count).reshape(1, 1, 1, count)
    protocol = late(48, truth.shape)
    results, trio = run(protocol, shares(rng, truth, 48))
    assert within(opened(results, 48), np.maximum(truth, 0) / 2.0**16)
    assert trio.measured == without_zeros(protocol.cost)


@settings(max_examples=15)
@given(st.data())
def test_any_shape_ring_and_mixture_of_patches(data):
    check_any_mixture(data, late)


@pytest.mark.parametrize("ring, kept", [(64, 33), (64, 63), (40, 39), (32, 3), DEEP[::2]])
def test_lifts_of_any_width_are_exact(ring, kept):
    """No bits are cut, and all are compared: max(z, 0) wherever a lift can stand, also at its ends."""
    rng, limit = np.random.default_rng(ring), 1 << kept - 2
    truth = values_up_to(rng, limit - 1, 500)
    truth[0] = -limit
    protocol = LateRelu(0, (1, 1, 1, 500), Cut(kept, 0, kept), ring, 0, kept - 1)
    results, trio = run(protocol, shares(rng, truth.reshape(1, 1, 1, -1), kept))
    assert np.array_equal(opened(results, ring).reshape(-1), np.maximum(truth, 0))
    assert trio.measured == without_zeros(protocol.cost)


SAME = ({}, {"sizes": ((2, 2), (1, 1))}, {"sizes": ((0, 1), (1, 0))}, {"clip": 640}, {"start": -64, "offset": 7, "clip": 128})


@pytest.mark.parametrize("options", SAME)
@pytest.mark.parametrize("bits", RINGS)
def test_six_and_four_messages_give_the_same_under_the_same_keys(bits, options):
    """The opening's masks are the same, hence the rounding, and d."""
    rng, keys, shape = np.random.default_rng(bits), (b"k" * 16, b"l" * 16), (1, 2, 30, 40)
    truth = values_up_to(rng, bound(bits, 4) // 2 << CUTS[bits][0], 2400).reshape(shape)
    summands = shares(rng, truth, bits)
    (d, u, _), trio = run(late(bits, shape, **options), summands, keys=keys)
    (same_d, same_u, _), _ = run(relu(bits, shape, **options), summands, keys=keys)
    mask = u.dtype.type((1 << bits) - 1)
    assert np.array_equal(d, same_d) and np.array_equal(u & mask, same_u & mask)
    assert trio.measured == without_zeros(late(bits, shape, **options).cost)


@pytest.mark.parametrize("bits", RINGS)
def test_a_value_and_its_relu_from_one_opening(bits):
    assert measured_value_and_relu(bits, late).messages == 6


@pytest.mark.parametrize("options", SAME)
def test_what_the_client_keeps_is_what_is_declared(options):
    protocol, trio = late(48, (1, 2, 30, 40), **options), Trio()
    protocol.prepare(trio.client, np.zeros(protocol.shape, np.uint64))
    assert sum(part.nbytes for parts in trio.client.kept.values() for part in parts) == protocol.kept_bytes


def test_it_is_dealt_a_quarter_less():
    six, four = (of(0, (1, 1, 64, 64), Cut(32, 11, 21), 32, 0, 15).cost.offline["provider->server"] for of in (LateRelu, Relu))
    assert six < 0.75 * four


@pytest.mark.parametrize("options", ({"slopes": Slopes(1, 2, 1)}, {"ring": 32}, {"ring": 64, "cut": Cut(32, 0, 32)}))
def test_what_cannot_be_lifted_late_is_refused(options):
    fields = {"op": 0, "shape": (1, 1, 1, 1), "cut": Cut(48, 16, 32), "ring": 48, "low_bit": 0, "width": 30} | options
    with pytest.raises(ValueError, match="four messages"):
        LateRelu(**fields)
