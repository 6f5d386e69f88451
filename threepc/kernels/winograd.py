"""Convolution with fewer products: 3x3 kernels of stride 1 by Winograd's minimal filtering F(4x4, 3x3), exact in the ring.

Four neighbours in a row of the output are 4 dot products of the kernel's 3 taps with 6 inputs d: 12 products. Transposing Toom-Cook
multiplication of polynomials of degree 2 and 3 leaves 6, one for each point at which it evaluates (Winograd, "Arithmetic Complexity
of Computations", 1980): y = A^T ((G g) * (B^T d)). Nested in rows and columns, a tile of 4 x 4 outputs takes 36 products instead of
144, and summed over channels those are 36 matrix products, one a point (Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", CVPR 2016).

In a field any points do. Here G divides by differences of points, so each power of two among them costs a bit of the ring, while
odd divisors have inverses modulo 2^64. The points are 0, 2, 1, -1, infinity and 1/2, as fractions x/y: they fall in pairs into the
three classes of the projective line modulo 2, and no two of a pair agree modulo 4. All differences x y' - x' y of a pair then hold
exactly one factor of two, the others none. So 2 G has odd divisors only (2 G = [1, 0, 0; 1, 1, 1; (1, -1, 1) / 9; (1, 2, 4) / 9;
(4, 2, 1) / 9; 0, 0, 1]), A and B are integral, and the sums are 4 y. Taken modulo 2^52 or 2^64 as `tile` multiplies, bits 2 to 51 of
them are y modulo 2^50, whatever the operands held above: exact for rings of up to 50 bits.

Kernels are transformed anew in each call, 8 or so output channels at once, from the panels that `gemm.pack_rows` made: this costs as
much as the products of 5 tiles, and saves memory, and reading from it, for weights 4 times the size.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from threepc.kernels.gemm import depth_block
from threepc.kernels.options import inline, kernel
from threepc.kernels.tile import ROWS, VECTOR_BYTES, VECTORS, Emitter, lanes_within, multiply_tile, number

RING_BITS = 50  # of the widest ring in which the result is exact
SIDE = 4  # of a tile of outputs
_REACH = SIDE + 2  # of the inputs it reads, and number of points
_POINTS = _REACH**2
_LANES = VECTOR_BYTES // 8
_TILES = VECTORS * _LANES  # of a block: as wide as the register tile
_DEPTH = 96  # of a block: its transformed input fits the second-level cache
_KERNEL_BYTES = 1 << 23  # of transformed kernels: they should stay in the third-level cache
_PADDING = 8  # words between matrices, lest all begin in the same set of the cache
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
    columns = zip(*(transform(*row) for row in rows))
    return list(zip(*(transform(*column) for column in columns)))


@intrinsic
def _transform_kernels(typingctx, panels, panel, places, p, target, t, leading):
    """target[t + n * leading :][: ROWS] = point n of ROWS kernels of one input channel, whose taps lie as places[p :] says for panel 0."""
    signature = types.void(panels, types.intp, places, types.intp, target, types.intp, types.intp)

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        panels = emit.pointer(signature.args[0], args[0], number(0))
        places = emit.pointer(signature.args[2], args[2], args[3])
        target = emit.pointer(signature.args[4], args[4], args[5])
        taps = []
        for tap in range(9):
            first, step = (emit.load(emit.shift(places, number(2 * tap + n))) for n in range(2))
            taps.append(emit.load(emit.shift(panels, builder.add(first, builder.mul(step, args[1]))), ROWS))
        points = _nest(_Transforms(builder).kernel, [taps[i : i + 3] for i in (0, 3, 6)])
        for n in range(_POINTS):
            emit.store(points[n // _REACH][n % _REACH], emit.shift(target, builder.mul(args[6], number(n))))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _transform_input(typingctx, x, s, wide, rows, columns, target, t, leading, writable):
    """target[t + n * leading + i] = point n of tile i of a row of tiles, for the lanes i set in `writable`.

    The first tile begins at x[s], rows of x are `wide` words apart. Outside the bits of `rows` and `columns`, counted from there, x is 0.
    """
    signature = types.void(x, types.intp, types.intp, types.int64, types.int64, target, types.intp, types.intp, types.int64)

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        x, target = emit.pointer(signature.args[0], args[0], args[1]), emit.pointer(signature.args[5], args[5], args[6])
        wide, rows, columns, leading, writable = *args[2:5], args[7], emit.mask(args[8])
        lanes = emit.lanes
        evens, odds = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)

        def row_of_tiles(i):
            """Inputs 0 to 5 of row i of every tile: the row's words by their place modulo 4, and the next tile's first two."""
            inside = builder.icmp_signed("!=", builder.and_(rows, number(1 << i)), number(0))
            inside = builder.select(inside, columns, number(0))
            place = emit.shift(x, builder.mul(wide, number(i)))
            words = [
                emit.load_masked(emit.shift(place, number(n * lanes)), emit.mask(builder.lshr(inside, number(n * lanes))))
                for n in range(SIDE + 1)
            ]
            even, odd = ([emit.shuffle(words[n], words[n + 1], lane) for n in (0, 2)] for lane in (evens, odds))
            inputs = [emit.shuffle(*pair, lane) for lane in (evens, odds) for pair in (even, odd)]
            return [*inputs, *(emit.shuffle(inputs[n], words[SIDE], [*range(1, lanes), lanes + n]) for n in range(2))]

        points = _nest(_Transforms(builder).input, [row_of_tiles(i) for i in range(_REACH)])
        for n in range(_POINTS):
            emit.store_masked(points[n // _REACH][n % _REACH], emit.shift(target, builder.mul(leading, number(n))), writable)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _transform_output(typingctx, products, m, leading, start, s, out, o, wide, rows, columns, fresh):
    """Add a row of tiles to start[s] if fresh, else to out, from out[o] on; point n of tile i is products[m + n * leading + i].

    Rows of out are `wide` words apart; of the 4 rows the first `rows` are written, of their words those whose bit is set in `columns`.
    """
    signature = types.void(
        products, types.intp, types.intp, start, types.intp, out, types.intp, types.intp, types.int64, types.int64, types.boolean
    )

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        products, start, out = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 3, 5))
        leading, (wide, rows, columns, fresh) = args[2], args[7:]
        lanes = emit.lanes
        points = [emit.load(emit.shift(products, builder.mul(leading, number(n))), lanes) for n in range(_POINTS)]
        tiles = _nest(_Transforms(builder).output, [points[i : i + _REACH] for i in range(0, _POINTS, _REACH)])
        modulus, factor = emit.fill((1 << RING_BITS + _SHIFT) - 1, lanes), emit.fill(_SHIFT, lanes)
        before = builder.select(fresh, emit.spread(emit.load(start), lanes), emit.zero(lanes))
        kept = builder.select(fresh, number(0), columns)
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
                place = emit.shift(out, builder.add(builder.mul(wide, number(i)), number(n * lanes)))
                mask, old = (emit.mask(builder.lshr(bits, number(n * lanes))) for bits in (columns, kept))
                emit.store_masked(builder.add(vector, builder.add(before, emit.load_masked(place, old))), place, mask)
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


@functools.lru_cache(maxsize=256)
def places_of_taps(channels: int, panels: int) -> np.ndarray:
    """For each channel and tap, where `gemm.pack_rows` puts the first panel's ROWS weights, and how far on each next panel's are."""
    depth = 9 * channels
    block = depth_block(depth)
    row = np.arange(channels)[:, None] + channels * np.arange(9)
    begin = row // block * block
    places = np.stack([(begin * panels + row - begin) * ROWS, np.minimum(block, depth - begin) * ROWS], axis=2).reshape(-1)
    places.flags.writeable = False
    return places


@inline
def _cut_rows(pieces, tile, tiles, geometry):
    """Cut a block of tiles, counted along rows, down the map and over images, into pieces within a row of at most a vector.

    A piece is: its first tile in the block, its length, where it reads in channel 0 of x, which columns and rows of that are within
    the map, where it writes in channel 0 of out, how many rows, and which columns. Returns how many there are.
    """
    channels, height, wide, outputs, top, left, out_height, out_width = geometry
    across, down = (out_width + SIDE - 1) // SIDE, (out_height + SIDE - 1) // SIDE
    count, n = 0, 0
    while n < tiles:
        row, column = divmod(tile + n, across)
        image, row = divmod(row, down)
        length = min(_LANES, tiles - n, across - column)
        row, column = SIDE * row, SIDE * column
        pieces[count, 0] = n
        pieces[count, 1] = length
        pieces[count, 2] = (image * channels * height + row - top) * wide + column - left
        pieces[count, 3] = lanes_within(column - left, SIDE * length + 2, 1, wide)
        pieces[count, 4] = lanes_within(row - top, _REACH, 1, height)
        pieces[count, 5] = (image * outputs * out_height + row) * out_width + column
        pieces[count, 6] = min(SIDE, out_height - row)
        pieces[count, 7] = (1 << min(SIDE * length, out_width - column)) - 1
        count += 1
        n += length
    return count


@kernel
def convolve_tiles(panels, places, x, bias, out, kernels, inputs, products, pieces, geometry, block, part):
    """Compute `part` of a convolution, a range of panels of output channels and one of tiles, in blocks of so many input channels.

    The arrays from `kernels` to `pieces` are scratch as `scratch_words` counts it, `products` zero at its end.
    """
    channels, height, wide, outputs, _, _, out_height, out_width = geometry
    first_panel, last_panel, first_tile, last_tile = part
    held = kernels.size // (_POINTS * (block * ROWS + _PADDING))
    for channel in range(0, channels, block):
        depth = min(block, channels - channel)
        kernel_step = depth * ROWS + _PADDING
        for panel in range(first_panel, last_panel, held):
            ending = min(panel + held, last_panel)
            for q in range(panel, ending):
                for k in range(depth):
                    _transform_kernels(
                        panels, q, places, (channel + k) * 18, kernels, (q - panel) * _POINTS * kernel_step + k * ROWS, kernel_step
                    )
            for tile in range(first_tile, last_tile, _TILES):
                tiles = min(_TILES, last_tile - tile)
                vectors = (tiles + _LANES - 1) // _LANES
                stored = vectors * _LANES
                input_step, product_step = depth * stored + _PADDING, ROWS * stored + _PADDING
                count = _cut_rows(pieces, tile, tiles, geometry)
                if panel == first_panel or last_tile - first_tile > _TILES:
                    for k in range(depth):
                        for p in range(count):
                            _transform_input(
                                x,
                                pieces[p, 2] + (channel + k) * height * wide,
                                wide,
                                pieces[p, 4],
                                pieces[p, 3],
                                inputs,
                                k * stored + pieces[p, 0],
                                input_step,
                                (1 << pieces[p, 1]) - 1,
                            )
                for q in range(panel, ending):
                    for n in range(_POINTS):
                        multiply_tile(
                            kernels,
                            ((q - panel) * _POINTS + n) * kernel_step,
                            inputs,
                            n * input_step,
                            products,
                            n * product_step,
                            products,
                            products.size - ROWS,
                            depth,
                            stored,
                            vectors,
                            True,
                            True,
                        )
                    for output in range(q * ROWS, min((q + 1) * ROWS, outputs)):
                        for p in range(count):
                            _transform_output(
                                products,
                                (output - q * ROWS) * stored + pieces[p, 0],
                                product_step,
                                bias,
                                output,
                                out,
                                pieces[p, 5] + output * out_height * out_width,
                                out_width,
                                pieces[p, 6],
                                pieces[p, 7],
                                channel == 0,
                            )


def channel_block(channels: int) -> int:
    """How many input channels `convolve_tiles` transforms at once: all blocks but the last are equal."""
    return -(-channels // -(-channels // _DEPTH))


def scratch_words(channels: int, panels: int, tiles: int) -> tuple[int, int, int, tuple[int, int]]:
    """Sizes of kernels, inputs and products, and shape of pieces, for a part of so many panels and tiles of `convolve_tiles`."""
    block = channel_block(channels)
    of_panel = _POINTS * (block * ROWS + _PADDING)
    held = 1 if tiles <= _TILES else max(1, _KERNEL_BYTES // 8 // of_panel)  # one block of tiles needs each panel once
    products = _POINTS * (ROWS * _TILES + _PADDING) + _LANES + ROWS  # the last piece is read as a whole vector
    return min(held, panels) * of_panel, _POINTS * (block * _TILES + _PADDING), products, (_TILES, 8)


def tiles_of(images: int, height: int, width: int) -> int:
    """Number of tiles that cover the output maps."""
    return images * -(-height // SIDE) * -(-width // SIDE)


def is_faster(images: int, channels: int, outputs: int, size: tuple[int, int], direct: int, copied: int) -> bool:
    """Whether `images` maps of outputs of `size`, by tiles, take less time than `direct` products for each pair of channels.

    `copied` is how many words have to be rearranged for it. Transforms count as so many products as take their time, as measured on
    an AMD Zen 4 core; where tiles fill few lanes or overhang the map, or channels are few, they outweigh what is saved.
    """
    height, width = size
    tiles = -(-tiles_of(images, height, width) // _LANES) * _LANES
    in_rows = images * -(-height // SIDE) * -(-width // (SIDE * _LANES)) * _LANES
    products = (_POINTS * tiles + 190) * channels * outputs
    transforms = in_rows * (250 * channels + 200 * outputs * -(-channels // _DEPTH)) + 200 * copied
    return products + transforms < direct * channels * outputs


@kernel
def split_phases(x, maps, height, wide, top, left, down, across, rows, columns, channels, part):
    """Copy channels [part[0], part[1]) of all images to the maps on which a kernel of dilation (down, across) is undilated.

    Word (i, j) of map (a, b) is the padded image's (a + i * down, b + j * across), zero in the padding and beyond; x is flat
    (images, channels, height, wide), maps is flat (images, down, across, channels, rows, columns).
    """
    for plane in range(*part):
        image, channel = divmod(plane, channels)
        for a in range(down):
            for b in range(across):
                target = (((image * down + a) * across + b) * channels + channel) * rows * columns
                maps[target : target + rows * columns] = 0
                first = max(0, (left - b + across - 1) // across)
                last = min(columns, (wide + left - b + across - 1) // across)
                for i in range(rows):
                    row = a + i * down - top
                    if 0 <= row < height:
                        source = (plane * height + row) * wide + b - left
                        for j in range(first, last):
                            maps[target + i * columns + j] = x[source + j * across]


@kernel
def merge_phases(maps, out, height, wide, down, across, rows, columns, channels, part):
    """The inverse of `split_phases` for outputs (images, channels, height, wide), for channels [part[0], part[1]) of all images."""
    for plane in range(*part):
        image, channel = divmod(plane, channels)
        target = plane * height * wide
        for y in range(height):
            i, a = divmod(y, down)
            for b in range(across):
                source = ((((image * down + a) * across + b) * channels + channel) * rows + i) * columns
                for x in range(b, wide, across):
                    out[target + x] = maps[source]
                    source += 1
            target += wide
