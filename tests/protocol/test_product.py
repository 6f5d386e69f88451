"""Products of two hidden values: right to a unit and a half, for every way to lay a factor out, up to the edges of the range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.harness import CUTS, Trio, edges, opened, values_up_to, without_zeros
from threepc.kernels.gate import Cut
from threepc.kernels.packing import TILE, unpack
from threepc.kernels.product import MOST_LIFTED
from threepc.prf import Purpose
from threepc.protocol.product import Product, Shape, spread
from threepc.ring import word_of

SHAPE = (2, 3, 77, 75)  # 34,650 elements: three tiles
FACTORS = {
    "a channel": (2, 3, 1, 1),
    "a position": (2, 1, 77, 75),
    "a row": (2, 3, 77, 1),
    "a column": (2, 3, 1, 75),
    "an image": (2, 1, 1, 1),
}


def reduced(rng: np.random.Generator, values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """d and u of values, of which u has garbage above the ring's bits."""
    word = word_of(bits)
    d, garbage = (rng.integers(0, np.iinfo(word).max, values.shape, word, endpoint=True) for _ in range(2))
    above = garbage << word(bits) if bits < 8 * np.dtype(word).itemsize else word(0)
    return d, values.astype(np.int64).astype(word) - d + above


def multiply(protocol: Product, factors: list[np.ndarray], seed: int = 0, **options):
    """The protocol on signed numbers: (signed result, the Trio)."""
    rng, bits = np.random.default_rng(seed), protocol.cut.bits
    shared = [reduced(rng, x, bits) for x in factors]
    trio = Trio(**options)
    dealt = protocol.deal(trio.provider, [d for d, _ in shared])
    prepared = protocol.prepare(trio.client, [d for d, _ in shared])
    served, _ = trio.together(lambda server: protocol.serve(server, [u for _, u in shared]), protocol.infer)
    assert trio.dealt[0].receptions == 0 and not trio.dealt[1].sent and not trio.client.kept
    return opened((prepared, served, dealt), bits), trio


def factors_of(products: np.ndarray, other: np.ndarray, limit: int) -> np.ndarray:
    """Numbers whose product with `other` comes as near to `products` as whole numbers do, none beyond ±limit."""
    return np.clip(np.where(other == 0, products, products // np.where(other == 0, 1, other)), -limit, limit)


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", CUTS)
def test_product_of_any_values_is_right_to_a_unit_and_a_half(bits, threads):
    rng, (shift, kept) = np.random.default_rng(bits), CUTS[bits]
    count, limit = math.prod(SHAPE), ((1 << kept - 2) - 2) << shift
    x = values_up_to(rng, 1 << bits // 2, count)
    y = factors_of(values_up_to(rng, limit, count)[rng.permutation(count)], x, limit)
    x, y = (numbers.reshape(SHAPE) for numbers in (x, y))
    protocol = Product(9, (SHAPE, SHAPE), SHAPE, Cut(bits, shift, kept))
    got, trio = multiply(protocol, [x, y], bits, threads=threads)
    exact = (x.astype(object) * y).astype(np.int64)
    assert np.abs(exact).max() > limit // 2
    error = got - exact / 2.0**shift
    assert np.abs(error).max() < 1.5
    assert abs(error.mean()) < 8 * 0.5 / np.sqrt(error.size)
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", (64, 48))
def test_as_many_bits_are_removed_as_factors_of_many_bits_bring(bits):
    shift = MOST_LIFTED
    rng, kept = np.random.default_rng(bits), bits - shift
    limit = ((1 << kept - 2) - 2) << shift
    x = values_up_to(rng, 1 << bits // 2, 5000)
    y = factors_of(values_up_to(rng, limit, 5000)[rng.permutation(5000)], x, limit)
    x, y = (numbers.reshape(1, 1, 100, 50) for numbers in (x, y))
    got, _ = multiply(Product(0, (x.shape,) * 2, x.shape, Cut(bits, shift, kept)), [x, y])
    assert np.abs(got - (x.astype(object) * y).astype(np.int64) / 2.0**shift).max() < 1.5


@pytest.mark.parametrize("bits", CUTS)
def test_bottom_and_top_of_the_range(bits):
    """-2^(kept-2) and 2^(kept-2) - 1 are the last values that are lifted; rounding may add a unit and a half."""
    shift, kept = CUTS[bits]
    low, high = -(1 << kept - 2) + 2, (1 << kept - 2) - 3
    y = np.array([low, high] * 2048, np.int64).reshape(1, 1, 64, 64)
    x = np.full(y.shape, 1 << shift)
    got, _ = multiply(Product(0, (y.shape,) * 2, y.shape, Cut(bits, shift, kept)), [x, y])
    assert np.abs(got - y).max() < 1.5


@pytest.mark.parametrize("bits", (48, 32))
@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_is_spread_over_the_other(name, bits):
    shift, kept = CUTS[bits]
    rng, size = np.random.default_rng(bits), 1 << (bits - 6) // 2
    x, y = (rng.integers(-size, size, shape) for shape in (SHAPE, FACTORS[name]))
    for first, second in ((x, y), (y, x)):
        protocol = Product(3, (first.shape, second.shape), SHAPE, Cut(bits, shift, kept))
        got, trio = multiply(protocol, [first, second], threads=2)
        assert np.abs(got - x * y / 2.0**shift).max() < 1.5
        assert trio.measured == without_zeros(protocol.cost)


def test_two_factors_are_spread_over_each_other():
    rng, shapes = np.random.default_rng(2), ((2, 3, 1, 1), (2, 1, 77, 75))
    x, y = (rng.integers(-(1 << 20), 1 << 20, shape) for shape in shapes)
    got, _ = multiply(Product(0, shapes, SHAPE, Cut(48, 16, 32)), [x, y])
    assert np.abs(got - x * y / 2.0**16).max() < 1.5


@given(st.tuples(*[st.integers(1, 5)] * 4), st.sets(st.integers(1, 3)))
def test_a_spread_finds_what_numpy_broadcasts_or_says_no(shape: Shape, repeated):
    factor = tuple(1 if axis in repeated else side for axis, side in enumerate(shape))
    try:
        found = spread(factor, shape)
    except ValueError:
        assert {1, 3} <= repeated and factor[2] > 1
        return
    wanted = np.broadcast_to(np.arange(math.prod(factor)).reshape(factor), shape).reshape(-1)
    places = np.arange(math.prod(shape))
    assert np.array_equal(places // found.block * found.row + places % found.row, wanted)


@pytest.mark.parametrize("bits", CUTS)
def test_square_sends_one_factor(bits):
    shift, kept = CUTS[bits]
    limit = math.isqrt(((1 << kept - 2) - 2) << shift)
    x = np.resize(edges(limit), (1, 1, 50, 40))
    protocol = Product(0, (x.shape,), x.shape, Cut(bits, shift, kept))
    got, trio = multiply(protocol, [x])
    assert np.abs(got - (x.astype(object) ** 2).astype(np.int64) / 2.0**shift).max() < 1.5
    assert trio.measured == without_zeros(protocol.cost)
    two = Product(0, (x.shape,) * 2, x.shape, Cut(bits, shift, kept)).cost
    assert two.online["server->client"] - protocol.cost.online["server->client"] == 8 * 32 * bits // 8 * 8  # 2,048 words, padded


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bits", CUTS)
def test_product_of_matrices(bits, threads):
    shift, kept = CUTS[bits]
    rng, size = np.random.default_rng(bits), 1 << (bits - 10) // 2
    x, y = rng.integers(-size, size, (2, 3, 35, 7)), rng.integers(-size, size, (2, 3, 7, 83))
    protocol = Product(0, (x.shape, y.shape), (2, 3, 35, 83), Cut(bits, shift, kept), matrix=True)
    got, trio = multiply(protocol, [x, y], threads=threads)
    assert np.abs(got - x @ y / 2.0**shift).max() < 1.5
    assert trio.measured == without_zeros(protocol.cost)


@pytest.mark.parametrize("bits", CUTS)
def test_declared_cost(bits):
    """Two words of a factor and the opening's half to C; the masked lift of the opened value and a bit back; k and q from P."""
    shift, kept = CUTS[bits]
    cost = Product(0, ((1, 1, 64, 64), (1, 1, 1, 1)), (1, 1, 64, 64), Cut(bits, shift, kept)).cost
    assert cost.offline == {"provider->server": 512 * (bits + shift)}
    assert cost.online == {"server->client": 512 * (bits + kept) + 8 * bits, "client->server": 512 * (bits + 1)}
    assert cost.messages == 2


@pytest.mark.parametrize("bits", (48, 32))
def test_what_is_dealt_comes_from_consecutive_parts_of_the_streams(bits):
    """Every word that pads anything is drawn once: all that P deals for factors of zeros is made again from its streams, read from their beginning on."""
    (shift, kept), shape, trio = CUTS[bits], (1, 1, TILE // 64 + 44, 64), Trio()
    protocol, word = Product(0, (shape, shape), shape, Cut(bits, shift, kept)), word_of(bits)
    protocol.deal(trio.provider, [np.zeros(shape, word)] * 2)
    message, size, pads_at = trio.dealt[0].sent[0][2][0].view(np.uint8), np.dtype(word).itemsize, 0
    drawn = {(pair, purpose): octets for pair, stream in trio.streams.items() for purpose, octets in stream.drawn}
    pads = drawn["PC", Purpose.PRODUCT]
    masks, d = drawn["PS", Purpose.OPENING].view(word_of(kept)), drawn["PC", Purpose.ACTIVATION].view(word)
    for begin in range(0, protocol.count, TILE):
        tile = slice(begin, min(begin + TILE, protocol.count))
        count = tile.stop - begin
        t, w, _ = np.split(pads[pads_at:], np.cumsum([size * count, 4 * count]))
        t, w, pads_at = t.view(word), w.view(np.uint32).astype(word), pads_at + TILE * (size + 4)
        r = masks[tile].astype(word) & word((1 << kept) - 1)
        carry = r >> word(kept - 1)
        chosen = carry & (w >> word(31))
        wanted = (chosen << word(kept)) - r - d[tile] - t, carry - chosen - chosen - (w & word((1 << MOST_LIFTED) - 1))
        part = message[begin // 8 * (bits + shift) : tile.stop // 8 * (bits + shift)]
        for words, own, width in zip(wanted, np.split(part, [count // 8 * bits]), (bits, shift), strict=True):
            dealt = np.empty(count, word)
            unpack(own, count, width, dealt)
            assert np.array_equal(dealt, words & word((1 << width) - 1))
