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
(4, 2, 1) / 9; 0, 0, 1]), A and B are integral, and the sums are 4 y. Taken modulo 2^52 or 2^64 as `emitter` multiplies, bits 2 to 51 of
them are y modulo 2^50, whatever the operands held above: exact for rings of up to 50 bits. Words of 32 bits are widened as they are read, and cut as they are
written: with IFMA four times fewer products outweigh that a vector holds half as many.

Kernels are transformed anew in each call, 8 or so output channels at once, from the panels that `gemm.pack_rows` made: this costs as
much as the products of 8 tiles, and saves memory, and reading from it, for weights 4 times the size.
"""

import functools
from functools import partial
from typing import NamedTuple

import numpy as np

from threepc.kernels.emitter import VECTOR_BYTES, Before, Matrix, at
from threepc.kernels.gemm import depth_block, even, even_inline
from threepc.kernels.geometry import Geometry, Operands, read_only
from threepc.kernels.options import inline, kernel
from threepc.kernels.threads import Scratch, ranges, run_parts
from threepc.kernels.tile import ROWS, VECTORS, close_panel, lanes_within, multiply_tile
from threepc.kernels.winograd_transforms import POINTS, REACH, SIDE, transform_input, transform_kernels, transform_output

_WORD = np.dtype(np.uint64)
"""Of what is transformed, of whatever type the words of a convolution are."""
_LANES = VECTOR_BYTES // _WORD.itemsize
_TILES = VECTORS * _LANES  # of a block: as wide as the register tile
_DEPTH = 96  # of a block: its transformed input fits the second-level cache
_KERNEL_BYTES = 1 << 23  # of transformed kernels: they should stay in the third-level cache
_PADDING = 8  # words between matrices, lest all begin in the same set of the cache


@functools.lru_cache(maxsize=256)
def _places_of_taps(channels: int, panels: int) -> np.ndarray:
    """For each channel and tap, where `gemm.pack_rows` puts the first panel's ROWS weights, and how far on each next panel's are."""
    depth = 9 * channels
    block = depth_block(depth)
    row = np.arange(channels)[:, None] + channels * np.arange(9)
    begin = row // block * block
    first = ((begin + begin // block) * panels + row - begin) * ROWS
    places = np.stack([first, (np.minimum(block, even(depth) - begin) + 1) * ROWS], axis=2).reshape(-1)
    places.flags.writeable = False
    return places


class WinogradPart(NamedTuple):
    """What one thread computes: panels of output channels, for tiles counted along rows, down the map and over images."""

    first_panel: int
    last_panel: int
    first_tile: int
    last_tile: int


class WinogradSpace(NamedTuple):
    """Scratch of one thread, of the sizes that `_space` gives it."""

    kernels: np.ndarray  # transformed, of some panels for a block of input channels: matrices of (panel, point), `_PADDING` apart
    inputs: np.ndarray  # transformed, of a block of tiles for a block of input channels: a matrix for each point
    products: np.ndarray  # of one panel and block of tiles: a matrix for each point; zeros at the end
    pieces: np.ndarray  # WINOGRAD_PIECE, of a block of tiles


WINOGRAD_PIECE = np.dtype(
    [
        ("first", np.int64),  # tile in its block
        ("length", np.int64),  # in tiles
        ("source", np.int64),  # place in x, for channel 0, where the first tile begins to read
        ("rows", np.int64),  # bits: which rows from there on are within the map
        ("columns", np.int64),  # bits: which columns
        ("target", np.int64),  # place in out, for channel 0, where the first tile writes
        ("height", np.int64),  # of what the tiles write
        ("written", np.int64),  # bits: which columns
    ]
)
"""Tiles of a block, at most a vector, that lie within one row of the map."""


@inline
def _cut_rows(pieces, tile, tiles, geometry):
    """Cut a block of tiles into pieces; returns how many."""
    height, width, out_height, out_width = geometry.height, geometry.width, geometry.out_height, geometry.out_width
    across, down = (out_width + SIDE - 1) // SIDE, (out_height + SIDE - 1) // SIDE
    count, n = 0, 0
    while n < tiles:
        row, column = divmod(tile + n, across)
        image, row = divmod(row, down)
        length = min(_LANES, tiles - n, across - column)
        row, column = SIDE * row, SIDE * column
        piece = pieces[count]
        piece.first = n
        piece.length = length
        piece.source = (image * geometry.inputs * height + row - geometry.top) * width + column - geometry.left
        piece.rows = lanes_within(row - geometry.top, REACH, 1, height)
        piece.columns = lanes_within(column - geometry.left, SIDE * length + 2, 1, width)
        piece.target = (image * geometry.outputs * out_height + row) * out_width + column
        piece.height = min(SIDE, out_height - row)
        piece.written = (1 << min(SIDE * length, out_width - column)) - 1
        count += 1
        n += length
    return count


@inline
def _vectors(tiles):
    return (tiles + _LANES - 1) // _LANES


@inline
def _kernel_step(depth):
    return (even_inline(depth) + 1) * ROWS + _PADDING


@inline
def _input_step(depth, tiles):
    return (even_inline(depth) + 1) * _vectors(tiles) * _LANES + _PADDING


@inline
def _product_step(tiles):
    return ROWS * _vectors(tiles) * _LANES + _PADDING


@inline
def _prepare_kernels(operands, places, kernels, channels, panels):
    """Transform the kernels of ranges of input channels and panels."""
    (channel, end), (panel, last) = channels, panels
    step = _kernel_step(end - channel)
    for q in range(panel, last):
        for k in range(channel, end):
            target = Matrix(at(kernels, (q - panel) * POINTS * step + (k - channel) * ROWS), step)
            transform_kernels(at(operands.weight, 0), q, at(places, 18 * k), target)
        for n in range(POINTS):
            close_panel(at(kernels, ((q - panel) * POINTS + n) * step), end - channel, ROWS // _LANES, True)


@inline
def _prepare_inputs(x, space, geometry, channels, tiles, count):
    """Transform the inputs of so many tiles, in `count` pieces, for a range of input channels."""
    channel, end = channels
    step = _input_step(end - channel, tiles)
    for k in range(channel, end):
        for p in range(count):
            piece = space.pieces[p]
            source = Matrix(at(x, piece.source + k * geometry.height * geometry.width), geometry.width)
            target = Matrix(at(space.inputs, (k - channel) * _vectors(tiles) * _LANES + piece.first), step)
            transform_input(source, piece.rows, piece.columns, target, (1 << piece.length) - 1)
    for n in range(POINTS):
        close_panel(at(space.inputs, n * step), end - channel, _vectors(tiles), True)


@inline
def _multiply_points(space, panel, depth, tiles):
    """The products, at all points, of the kernels' panel, counted from the first in space, with the inputs of so many tiles."""
    stored, products = _vectors(tiles) * _LANES, space.products
    zeros = Before(at(products, products.size - ROWS), True)
    for n in range(POINTS):
        left = at(space.kernels, (panel * POINTS + n) * _kernel_step(depth))
        right = at(space.inputs, n * _input_step(depth, tiles))
        multiply_tile(left, right, Matrix(at(products, n * _product_step(tiles)), stored), zeros, even_inline(depth), _vectors(tiles), True)


@inline
def _add_outputs(operands, space, geometry, panel, tiles, count, fresh):
    """Add the products of a panel, transformed, to the bias if fresh, else to out; tiles and count as in `_prepare_inputs`."""
    out_width, pixels = geometry.out_width, geometry.out_height * geometry.out_width
    for output in range(panel * ROWS, min((panel + 1) * ROWS, geometry.outputs)):
        for p in range(count):
            piece = space.pieces[p]
            products = at(space.products, (output - panel * ROWS) * _vectors(tiles) * _LANES + piece.first)
            before = Before(at(operands.bias, output), fresh)
            target = Matrix(at(operands.out, piece.target + output * pixels), out_width)
            transform_output(Matrix(products, _product_step(tiles)), before, target, piece.height, piece.written)


@kernel
def _convolve_part(operands, places, space, geometry, block, part):
    """Compute a part of a convolution of undilated maps, in blocks of so many input channels; places: see `_places_of_taps`."""
    held = space.kernels.size // (POINTS * _kernel_step(block))
    for channel in range(0, geometry.inputs, block):
        channels = channel, min(channel + block, geometry.inputs)
        depth = channels[1] - channel
        for panel in range(part.first_panel, part.last_panel, held):
            panels = panel, min(panel + held, part.last_panel)
            _prepare_kernels(operands, places, space.kernels, channels, panels)
            for tile in range(part.first_tile, part.last_tile, _TILES):
                tiles = min(_TILES, part.last_tile - tile)
                count = _cut_rows(space.pieces, tile, tiles, geometry)
                if panel == part.first_panel or part.last_tile - part.first_tile > _TILES:
                    _prepare_inputs(operands.x, space, geometry, channels, tiles, count)
                for q in range(panel, panels[1]):
                    _multiply_points(space, q - panel, depth, tiles)
                    _add_outputs(operands, space, geometry, q, tiles, count, channel == 0)


def _channel_block(channels: int) -> int:
    """How many input channels are transformed at once: all blocks but the last are equal, and even."""
    return even(-(-channels // -(-channels // _DEPTH)))


_scratch = Scratch()


def _space(geometry: Geometry, part: WinogradPart) -> WinogradSpace:
    """Scratch for a part."""
    block, tiles = _channel_block(geometry.inputs), part.last_tile - part.first_tile
    of_panel = POINTS * ((block + 1) * ROWS + _PADDING)
    held = 1 if tiles <= _TILES else max(1, _KERNEL_BYTES // _WORD.itemsize // of_panel)  # one block of tiles needs each panel once
    return WinogradSpace(
        kernels=_scratch.words("kernels", min(held, part.last_panel - part.first_panel) * of_panel, _WORD),
        inputs=_scratch.words("inputs", POINTS * ((block + 1) * _TILES + _PADDING), _WORD),
        products=_scratch.words(
            "products", POINTS * (ROWS * _TILES + _PADDING) + _LANES + ROWS, _WORD
        ),  # the last piece is read as a vector
        pieces=_scratch.words("pieces", _TILES, WINOGRAD_PIECE),
    )


def _tiles_of(images: int, height: int, width: int) -> int:
    """Number of tiles that cover the output maps."""
    return images * -(-height // SIDE) * -(-width // SIDE)


def is_faster(images: int, channels: int, outputs: int, size: tuple[int, int], direct: float, copied: int) -> bool:
    """Whether `images` maps of outputs of `size`, by tiles, take less time than `direct` products for each pair of channels.

    `copied` is how many words have to be rearranged for it. Transforms count as so many products as take their time, as measured on
    an AMD Zen 4 core; where tiles fill few lanes or overhang the map, or channels are few, they outweigh what is saved.
    """
    height, width = size
    tiles = -(-_tiles_of(images, height, width) // _LANES) * _LANES
    in_rows = images * -(-height // SIDE) * -(-width // (SIDE * _LANES)) * _LANES
    products = (POINTS * tiles + 290) * channels * outputs
    transforms = in_rows * (330 * channels + 260 * outputs * -(-channels // _DEPTH)) + 260 * copied
    return products + transforms < direct * channels * outputs


@kernel
def _split_phases(x, maps, geometry, rows, columns, first, last):
    """Copy channels [first, last) of all images to the maps of rows x columns on which the dilated kernel is undilated.

    Word (i, j) of map (a, b) is the padded image's (a + i * down, b + j * across), zero in the padding and beyond; x is flat
    (images, channels, height, width), maps is flat (images, down, across, channels, rows, columns).
    """
    height, width, down, across, left = geometry.height, geometry.width, geometry.dilation_down, geometry.dilation_across, geometry.left
    for plane in range(first, last):
        image, channel = divmod(plane, geometry.inputs)
        for a in range(down):
            for b in range(across):
                target = (((image * down + a) * across + b) * geometry.inputs + channel) * rows * columns
                maps[target : target + rows * columns] = 0
                begin = max(0, (left - b + across - 1) // across)
                end = min(columns, (width + left - b + across - 1) // across)
                for i in range(rows):
                    row = a + i * down - geometry.top
                    if 0 <= row < height:
                        source = (plane * height + row) * width + b - left
                        for j in range(begin, end):
                            maps[target + i * columns + j] = x[source + j * across]


@kernel
def _merge_phases(maps, out, geometry, rows, columns, first, last):
    """The inverse of `_split_phases` for outputs, of which maps has rows x columns: channels [first, last) of all images."""
    height, width, down, across = geometry.out_height, geometry.out_width, geometry.dilation_down, geometry.dilation_across
    for plane in range(first, last):
        image, channel = divmod(plane, geometry.outputs)
        target = plane * height * width
        for y in range(height):
            i, a = divmod(y, down)
            for b in range(across):
                source = ((((image * down + a) * across + b) * geometry.outputs + channel) * rows + i) * columns
                for x in range(b, width, across):
                    out[target + x] = maps[source]
                    source += 1
            target += width


def convolve(operands: Operands, geometry: Geometry, images: int, threads: int) -> None:
    """Convolve so many images by tiles, with 3x3 kernels of stride 1 in one group.

    A dilated kernel is an undilated one on the maps of every so manieth row and column.
    """
    down, across = geometry.dilation_down, geometry.dilation_across
    if down * across == 1:
        _convolve_maps(operands, geometry, images, threads)
        return
    rows, columns, maps = -(-geometry.out_height // down), -(-geometry.out_width // across), images * down * across
    split = np.empty(maps * geometry.inputs * (rows + 2) * (columns + 2), operands.x.dtype)
    joined = np.empty(maps * geometry.outputs * rows * columns, operands.x.dtype)
    run_parts(partial(_split_phases, operands.x, split, geometry, rows + 2, columns + 2), ranges(images * geometry.inputs, threads))
    undilated = geometry._replace(
        height=rows + 2, width=columns + 2, top=0, left=0, dilation_down=1, dilation_across=1, out_height=rows, out_width=columns
    )
    _convolve_maps(operands._replace(x=read_only(split), out=joined), undilated, maps, threads)
    run_parts(partial(_merge_phases, joined, operands.out, geometry, rows, columns), ranges(images * geometry.outputs, threads))


def _convolve_maps(operands: Operands, geometry: Geometry, images: int, threads: int) -> None:
    panels, tiles = -(-geometry.outputs // ROWS), _tiles_of(images, geometry.out_height, geometry.out_width)
    places, block = _places_of_taps(geometry.inputs, panels), _channel_block(geometry.inputs)

    def work(*ends):
        part = WinogradPart(*ends)
        _convolve_part(operands, places, _space(geometry, part), geometry, block, part)

    # Each thread transforms what it multiplies: inputs again where they share output channels, kernels again where they share tiles.
    if tiles > geometry.outputs:
        run_parts(work, [(0, panels, *part) for part in ranges(tiles, threads, _LANES)])
    else:
        run_parts(work, [(*part, 0, tiles) for part in ranges(panels, threads)])
