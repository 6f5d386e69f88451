"""The linear maps of `winograd`, as vector code: kernels, inputs and products, many tiles or output channels at once.

They compute with words of 64 bits, also where those of the convolution have 32: its results carry more bits than a ring of 32.
"""

from llvmlite import ir

from threepc.kernels.emitter import emitted, number
from threepc.kernels.tile import ROWS

RING_BITS = 50  # of the widest ring in which the result is exact
SIDE = 4  # of a tile of outputs
REACH = SIDE + 2  # of the inputs it reads, and number of points
POINTS = REACH**2
_SHIFT = 2  # log2 of the factor that the results carry
_NINTH = pow(9, -1, 1 << 64)


class _Transforms:
    """The three linear maps in one dimension, on lists of vectors; points are in the order 0, 1, -1, 2, 1/2, infinity."""

    def __init__(self, builder):
        self.builder, self.add, self.sub = builder, builder.add, builder.sub

    def _double(self, vector, times=1):
        return self.builder.shl(vector, ir.Constant(vector.type, [times] * vector.type.count))

    def kernel(self, g0, g1, g2):
        """2 G g."""
        ends, middle = self.add(g0, g2), self._double(g1)
        ninths = [
            self.sub(ends, g1),
            self.add(self.add(g0, middle), self._double(g2, 2)),
            self.add(self.add(self._double(g0, 2), middle), g2),
        ]
        ninth = ir.Constant(g0.type, [_NINTH] * g0.type.count)
        return [g0, self.add(ends, g1), *(self.builder.mul(value, ninth) for value in ninths), g2]

    def input(self, d0, d1, d2, d3, d4, d5):
        """B^T d, for rows 2 -5 0 5 -2 0, 0 -2 3 3 -2 0, 0 -2 7 -7 2 0, 0 1 -2 -1 2 0, 0 2 -1 -2 1 0 and 0 -2 5 0 -5 2 of B^T."""
        even, odd, across = self.sub(d4, d2), self.sub(d3, d1), self.sub(d2, d3)
        even2, odd2 = self._double(even), self._double(odd)
        return [
            self.add(self._double(self.add(self.sub(d0, d4), odd2)), odd),
            self.sub(self.add(d2, d3), self.sub(even2, odd2)),
            self.add(self.add(even2, odd2), self.add(self._double(across, 3), across)),
            self.sub(even2, odd),
            self.sub(even, odd2),
            self.sub(self._double(self.sub(self.sub(d5, d1), even2)), even),
        ]

    def output(self, at_0, at_1, at_minus_1, at_2, at_half, at_infinity):
        """A^T m, for rows 1 1 1 1 8 0, 0 1 -1 2 4 0, 0 1 1 4 2 0 and 0 1 -1 8 1 1 of A^T."""
        even, odd = self.add(at_1, at_minus_1), self.sub(at_1, at_minus_1)
        return [
            self.add(self.add(at_0, even), self.add(at_2, self._double(at_half, 3))),
            self.add(odd, self.add(self._double(at_2), self._double(at_half, 2))),
            self.add(even, self.add(self._double(at_2, 2), self._double(at_half))),
            self.add(self.add(odd, at_infinity), self.add(self._double(at_2, 3), at_half)),
        ]


def _nest(transform, rows):
    """A map in one dimension applied to each row of a square of vectors, then to each column."""
    columns = zip(*(transform(*row) for row in rows), strict=True)
    return list(zip(*(transform(*column) for column in columns), strict=True))


@emitted(bits=64)
def transform_kernels(emit, panels, panel, places, target):
    """Row n of target, ROWS words = point n of ROWS kernels of one input channel, whose taps lie as `places` says for panel 0.

    panels and places are places in their arrays, target is `Matrix`.
    """
    builder = emit.builder
    taps = []
    for tap in range(9):
        first, step = (emit.load(emit.shift(places, 2 * tap + n)) for n in range(2))
        taps.append(emit.load(emit.shift(panels, builder.add(first, builder.mul(step, panel))), ROWS))
    points = _nest(_Transforms(builder).kernel, [taps[i : i + 3] for i in (0, 3, 6)])
    for n in range(POINTS):
        emit.store(points[n // REACH][n % REACH], emit.shift(target.first, builder.mul(target.step, number(n))))


@emitted(bits=64)
def transform_input(emit, x, rows, columns, target, writable):
    """Word i of row n of target = point n of tile i of a row of tiles, for the lanes i set in `writable`.

    x and target are `Matrix`; the first tile begins where x does. Outside the bits of `rows` and `columns`, counted from there, x is 0.
    """
    builder, lanes, writable = emit.builder, emit.lanes, emit.mask(writable)
    evens, odds = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)

    def row_of_tiles(i):
        """Inputs 0 to 5 of row i of every tile: the row's words by their place modulo 4, and the next tile's first two."""
        inside = builder.icmp_signed("!=", builder.and_(rows, number(1 << i)), number(0))
        inside = builder.select(inside, columns, number(0))
        place = emit.shift(x.first, builder.mul(x.step, number(i)))
        words = [
            emit.load_masked(emit.shift(place, n * lanes), emit.mask(builder.lshr(inside, number(n * lanes)))) for n in range(SIDE + 1)
        ]
        even, odd = ([emit.shuffle(words[n], words[n + 1], lane) for n in (0, 2)] for lane in (evens, odds))
        inputs = [emit.shuffle(*pair, lane) for lane in (evens, odds) for pair in (even, odd)]
        return [*inputs, *(emit.shuffle(inputs[n], words[SIDE], [*range(1, lanes), lanes + n]) for n in range(2))]

    points = _nest(_Transforms(builder).input, [row_of_tiles(i) for i in range(REACH)])
    for n in range(POINTS):
        emit.store_masked(points[n // REACH][n % REACH], emit.shift(target.first, builder.mul(target.step, number(n))), writable)


@emitted(bits=64)
def transform_output(emit, products, before, out, rows, columns):
    """Add a row of tiles to what was `before` in out, all to one word of it; point n of tile i is word i of row n of products.

    products and out are `Matrix`; of out's next 4 rows the first `rows` are written, of their words those whose bit is set in `columns`.
    """
    builder, lanes = emit.builder, emit.lanes
    points = [emit.load(emit.shift(products.first, builder.mul(products.step, number(n))), lanes) for n in range(POINTS)]
    tiles = _nest(_Transforms(builder).output, [points[i : i + REACH] for i in range(0, POINTS, REACH)])
    modulus, factor = emit.fill((1 << RING_BITS + _SHIFT) - 1, lanes), emit.fill(_SHIFT, lanes)
    start = builder.select(before.fresh, emit.spread(emit.load(before.words), lanes), emit.zero(lanes))
    kept = builder.select(before.fresh, number(0), columns)
    singly = [lane for n in range(lanes) for lane in (n, lanes + n)]
    in_pairs = [lane for n in range(0, lanes, 2) for lane in (n, n + 1, lanes + n, lanes + n + 1)]
    done = builder.append_basic_block("done")
    for i, columns_of_tiles in enumerate(tiles):
        following = builder.append_basic_block("row")
        builder.cbranch(builder.icmp_signed(">", rows, number(i)), following, done)
        builder.position_at_end(following)
        y = [builder.lshr(builder.and_(column, modulus), factor) for column in columns_of_tiles]
        pairs = [[emit.shuffle(*two, order) for two in (y[:2], y[2:])] for order in (singly[:lanes], singly[lanes:])]
        words = [emit.shuffle(*two, order) for two in pairs for order in (in_pairs[:lanes], in_pairs[lanes:])]
        for n, vector in enumerate(words):
            place = emit.shift(out.first, builder.add(builder.mul(out.step, number(i)), number(n * lanes)))
            mask, old = (emit.mask(builder.lshr(bits, number(n * lanes))) for bits in (columns, kept))
            emit.store_masked(builder.add(vector, builder.add(start, emit.load_masked(place, old))), place, mask)
    builder.branch(done)
    builder.position_at_end(done)
