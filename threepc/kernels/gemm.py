"""Products of packed matrices of ring words: panels of ROWS rows on the left, panels of a few vectors of columns on the right.

Blocking after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): the depth is cut into blocks, the
right-hand block stays in the second-level cache while the left-hand panels, which are the weights, stream past it once.
"""

from typing import NamedTuple

import numpy as np

from threepc.kernels.emitter import VECTOR_BYTES, Before, Matrix, at
from threepc.kernels.options import has_ifma, inline
from threepc.kernels.tile import NARROW, ROWS, VECTORS, in_pairs, multiply_narrow, multiply_tile

DEPTH_BLOCK = 256
BUFFER_BYTES = 1 << 19  # of a packed right-hand block: half a usual second-level cache


def even(depth: int) -> int:
    """Rows of a panel but its last, which `tile.close_panel` adds."""
    return depth + depth % 2


def depth_block(depth: int) -> int:
    """Depth of the blocks, all but the last equal, and even, into which a matrix of this depth is cut."""
    return even(-(-depth // -(-depth // DEPTH_BLOCK)))


def pack_rows(matrix: np.ndarray, short: bool) -> np.ndarray:
    """Pack (groups, rows, depth) words for the left-hand side: blocks of depth, each of panels (even depth + 1, ROWS), zero rows at the end.

    Panels are complete, as `tile.close_panel` has it. short: whether the ring is one that IFMA multiplies.
    """
    groups, rows, depth = matrix.shape
    padded = np.zeros((groups, -(-rows // ROWS) * ROWS, even(depth)), matrix.dtype)
    padded[:, :rows, :depth] = matrix
    step = depth_block(depth)
    packed, paired = [], in_pairs(short and matrix.itemsize == 8 and has_ifma())
    for panels in padded.reshape(groups, -1, ROWS, even(depth)):
        for k in range(0, depth, step):
            block = panels[:, :, k : k + step].transpose(0, 2, 1)
            last = (
                -(block[:, ::2] * block[:, 1::2]).sum(axis=1, keepdims=True, dtype=matrix.dtype) if paired else np.zeros_like(block[:, :1])
            )
            packed.append(np.concatenate([block, last], axis=1).ravel())
    return np.concatenate(packed)


class Part(NamedTuple):
    """What one thread computes of the products of all groups."""

    first_group: int
    last_group: int
    first_panel: int  # of the left-hand panels, ROWS output channels each
    last_panel: int
    first_column: int  # of the columns, which are the output pixels of all images
    last_column: int


class Block(NamedTuple):
    """Columns [column, column + columns) of a group's product, summed over the depth [begin, end)."""

    group: int
    column: int
    columns: int
    begin: int
    end: int
    left: int  # place in the weight of its first left-hand panel


class Space(NamedTuple):
    """Scratch of one thread."""

    buffer: np.ndarray  # the right-hand panels of a block
    live: np.ndarray  # bool, whether each of them holds anything but zeros
    pieces: np.ndarray  # of a panel, as they are packed
    tile: np.ndarray  # for products that do not lie in out as tiles do, then ROWS zeros


class Target(NamedTuple):
    """Where a tile of the product goes."""

    row: int  # of the bias, for its first row
    place: int  # in out, of its first word
    pixel: int  # in its image, of its first column
    height: int
    width: int


even_inline = inline(even)


@inline
def panel_width(columns, lanes):
    """How many of the `columns` that are left the next right-hand panel takes."""
    if columns >= VECTORS * lanes:
        return VECTORS * lanes
    rest = columns % lanes
    if rest > NARROW or rest in (0, columns):
        return columns
    return columns - rest


@inline
def stored_width(width, lanes):
    """Words in a row of a right-hand panel of `width` columns: whole vectors, unless it is narrow."""
    return width if width <= NARROW else (width + lanes - 1) // lanes * lanes


@inline
def padded_rows(geometry):
    """Rows of all left-hand panels of a group: its output channels, then zeros."""
    return (geometry.outputs + ROWS - 1) // ROWS * ROWS


@inline
def _scatter(operands, geometry, tile, across, down, target, fresh):
    """Add a tile to the bias if fresh, else to out; the word of its row r and column n is tile[n * across + r * down]."""
    bias, out, place, pixel = operands.bias, operands.out, target.place, target.pixel
    pixels = geometry.out_height * geometry.out_width
    n = 0
    while n < target.width:
        length = min(target.width - n, pixels - pixel)  # up to the end of the image
        for r in range(target.height):
            for i in range(length):
                before = bias[target.row + r] if fresh else out[place + r * pixels + i]
                out[place + r * pixels + i] = before + tile[(n + i) * across + r * down]
        n += length
        pixel = 0
        place += length + (geometry.groups * geometry.outputs - 1) * pixels


@inline
def multiply_block(operands, space, geometry, part, block):
    """Multiply the part's left-hand panels by the packed columns of a block, and add the product to out.

    Column n of the product is pixel n % pixels of image n // pixels. A block that begins the depth starts from the bias; of the others only those
    right-hand panels are multiplied that are `live`.
    """
    weight, bias, out, buffer, tile = operands.weight, operands.bias, operands.out, space.buffer, space.tile
    lanes = VECTOR_BYTES // out.itemsize
    pixels, rows = geometry.out_height * geometry.out_width, padded_rows(geometry)
    depth, fresh, short = even_inline(block.end - block.begin), block.begin == 0, geometry.short
    for panel in range(part.first_panel, part.last_panel):
        channel, row = block.group * geometry.outputs + panel * ROWS, block.group * rows + panel * ROWS
        left, height = at(weight, block.left + panel * (depth + 1) * ROWS), min(ROWS, geometry.outputs - panel * ROWS)
        packed, done, count = 0, 0, 0
        while done < block.columns:
            width = panel_width(block.columns - done, lanes)
            stored = stored_width(width, lanes)
            right, vectors = at(buffer, packed), stored // lanes
            image, pixel = divmod(block.column + done, pixels)
            place = (image * geometry.groups * geometry.outputs + channel) * pixels + pixel
            target = Target(row, place, pixel, height, width)
            if not (fresh or space.live[count]):
                pass
            elif width <= NARROW:
                multiply_narrow(left, right, at(tile, 0), depth, width, short)
                _scatter(operands, geometry, tile, ROWS, 1, target, fresh)
            elif width == stored and height == ROWS and pixel + width <= pixels:
                multiply_tile(left, right, Matrix(at(out, place), pixels), Before(at(bias, row), fresh), depth, vectors, short)
            else:
                multiply_tile(left, right, Matrix(at(tile, 0), stored), Before(at(tile, tile.size - ROWS), True), depth, vectors, short)
                _scatter(operands, geometry, tile, 1, stored, target, fresh)
            packed += stored * (depth + 1)
            done += width
            count += 1
