"""ReLU in all its kinds, three roles side by side, against Python's integers."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.harness import CUTS, DEEP, opened, run, shares, values_up_to, without_zeros
from threepc.graph.block_relu import BlockReLU
from threepc.kernels.gate import Cut, Slopes
from threepc.protocol.relu import Relu

RINGS = tuple(bits for bits in CUTS if bits != 28)
"""Of those below 32 bits the narrowest."""


def relu(bits, shape, **options):
    shift, cut = CUTS[bits]
    return Relu(0, shape, Cut(bits, shift, cut), bits, **({"low_bit": 0, "width": min(cut - 2, 30)} | options))


def bound(bits, terms=1):
    """The largest size of a value, in units of the last place, that leaves room for its rounding; for sums of `terms` values."""
    return (1 << min(CUTS[bits][1] - 2, 30)) // terms - 2


def within(got, wanted, units=1.5):
    """Whether every error is below `units` of the last place."""
    return np.abs(got - wanted).max(initial=0) < units


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", RINGS)
def test_relu_of_any_value_is_right_to_a_unit_and_a_half(bits, threads):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    shape = (3, 5, 47, 47)  # 33,135 elements: two full tiles and a part that is no multiple of 64
    truth = values_up_to(rng, bound(bits) << shift, int(np.prod(shape))).reshape(shape)
    results, trio = run(relu(bits, shape), shares(rng, truth, bits), threads=threads)
    exact = np.maximum(truth, 0) / 2.0**shift
    assert within(opened(results, bits), exact)
    assert trio.measured == without_zeros(relu(bits, shape).cost)


@pytest.mark.parametrize(
    "options", ({}, {"clip": 64}, {"both": True}, {"slopes": Slopes(102, 1024, 10)}, {"sizes": ((2, 3), (1, 1), (0, 1))})
)
def test_deeper_truncations_are_as_right(options):
    """More bits are lifted than one half of a 32-bit word masks."""
    (bits, shift, cut), rng, shape = DEEP, np.random.default_rng(3), (2, 3, 65, 67)
    protocol = Relu(0, shape, Cut(bits, shift, cut), bits, 0, cut - 2, **options)
    truth = rng.integers(-(1 << cut - 5 + shift), 1 << cut - 5 + shift, shape)
    results, trio = run(protocol, shares(rng, truth, bits))
    got, exact = opened(results, bits), truth / 2.0**shift
    assert trio.measured == without_zeros(protocol.cost)
    if "sizes" in options:
        check_block(got, truth, options["sizes"], shift, 1)
    elif "both" in options:
        assert within(got[:, ::2], np.maximum(exact, 0)) and within(got[:, 1::2], exact)
    elif "slopes" in options:
        assert within(got, np.where(exact < 0, exact * 102 / 1024, exact), 3)
    else:
        assert within(got, np.clip(exact, 0, options.get("clip")), 3)


@pytest.mark.parametrize(
    "options", ({}, {"clip": 64}, {"sizes": ((1, 1), (2, 3), (0, 1), (1, 0), (1, 1))}), ids=("plain", "clip", "blocks")
)
@pytest.mark.parametrize("threads", (1, 2))
def test_the_client_may_be_told_its_share_of_the_planes(threads, options):
    """Three tiles; what P says to either party is another number of bytes, and their sum stays."""
    rng, shape, (shift, _) = np.random.default_rng(3), (3, 5, 47, 47), CUTS[48]
    truth = values_up_to(rng, bound(48, 8) << shift, int(np.prod(shape))).reshape(shape)
    usual = relu(48, shape, **options)
    protocol = dataclasses.replace(usual, to_client=True)
    results, trio = run(protocol, shares(rng, truth, 48), threads=threads)
    sizes = options.get("sizes", ((1, 1),) * 5)
    check_block(opened(results, 48), truth, sizes, shift, 1, options.get("clip"))
    assert trio.measured == without_zeros(protocol.cost)
    assert protocol.cost.offline["provider->client"] == protocol.drelu.dealt_bytes
    assert (protocol.cost.online, protocol.cost.messages) == (usual.cost.online, usual.cost.messages)
    assert protocol.cost.total("offline") == usual.cost.total("offline") and not trio.client.kept


def test_a_layer_that_decides_nothing_tells_the_client_nothing():
    protocol = dataclasses.replace(relu(48, (1, 2, 5, 5), sizes=((0, 1), (1, 0))), to_client=True)
    rng = np.random.default_rng(0)
    _, trio = run(protocol, shares(rng, rng.integers(-100, 100, (1, 2, 5, 5)) << 16, 48))
    assert trio.measured == without_zeros(protocol.cost) and "provider->client" not in protocol.cost.offline


@pytest.mark.parametrize("bits", RINGS)
def test_rounding_is_unbiased(bits):
    rng, shift = np.random.default_rng(1), CUTS[bits][0]
    shape = (1, 1, 128, 128)
    truth = rng.integers(1 << shift, bound(bits) << shift, shape)
    results, _ = run(relu(bits, shape), shares(rng, truth, bits))
    error = opened(results, bits) - truth / 2.0**shift
    # three uniform rounding errors: variance 3/12; eight standard deviations of the mean
    assert abs(error.mean()) < 8 * 0.5 / np.sqrt(error.size)
    assert 0.4 < error.std() < 0.6


@pytest.mark.parametrize("count", (1, 63, 64, 65, 16383, 16384, 16385, 32768))
def test_sizes_around_words_and_tiles(count):
    rng = np.random.default_rng(count)
    truth = values_up_to(rng, bound(48) << 16, count).reshape(1, 1, 1, count)
    results, trio = run(relu(48, truth.shape), shares(rng, truth, 48))
    assert within(opened(results, 48), np.maximum(truth, 0) / 2.0**16)
    assert trio.measured == without_zeros(relu(48, truth.shape).cost)


@pytest.mark.parametrize("bits", RINGS)
def test_threads_do_not_change_a_bit(bits):
    keys, shape = (b"k" * 16, b"l" * 16), (1, 3, 128, 129)
    rng = np.random.default_rng(0)
    truth = values_up_to(rng, bound(bits) << CUTS[bits][0], int(np.prod(shape))).reshape(shape)
    summands = shares(rng, truth, bits)
    sizes = ((2, 3), (1, 1), (0, 1))
    (_, one, _), first = run(relu(bits, shape, sizes=sizes, clip=64), summands, keys=keys, threads=1)
    (_, two, _), second = run(relu(bits, shape, sizes=sizes, clip=64), summands, keys=keys, threads=2)
    assert np.array_equal(one, two)
    for a, b in ((first.dealt, second.dealt), (first.prepared, second.prepared), (first.online, second.online)):
        assert [end.bytes_sent() for end in a] == [end.bytes_sent() for end in b]


@settings(max_examples=25)
@given(st.data())
def test_any_shape_ring_and_mixture_of_patches(data):
    check_any_mixture(data, relu)


def check_any_mixture(data, protocol_of):
    """A layer of any shape, ring and mixture of patches. protocol_of: makes one, of bits, shape and sizes."""
    bits = data.draw(st.sampled_from(RINGS))
    shape = tuple(data.draw(st.integers(1, most)) for most in (2, 4, 9, 9))
    kinds = st.one_of(st.just((1, 1)), st.just((1, 0)), st.just((0, 1)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
    sizes = tuple(data.draw(kinds) for _ in range(shape[1]))
    rng, shift = np.random.default_rng(data.draw(st.integers(0, 2**32))), CUTS[bits][0]
    truth = values_up_to(rng, bound(bits, 25) << shift, int(np.prod(shape)))
    truth = rng.permutation(truth).reshape(shape)
    protocol = protocol_of(bits, shape, sizes=sizes)
    results, trio = run(protocol, shares(rng, truth, bits))
    check_block(opened(results, bits), truth, sizes, shift, 1 << 0)
    assert trio.measured == without_zeros(protocol.cost)


def check_block(got, truth, sizes, shift, unit, clip=None):
    """Compare with the trained module wherever a patch's sum is clearly not zero (each pixel confuses it by less than two units)."""
    exact = truth / 2.0**shift
    module = BlockReLU(np.array(sizes), clip)
    wanted = module(torch.from_numpy(exact)).numpy()
    for channel, (h, w) in enumerate(sizes):
        clear = np.ones(truth.shape[2:], bool)[None].repeat(len(truth), 0)
        for offset in {0, clip or 0}:
            clear &= ~confused(exact[:, channel] - offset, h, w, unit)
        error = np.abs(got[:, channel] - wanted[:, channel])[clear]
        assert error.max(initial=0) < (3 if clip else 1.5), (channel, h, w)


def confused(exact, h, w, unit):
    """Pixels (N, H, W) whose patch's sum is within what cuts and rounding can change."""
    result = np.zeros(exact.shape, bool)
    if h and w:
        for i in range(0, exact.shape[1], h):
            for j in range(0, exact.shape[2], w):
                patch = exact[:, i : i + h, j : j + w]
                margin = patch[0].size * (unit + 1.5)
                result[:, i : i + h, j : j + w] = (np.abs(patch.sum((1, 2))) <= margin)[:, None, None]
    return result


@pytest.mark.parametrize("bits", RINGS)
def test_block_relu_on_a_map_of_several_tiles(bits):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    shape, sizes = (2, 6, 61, 67), ((3, 4), (1, 1), (1, 0), (0, 1), (61, 67), (2, 1))
    truth = rng.integers(-(1 << 4 + shift), (1 << 4 + shift), shape)
    protocol = relu(bits, shape, sizes=sizes)
    results, trio = run(protocol, shares(rng, truth, bits))
    check_block(opened(results, bits), truth, sizes, shift, 1)
    assert protocol.drelu.count == 2 * (21 * 17 + 61 * 67 + 1 + 31 * 67)
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("sizes, messages", [(((1, 0),) * 2, 0), (((0, 1),) * 2, 2), (((1, 0), (0, 1)), 2), (((1, 0), (1, 1)), 4)])
@pytest.mark.parametrize("clip", (None, 100))
def test_layers_that_decide_nothing_or_little(sizes, messages, clip):
    rng, shape = np.random.default_rng(5), (1, 2, 3, 5)
    truth = values_up_to(rng, bound(48) // 2 << 16, 30).reshape(shape)
    protocol = relu(48, shape, sizes=sizes, clip=clip)
    results, trio = run(protocol, shares(rng, truth, 48))
    check_block(opened(results, 48), truth, sizes, 16, 1, clip)
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == messages


@pytest.mark.parametrize("bits", RINGS)
def test_clip_of_any_value(bits):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    shape, maximum = (1, 2, 70, 130), bound(bits) // 8
    truth = values_up_to(rng, (bound(bits) - maximum) << shift, int(np.prod(shape))).reshape(shape)
    protocol = relu(bits, shape, clip=maximum)
    results, trio = run(protocol, shares(rng, truth, bits))
    assert within(opened(results, bits), np.clip(truth / 2.0**shift, 0, maximum))
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == 4


SLOPED = {
    "leaky": {"slopes": Slopes(655, 65536, 16)},
    "abs": {"slopes": Slopes(-1, 1, 0)},
    "steep": {"slopes": Slopes(-5, 7, 1)},
    "at most": {"start": 40, "offset": 40, "slopes": Slopes(1, 0, 0)},
    "at least": {"start": -40, "offset": -40},
    "between": {"start": -60, "offset": -60, "clip": 90},
    "hardsigmoid": {"start": -300, "offset": 0, "clip": 600, "slopes": Slopes(0, 2731, 14)},
    "falling": {"start": -50, "offset": 70, "clip": 100, "slopes": Slopes(0, -3, 1)},
}


def piecewise(x, start=0, offset=0, clip=None, slopes=None):
    slopes = slopes or Slopes(0, 1, 0)
    x = np.minimum(x - start, np.inf if clip is None else clip)
    return offset + np.where(x < 0, slopes.below, slopes.above) * x / 2.0**slopes.bits


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("name", SLOPED)
def test_slopes_and_bounds_of_any_kind(bits, name):
    """To the cut's unit and a half, times the slope, and a unit."""
    options, rng, shift = (
        SLOPED[name] | ({"slopes": Slopes(164, 16384, 14)} if name == "leaky" and bits in (64, 24) else {}),
        np.random.default_rng(bits),
        CUTS[bits][0],
    )
    shape = (1, 3, 60, 110)
    truth = values_up_to(rng, (bound(bits) - 1000) << shift, int(np.prod(shape)))
    truth[:6000] = rng.integers(-100 << shift, 100 << shift, 6000)
    truth = truth.reshape(shape)
    protocol = relu(bits, shape, **options)
    results, trio = run(protocol, shares(rng, truth, bits))
    steepest = max(1.0, 3.5 * (name == "steep"), 1.5 * (name == "falling"))
    assert within(opened(results, bits), piecewise(truth / 2.0**shift, **options), 1.5 * steepest + 1)
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == 4


@pytest.mark.parametrize("bits", RINGS)
def test_a_value_and_its_relu_from_one_opening(bits):
    assert measured_value_and_relu(bits, relu).messages == 4


def measured_value_and_relu(bits, protocol_of):
    """Checks a value and its ReLU from one opening; what they took. protocol_of: makes the layer, of bits and shape."""
    rng, shift, shape = np.random.default_rng(bits), CUTS[bits][0], (2, 3, 60, 110)
    truth = values_up_to(rng, bound(bits) << shift, int(np.prod(shape))).reshape(shape)
    protocol = protocol_of(bits, shape, both=True)
    results, trio = run(protocol, shares(rng, truth, bits))
    got = opened(results, bits).reshape(2, 3, 2, 60, 110)
    assert within(got[:, :, 0], np.maximum(truth, 0) / 2.0**shift) and within(got[:, :, 1], truth / 2.0**shift)
    assert np.array_equal(got[:, :, 0], np.maximum(got[:, :, 1], 0)), "one opening"
    assert trio.measured == without_zeros(protocol.cost)
    return trio.measured


def test_a_clip_has_no_slope_below():
    with pytest.raises(ValueError, match="constant below"):
        relu(48, (1, 1, 1, 1), clip=3, slopes=Slopes(1, 1, 0))


@pytest.mark.parametrize("bits", RINGS)
def test_clip_of_blocks(bits):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    shape, sizes, maximum = (2, 4, 9, 7), ((2, 2), (1, 1), (0, 1), (3, 1)), bound(bits) // 32
    truth = rng.integers(-(2 * maximum << shift), 2 * maximum << shift, shape)
    results, _ = run(relu(bits, shape, sizes=sizes, clip=maximum), shares(rng, truth, bits))
    check_block(opened(results, bits), truth, sizes, shift, 1, maximum)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("sizes", (None, ((1, 1), (2, 2))))
def test_window_that_drops_low_bits_may_confuse_small_values_only(bits, sizes):
    rng, (shift, cut) = np.random.default_rng(bits), CUTS[bits]
    first, shape = 5, (1, 2, 64, 64)
    high = cut - 6
    truth = values_up_to(rng, (1 << high - 2) << shift, int(np.prod(shape))).reshape(shape)
    truth = rng.permutation(truth.reshape(-1)).reshape(shape)
    protocol = relu(bits, shape, low_bit=first, width=high - first, sizes=sizes)
    results, _ = run(protocol, shares(rng, truth, bits))
    check_block(opened(results, bits), truth, sizes or ((1, 1),) * 2, shift, 1 << first)
    if sizes is None:
        small = np.abs(truth) < 1 << shift + first
        got = opened(results, bits)[small]
        exact = truth[small] / 2.0**shift
        assert (np.minimum(np.abs(got), np.abs(got - exact)) < 1.5).all(), "a wrong sign still gives 0 or the value itself"


@pytest.mark.parametrize("bits", RINGS)
def test_values_outside_a_narrow_window_keep_their_size(bits):
    """The decision may be wrong there, the gate is not: the result is 0 or the value."""
    rng, (shift, cut) = np.random.default_rng(bits), CUTS[bits]
    shape, width = (1, 1, 64, 64), cut - 8
    truth = rng.integers(-(1 << cut - 3 + shift), 1 << cut - 3 + shift, shape)
    got, exact = opened(run(relu(bits, shape, width=width), shares(rng, truth, bits))[0], bits), truth / 2.0**shift
    assert (np.minimum(np.abs(got), np.abs(got - exact)) < 1.5).all()
    inside = np.abs(exact) < (1 << width) - 2
    assert within(got[inside], np.maximum(exact, 0)[inside])


def test_channels_in_another_order_than_kinds():
    """Split and join put every channel back in its place."""
    rng, sizes = np.random.default_rng(3), ((0, 1), (1, 1), (1, 0), (2, 2), (0, 1), (1, 0), (1, 1))
    shape = (3, 7, 4, 6)
    truth = np.sign(rng.normal(size=shape)).astype(np.int64) * (np.arange(1, 8)[:, None, None] << 20)
    truth[:, 3] = np.abs(truth[:, 3])
    got = opened(run(relu(48, shape, sizes=sizes), shares(rng, truth, 48))[0], 48)
    passed, decided = (np.array(channels)[:, None, None] for channels in ((1, 0, 0, 1, 1, 0, 0), (0, 1, 0, 0, 0, 0, 1)))
    wanted = (truth * passed + np.maximum(truth, 0) * decided) / 2.0**16
    assert within(got, wanted)
    assert not got[:, [2, 5]].any()


def test_a_slope_of_more_bits_than_a_narrow_ring_keeps_is_no_layer():
    with pytest.raises(ValueError, match="more bits than the ring"):
        relu(24, (1, 1, 8, 8), slopes=Slopes(655, 65536, 16))
