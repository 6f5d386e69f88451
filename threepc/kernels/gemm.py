"""Products of packed matrices of ring words: panels of ROWS rows on the left, panels of a few vectors of columns on the right.

Blocking after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): the depth is cut into blocks, the
right-hand block stays in the second-level cache while the left-hand panels, which are the weights, stream past it once.
"""

import numpy as np

from threepc.kernels.options import inline
from threepc.kernels.tile import NARROW, ROWS, VECTOR_BYTES, VECTORS, multiply_narrow, multiply_tile

DEPTH_BLOCK = 256
BUFFER_BYTES = 1 << 19  # of a packed right-hand block: half a usual second-level cache


def depth_block(depth: int) -> int:
    """Depth of the blocks, all but the last equal, into which a matrix of this depth is cut."""
    return -(-depth // -(-depth // DEPTH_BLOCK))


def pack_rows(matrix: np.ndarray) -> np.ndarray:
    """Pack (groups, rows, depth) words for the left-hand side: blocks of depth, each of panels (depth, ROWS), zero rows at the end."""
    groups, rows, depth = matrix.shape
    padded = np.zeros((groups, -(-rows // ROWS) * ROWS, depth), matrix.dtype)
    padded[:, :rows] = matrix
    step = depth_block(depth)
    packed = [
        np.ascontiguousarray(panel[:, :, k : k + step].transpose(0, 2, 1)).ravel()
        for panel in padded.reshape(groups, -1, ROWS, depth)
        for k in range(0, depth, step)
    ]
    return np.concatenate(packed)


@inline
def panel_width(columns, lanes):
    """How many of the `columns` that are left the next right-hand panel takes."""
    if columns >= VECTORS * lanes:
        return VECTORS * lanes
    rest = columns % lanes
    if rest > NARROW or rest == columns or rest == 0:
        return columns
    return columns - rest


@inline
def stored_width(width, lanes):
    """Words in a row of a right-hand panel of `width` columns: whole vectors, unless it is narrow."""
    return width if width <= NARROW else (width + lanes - 1) // lanes * lanes


@inline
def _scatter(tile, across, down, width, height, bias, first_bias, out, place, pixel, channels, pixels, fresh):
    """Add a tile to the rows of bias if fresh, else to out, from out[place] on; columns run on into the next image after `pixels`.

    The word of row r and column n is tile[n * across + r * down]; `pixel` is the first column's within its image.
    """
    for n in range(width):
        for r in range(height):
            before = bias[first_bias + r] if fresh else out[place + r * pixels]
            out[place + r * pixels] = before + tile[n * across + r * down]
        pixel += 1
        place += 1
        if pixel == pixels:
            pixel = 0
            place += (channels - 1) * pixels


@inline
def multiply_block(
    panels,
    a,
    first_panel,
    last_panel,
    rows,
    buffer,
    live,
    column,
    columns,
    depth,
    bias,
    first_bias,
    out,
    channel,
    channels,
    pixels,
    tile,
    fresh,
    short,
):
    """Multiply left-hand panels [first_panel, last_panel) of the block at panels[a] by the packed columns in `buffer`.

    Column n of the product is pixel n % pixels of image n // pixels; the block holds `columns` of them from `column` on. Row r goes to
    channel `channel + r` of `channels`, for r < rows. The product starts from bias[first_bias + r] if fresh, else adds to out, for
    those right-hand panels alone that are `live`: the others are zero.
    `tile` is scratch for the products that do not lie in `out` as tiles do, followed by ROWS zeros.
    """
    lanes = VECTOR_BYTES // out.itemsize
    for panel in range(first_panel, last_panel):
        height = min(ROWS, rows - panel * ROWS)
        left, start = a + panel * depth * ROWS, first_bias + panel * ROWS
        right, done, count = 0, 0, 0
        while done < columns:
            width = panel_width(columns - done, lanes)
            stored = stored_width(width, lanes)
            vectors = stored // lanes
            image, pixel = divmod(column + done, pixels)
            place = (image * channels + channel + panel * ROWS) * pixels + pixel
            if not (fresh or live[count]):
                pass
            elif width <= NARROW:
                multiply_narrow(panels, left, buffer, right, tile, 0, depth, width, short)
                _scatter(tile, ROWS, 1, width, height, bias, start, out, place, pixel, channels, pixels, fresh)
            elif width == stored and height == ROWS and pixel + width <= pixels:
                multiply_tile(panels, left, buffer, right, out, place, bias, start, depth, pixels, vectors, fresh, short)
            else:
                multiply_tile(panels, left, buffer, right, tile, 0, tile, tile.size - ROWS, depth, stored, vectors, True, short)
                _scatter(tile, 1, stored, width, height, bias, start, out, place, pixel, channels, pixels, fresh)
            right += stored * depth
            done += width
            count += 1
