"""ReLU in two messages, three roles side by side, against Python's integers and against ReLU in four."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.harness import CUTS, opened, run, shares, values_up_to, without_zeros
from tests.protocol.test_relu import RINGS, SLOPED, bound, check_any_mixture, check_block, measured_value_and_relu, piecewise, relu, within
from threepc.kernels.gate import Cut, Slopes
from threepc.protocol.one_level import OneLevel, layout
from threepc.protocol.quick_relu import QuickRelu


def quick(bits, shape, **options):
    """The same ReLU as `relu` makes, in two messages."""
    four = relu(bits, shape, **options)
    return QuickRelu(**{field.name: getattr(four, field.name) for field in dataclasses.fields(QuickRelu)})


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", RINGS)
def test_relu_of_any_value_is_right_to_a_unit_and_a_half(bits, threads):
    rng, shift, shape = np.random.default_rng(bits), CUTS[bits][0], (3, 5, 47, 47)
    truth = values_up_to(rng, bound(bits) << shift, int(np.prod(shape))).reshape(shape)
    protocol = quick(bits, shape)
    results, trio = run(protocol, shares(rng, truth, bits), threads=threads)
    assert within(opened(results, bits), np.maximum(truth, 0) / 2.0**shift)
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == 2


@pytest.mark.parametrize("width", range(1, 49))
def test_every_width_decides_like_the_sign(width):
    """No cut and no lift, so that the result is exact: max(z, 0) for -2^width <= z < 2^width."""
    rng = np.random.default_rng(width)
    truth = values_up_to(rng, (1 << width) - 1, 1000)
    truth[0] = -(1 << width)
    protocol = QuickRelu(0, (1, 1, 1, 1000), Cut(64, 0, 64), 64, 0, width)
    results, trio = run(protocol, shares(rng, truth.reshape(1, 1, 1, -1), 64))
    assert np.array_equal(opened(results, 64).reshape(-1), np.maximum(truth, 0))
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("width", (0, 49))
def test_windows_that_do_not_exist(width):
    with pytest.raises(ValueError, match="1 to 48 bits"):
        layout(width, 32)


@pytest.mark.parametrize("count", (1, 63, 64, 65, 16383, 16384, 16385, 32768))
def test_sizes_around_words_and_tiles(count):
    rng = np.random.default_rng(count)
    truth = values_up_to(rng, bound(48) << 16, count).reshape(1, 1, 1, count)
    protocol = quick(48, truth.shape)
    results, trio = run(protocol, shares(rng, truth, 48))
    assert within(opened(results, 48), np.maximum(truth, 0) / 2.0**16)
    assert trio.measured == without_zeros(protocol.cost)


@settings(max_examples=25)
@given(st.data())
def test_any_shape_ring_and_mixture_of_patches(data):
    check_any_mixture(data, quick)


@pytest.mark.parametrize("bits", RINGS)
def test_block_relu_on_a_map_of_several_tiles(bits):
    rng, shift = np.random.default_rng(bits), CUTS[bits][0]
    shape, sizes = (2, 6, 61, 67), ((3, 4), (1, 1), (1, 0), (0, 1), (61, 67), (2, 1))
    truth = rng.integers(-(1 << 4 + shift), (1 << 4 + shift), shape)
    protocol = quick(bits, shape, sizes=sizes)
    results, trio = run(protocol, shares(rng, truth, bits))
    check_block(opened(results, bits), truth, sizes, shift, 1)
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("width", (1, 8))
def test_large_patches_with_few_bits_to_compare_have_a_single_chunk(width):
    """A secret for each of several chunks would cost more labels than a wide table costs bits."""
    rng, sides = np.random.default_rng(width), ((3, 4), (12, 12))
    sums = [
        np.append(
            rng.integers(-(1 << width), 1 << width, (24, *(12 // s for s in size)))[1:], [[[-1] * (12 // size[1])] * (12 // size[0])], 0
        )
        for size in sides
    ]
    truth, kept = np.zeros((24, 2, 12, 12), np.int64), np.zeros((24, 2, 12, 12), bool)
    for channel, (size, of_patches) in enumerate(zip(sides, sums, strict=True)):
        truth[:, channel, :: size[0], :: size[1]] = of_patches - 5
        truth[:, channel, 1 :: size[0], 1 :: size[1]] = 5
        kept[:, channel] = np.kron(of_patches >= 0, np.ones(size, bool))
    protocol = QuickRelu(0, truth.shape, Cut(64, 0, 64), 64, 0, width, sides)
    assert protocol.one_level.classes == 1
    results, trio = run(protocol, shares(rng, truth, 64))
    assert np.array_equal(opened(results, 64), np.where(kept, truth, 0))
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("name", [name for name, options in SLOPED.items() if "clip" not in options])
def test_slopes_and_bounds_of_any_kind(bits, name):
    """To the cut's unit and a half, times the slope, and a unit."""
    leaky = {"slopes": Slopes(164, 16384, 14)} if name == "leaky" and bits in (64, 24) else {}
    options, rng, shift, shape = SLOPED[name] | leaky, np.random.default_rng(bits), CUTS[bits][0], (1, 3, 60, 110)
    truth = values_up_to(rng, (bound(bits) - 1000) << shift, int(np.prod(shape)))
    truth[:6000] = rng.integers(-100 << shift, 100 << shift, 6000)
    protocol = quick(bits, shape, **options)
    results, trio = run(protocol, shares(rng, truth.reshape(shape), bits))
    steepest = 3.5 if name == "steep" else 1.0
    assert within(opened(results, bits), piecewise(truth.reshape(shape) / 2.0**shift, **options), 1.5 * steepest + 1)
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", RINGS)
def test_a_value_and_its_relu_from_one_opening(bits):
    assert measured_value_and_relu(bits, quick).messages == 2


@pytest.mark.parametrize("sizes, messages", [(((1, 0),) * 2, 0), (((0, 1),) * 2, 2), (((1, 0), (0, 1)), 2), (((1, 0), (1, 1)), 2)])
def test_layers_that_decide_nothing_or_little(sizes, messages):
    rng, shape = np.random.default_rng(5), (1, 2, 3, 5)
    truth = values_up_to(rng, bound(48) // 2 << 16, 30).reshape(shape)
    protocol = quick(48, shape, sizes=sizes)
    results, trio = run(protocol, shares(rng, truth, 48))
    check_block(opened(results, 48), truth, sizes, 16, 1)
    assert trio.measured == without_zeros(protocol.cost) and trio.measured.messages == messages


def test_a_clip_is_refused():
    with pytest.raises(ValueError, match="four messages"):
        quick(48, (1, 1, 1, 1), clip=3)


@pytest.mark.parametrize("sizes, low_bit", [(None, 0), (((2, 2), (1, 1)), 0), (((2, 2), (1, 1)), 3)])
@pytest.mark.parametrize("bits", RINGS)
def test_two_and_four_messages_give_the_same_under_the_same_keys(bits, sizes, low_bit):
    """The opening's masks are the same, hence the rounding, and d. low_bit: of the window."""
    rng, keys, shape = np.random.default_rng(bits), (b"k" * 16, b"l" * 16), (1, 2, 30, 40)
    truth = values_up_to(rng, bound(bits, 4) << CUTS[bits][0], 2400).reshape(shape)
    summands, options = shares(rng, truth, bits), {"sizes": sizes, "low_bit": low_bit, "width": relu(bits, shape).width - low_bit}
    (d, u, _), _ = run(quick(bits, shape, **options), summands, keys=keys)
    (same_d, same_u, _), _ = run(relu(bits, shape, **options), summands, keys=keys)
    mask = u.dtype.type((1 << bits) - 1)
    assert np.array_equal(d, same_d) and np.array_equal(u & mask, same_u & mask)


@pytest.mark.parametrize("width, bits, chunks", [(15, 32, [5, 5, 5]), (30, 48, [8, 8, 7, 7]), (8, 32, [4, 4]), (1, 32, [1])])
def test_layout_of_the_usual_windows(width, bits, chunks):
    found = layout(width, bits)
    assert sorted(found.chunks[:, 0], reverse=True) == chunks
    assert found.classes == 2 ** len(chunks) - 1 and len(found.wires) == 2 * len(chunks) - 1
    assert found.tables == sum(2**w - 1 for w in chunks)


@pytest.mark.parametrize("count", (1, 64, 65, 20000))
def test_declared_bytes_are_those_of_the_layout(count):
    decisions, planes = OneLevel(0, count, 0, 15, 32), -(-count // 64) * 8
    assert (decisions.dealt_bytes, decisions.wire_bytes, decisions.share_bytes) == ((93 + 7) * planes, 5 * planes, planes)
