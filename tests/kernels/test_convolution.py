import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threepc.kernels.convolution import convolve, output_size, pack_weight, warm_up
from threepc.kernels.emitter import VECTOR_BYTES
from threepc.kernels.options import has_ifma
from threepc.kernels.tile import ROWS, VECTORS

RINGS = (64, 52, 48, 40, 32)


def word_type(bits):
    return np.uint64 if bits > 32 else np.uint32


def random_words(rng, shape, bits):
    """Words with random bits also above the ring, as sums of shares have them."""
    return rng.integers(0, np.iinfo(word_type(bits)).max, shape, word_type(bits), endpoint=True)


def definition(x, weight, groups, stride, padding, dilation, bias):
    """Convolution in Python's integers, as an array of objects."""
    top, left, bottom, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).astype(object)
    outputs, inputs, *kernel = weight.shape
    rows, columns = ((x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2))
    y = np.zeros((x.shape[0], outputs, rows, columns), object) + bias.astype(object)[:, None, None]
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for c, i, j in np.ndindex(inputs, *kernel):
            window = x[:, first + c, i * dilation[0] :, j * dilation[1] :][:, :: stride[0], :: stride[1]][:, :rows, :columns]
            y[:, o] += window * int(weight[o, c, i, j])
    return y


def check(x, weight, bits, groups=1, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), bias=None, threads=1):
    got = convolve(x, pack_weight(weight, groups, bits), stride=stride, padding=padding, dilation=dilation, bias=bias, threads=threads)
    wanted = definition(x, weight, groups, stride, padding, dilation, np.zeros(len(weight), x.dtype) if bias is None else bias)
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(got.astype(object) % 2**bits, wanted % 2**bits)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=100, deadline=None)
@given(
    bits=st.sampled_from(RINGS),
    images=st.integers(1, 3),
    groups=st.integers(1, 3),
    group_inputs=st.integers(1, 5),
    group_outputs=st.integers(1, 2 * ROWS + 1),
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    beyond=st.tuples(st.integers(0, 12), st.integers(0, 60)),
    with_bias=st.booleans(),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_definition(
    bits, images, groups, group_inputs, group_outputs, kernel, stride, dilation, padding, beyond, with_bias, threads, seed
):
    rng = np.random.default_rng(seed)
    height, width = (dilation[i] * (kernel[i] - 1) + 1 + beyond[i] - padding[i] - padding[i + 2] for i in range(2))
    x = random_words(rng, (images, groups * group_inputs, max(height, 1), max(width, 1)), bits)
    weight = random_words(rng, (groups * group_outputs, group_inputs, *kernel), bits)
    bias = random_words(rng, len(weight), bits) if with_bias else None
    check(x, weight, bits, groups, stride, padding, dilation, bias, threads)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("columns", [*range(1, ROWS + 2), 49, 196, 2 * VECTORS * VECTOR_BYTES // 4 + 1])
def test_every_width_of_panel_over_several_depth_blocks(bits, columns):
    rng = np.random.default_rng(columns)
    x, weight = random_words(rng, (1, 531, 1, columns), bits), random_words(rng, (ROWS + 3, 531, 1, 1), bits)
    check(x, weight, bits, bias=random_words(rng, ROWS + 3, bits))


@pytest.mark.parametrize("bits", RINGS)
def test_fully_connected_layer_of_a_batch(bits):
    rng = np.random.default_rng(1)
    for images in (1, 2, 3, 11):
        check(random_words(rng, (images, 70, 1, 1), bits), random_words(rng, (19, 70, 1, 1), bits), bits)


@pytest.mark.parametrize("bits", RINGS)
def test_more_columns_than_the_buffer_holds(bits):
    rng = np.random.default_rng(2)
    x, weight = random_words(rng, (2, 30, 24, 25), bits), random_words(rng, (3, 30, 3, 3), bits)
    check(x, weight, bits, padding=(1, 1, 1, 1), threads=2)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_taps_that_read_nothing_but_padding(bits, stride):
    rng = np.random.default_rng(7)
    x, weight = random_words(rng, (2, 130, 7, 45), bits), random_words(rng, (3, 130, 3, 3), bits)
    check(x, weight, bits, stride=stride, padding=(6, 30, 6, 30), dilation=(6, 30), bias=random_words(rng, 3, bits), threads=2)


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("multiplier", [1, 2, 9])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3)])
def test_depthwise_rows_wider_than_the_register_block(bits, multiplier, stride):
    rng = np.random.default_rng(3)
    x, weight = random_words(rng, (2, 3, 5, 150), bits), random_words(rng, (3 * multiplier, 1, 3, 3), bits)
    check(x, weight, bits, 3, stride, (1, 0, 2, 1), bias=random_words(rng, len(weight), bits), threads=2)


def test_one_channel_and_one_group_is_not_depthwise_but_right():
    rng = np.random.default_rng(4)
    check(random_words(rng, (2, 1, 9, 9), 48), random_words(rng, (5, 1, 3, 3), 48), 48, padding=(1, 1, 1, 1))


def test_input_may_be_read_only_not_contiguous_or_not_aligned():
    rng = np.random.default_rng(5)
    x, weight = random_words(rng, (2, 3, 6, 6), 48), pack_weight(random_words(rng, (4, 3, 3, 3), 48), 1, 48)
    wanted = convolve(x, weight)
    frozen = np.frombuffer(b"\1" + x.tobytes(), np.uint64, offset=1).reshape(x.shape)
    assert not frozen.flags.aligned and not frozen.flags.writeable
    for same in (frozen, np.asfortranarray(x), np.repeat(x, 2, axis=3)[..., ::2]):
        np.testing.assert_array_equal(convolve(same, weight), wanted)


def test_reads_and_writes_no_word_outside_its_arrays():
    # The arrays lie inside a larger one: whatever surrounds the input must not matter, whatever surrounds the output must stay.
    rng = np.random.default_rng(6)
    weight = pack_weight(random_words(rng, (5, 3, 3, 3), 48), 1, 48)
    around = random_words(rng, 500, 48)
    x = around[100 : 100 + 3 * 7 * 9].reshape(1, 3, 7, 9)
    wanted = convolve(x.copy(), weight, padding=(1, 1, 1, 1))
    frame = np.full(wanted.size + 200, 77, np.uint64)
    out = frame[100:-100].reshape(wanted.shape)
    assert convolve(x, weight, padding=(1, 1, 1, 1), out=out) is out
    np.testing.assert_array_equal(out, wanted)
    assert (frame[:100] == 77).all() and (frame[-100:] == 77).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": np.zeros((1, 2, 5, 5), np.uint64)}, "x is uint64"),
        ({"x": np.zeros((1, 3, 5, 5), np.uint32)}, "x is uint32"),
        ({"x": np.zeros((1, 3, 2, 5), np.uint64)}, "does not fit a map of 2 x 5"),
        ({"x": np.zeros((3, 5, 5), np.uint64)}, "x is uint64"),
        ({"bias": np.zeros(3, np.uint64)}, "bias is uint64"),
        ({"bias": np.zeros(4, np.uint32)}, "bias is uint32"),
        ({"padding": (0, -1, 0, 0)}, "padding .* not negative"),
        ({"stride": (0, 1)}, "must be positive"),
        ({"out": np.zeros((1, 4, 3, 4), np.uint64)}, "out is uint64"),
        ({"out": np.zeros((1, 4, 3, 3), np.uint32)}, "out is uint32"),
        ({"out": np.zeros((1, 3, 3, 4), np.uint64).transpose(0, 3, 1, 2)}, "not C-contiguous"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    weight = pack_weight(np.zeros((4, 3, 3, 3), np.uint64), 1, 48)
    with pytest.raises(ValueError, match=message):
        convolve(**{"x": np.zeros((1, 3, 5, 5), np.uint64), "weight": weight, **arguments})


@pytest.mark.parametrize(
    "weight, groups, bits, message",
    [
        (np.zeros((4, 3, 3), np.uint64), 1, 48, "a weight is"),
        (np.zeros((4, 3, 3, 3), np.int64), 1, 48, "a weight is"),
        (np.zeros((4, 3, 3, 3), np.uint64), 3, 48, "3 groups and 48 bits"),
        (np.zeros((4, 3, 3, 3), np.uint32), 1, 48, "1 groups and 48 bits"),
        (np.zeros((4, 3, 3, 3), np.uint64), 1, 0, "1 groups and 0 bits"),
        (np.zeros((0, 3, 3, 3), np.uint64), 1, 48, "a weight is"),
    ],
)
def test_refuses_a_weight_that_is_none(weight, groups, bits, message):
    with pytest.raises(ValueError, match=message):
        pack_weight(weight, groups, bits)


def test_packed_weight_cannot_change_with_the_array_it_came_from():
    for groups in (1, 3):
        weight = np.ones((3, 3 // groups, 1, 1), np.uint64)
        packed = pack_weight(weight, groups, 48)
        weight[:] = 5
        assert convolve(np.ones((1, 3, 1, 1), np.uint64), packed).max() == 3 // groups
        with pytest.raises(ValueError, match="read-only"):
            packed.panels[0] = 1


def test_output_size_of_an_asymmetric_padding():
    assert output_size(224, 224, (7, 7), (2, 2), (3, 3, 3, 3)) == (112, 112)
    assert output_size(5, 9, (3, 2), (2, 3), (1, 0, 0, 2), (2, 1)) == (1, 4)


@pytest.mark.parametrize("bits", [48, 32])
def test_warm_up_says_what_it_compiles(bits):
    assert all(str(bits) in label for label in warm_up(bits))
    assert len(list(warm_up(bits))) == (3 if bits > 32 or has_ifma() else 2)
