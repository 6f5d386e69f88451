"""Convolution of ring words, exact modulo 2^l: an implicit im2col feeds the blocked matrix product of `gemm`.

Columns are the output pixels of all images, the depth is (kernel row, kernel column, channel) in this order. Panels of columns are
packed straight from the input: lanes that fall into the padding are masked, so no padded or unfolded copy ever exists. Where it is
faster, `winograd` computes the same words modulo 2^l with fewer products.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from threepc.kernels import winograd
from threepc.kernels.depthwise import correlate_channels, plane_words
from threepc.kernels.gemm import BUFFER_BYTES, depth_block, multiply_block, pack_rows, panel_width, stored_width
from threepc.kernels.options import inline, kernel
from threepc.kernels.threads import Scratch, run_parts
from threepc.kernels.tile import ROWS, VECTOR_BYTES, VECTORS, gather, lanes_within, stride_reach

SHORT_RING = 52  # bits of the widest ring that IFMA multiplies


@dataclass(frozen=True)
class PackedWeight:
    """A weight laid out for `convolve`.

    `panels` are the words in the order in which the kernels read them, `shape` is (O, C / groups, kh, kw), `bits` the size of the ring.
    """

    panels: np.ndarray
    shape: tuple[int, int, int, int]
    groups: int
    bits: int

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel only."""
        return self.shape[1] == 1 and self.groups > 1


def pack_weight(weight: np.ndarray, groups: int, bits: int) -> PackedWeight:
    """Lay out a weight (O, C / groups, kh, kw) of uint64 or uint32 words for `convolve` in the ring of 2^bits.

    Words may hold anything above bit `bits`. Raises ValueError for other shapes or types, or groups that do not divide O.
    """
    if weight.ndim != 4 or weight.dtype not in (np.uint64, np.uint32) or not weight.size:
        raise ValueError(f"a weight is a (O, C/groups, kh, kw) array of uint64 or uint32, not {weight.dtype} {weight.shape}")
    if groups < 1 or weight.shape[0] % groups or not 1 <= bits <= 8 * weight.itemsize:
        raise ValueError(f"{groups} groups and {bits} bits do not fit a weight of {weight.dtype} {weight.shape}")
    packed = PackedWeight(weight, weight.shape, groups, bits)
    if packed.depthwise:
        panels = weight.flatten()
    else:
        panels = pack_rows(weight.transpose(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1))
    panels.flags.writeable = False
    return PackedWeight(panels, weight.shape, groups, bits)


def output_size(
    height: int,
    width: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """(height, width) of the output map; padding is (top, left, bottom, right). Raises ValueError if the kernel does not fit."""
    top, left, bottom, right = padding
    if min(*stride, *dilation, *kernel) < 1 or min(padding) < 0:
        raise ValueError(f"kernel {kernel}, stride {stride} and dilation {dilation} must be positive, padding {padding} not negative")
    rows = height + top + bottom - dilation[0] * (kernel[0] - 1) - 1
    columns = width + left + right - dilation[1] * (kernel[1] - 1) - 1
    if rows < 0 or columns < 0:
        raise ValueError(f"a kernel {kernel} of dilation {dilation} does not fit a map of {height} x {width} with padding {padding}")
    return rows // stride[0] + 1, columns // stride[1] + 1


@inline
def _cut_pieces(pieces, column, width, geometry, lanes):
    """Cut a panel of columns into pieces of at most a vector, each within one row of the map; returns how many.

    A piece is its first column in the panel, the place of its image in x, row and column of its first pixel's window, and its length.
    """
    channels, height, wide, _, _, _, stride_down, stride_across, top, left, _, _, out_height, out_width = geometry
    reach = stride_reach(stride_across, lanes)
    count, n = 0, 0
    image, pixel = divmod(column, out_height * out_width)
    row, across = divmod(pixel, out_width)
    while n < width:
        length = min(reach, width - n, out_width - across)
        pieces[count, 0] = n
        pieces[count, 1] = image * channels * height * wide
        pieces[count, 2] = row * stride_down - top
        pieces[count, 3] = across * stride_across - left
        pieces[count, 4] = length
        count += 1
        n += length
        across += length
        if across == out_width:
            across = 0
            row += 1
            if row == out_height:
                row = 0
                image += 1
    return count


@inline
def _aim_pieces(pieces, count, down, across, geometry):
    """For the kernel's tap at offset (down, across), find where each piece reads in channel 0 of x, and which words are within the map.

    Returns whether any are.
    """
    _, height, wide, _, _, _, _, stride, _, _, _, _, _, _ = geometry
    anything = False
    for p in range(count):
        row, column, length = pieces[p, 2] + down, pieces[p, 3] + across, pieces[p, 4]
        pieces[p, 5] = pieces[p, 1] + row * wide + column
        pieces[p, 6] = lanes_within(column, length, stride, wide) if 0 <= row < height else 0
        pieces[p, 7] = (1 << length) - 1
        anything |= pieces[p, 6] != 0
    return anything


@inline
def _pack_columns(x, channel, buffer, live, pieces, column, columns, begin, end, geometry):
    """Pack rows [begin, end) of the unfolded input, for `columns` of its columns from `column` on, as right-hand panels into `buffer`.

    Panels that read nothing but padding, as many do where kernels are dilated, are not `live`.
    """
    _, height, wide, group_channels, _, kernel_width, _, stride, _, _, dilation_down, dilation_across, _, _ = geometry
    lanes = VECTOR_BYTES // x.itemsize
    at, done, panel = 0, 0, 0
    while done < columns:
        width = panel_width(columns - done, lanes)
        stored = stored_width(width, lanes)
        count = _cut_pieces(pieces, column + done, width, geometry, lanes)
        live[panel] = False
        for tap in range(begin // group_channels, (end - 1) // group_channels + 1):
            kernel_row, kernel_column = divmod(tap, kernel_width)
            live[panel] |= _aim_pieces(pieces, count, kernel_row * dilation_down, kernel_column * dilation_across, geometry)
            for k in range(max(begin, tap * group_channels), min(end, (tap + 1) * group_channels)):
                source = (channel + k - tap * group_channels) * height * wide
                row = at + (k - begin) * stored
                for p in range(count):
                    gather(buffer, row + pieces[p, 0], x, source + pieces[p, 5], pieces[p, 6], pieces[p, 7], stride)
        at += stored * (end - begin)
        done += width
        panel += 1


@kernel
def _convolve_part(panels, x, bias, out, buffer, tile, pieces, geometry, groups, rows, step, short, part):
    """Compute `part` of a convolution: ranges of groups, left-hand panels and columns; `rows` output channels a group, depth in steps."""
    _, _, _, group_channels, kernel_height, kernel_width, _, _, _, _, _, _, out_height, out_width = geometry
    first_group, last_group, first_panel, last_panel, first_column, last_column = part
    depth = group_channels * kernel_height * kernel_width
    padded_rows = (rows + ROWS - 1) // ROWS * ROWS
    widest = VECTORS * VECTOR_BYTES // x.itemsize
    capacity = buffer.size // step // widest * widest
    live = np.empty(capacity // widest + 2, np.bool_)  # the last columns may take two panels more: whole vectors, and the rest
    for group in range(first_group, last_group):
        for column in range(first_column, last_column, capacity):
            columns = min(capacity, last_column - column)
            for begin in range(0, depth, step):
                end = min(begin + step, depth)
                _pack_columns(x, group * group_channels, buffer, live, pieces, column, columns, begin, end, geometry)
                multiply_block(
                    panels,
                    (group * depth + begin) * padded_rows,
                    first_panel,
                    last_panel,
                    rows,
                    buffer,
                    live,
                    column,
                    columns,
                    end - begin,
                    bias,
                    group * padded_rows,
                    out,
                    group * rows,
                    groups * rows,
                    out_height * out_width,
                    tile,
                    begin == 0,
                    short,
                )


_scratch = Scratch()


def _ranges(count: int, parts: int, grain: int = 1) -> list[tuple[int, int]]:
    """Cut range(count) into at most `parts` nearly equal ranges, all but the last of multiples of `grain`."""
    step = -(-count // (min(parts, -(-count // grain)) * grain)) * grain
    return [(begin, min(begin + step, count)) for begin in range(0, count, step)]


def _read_only(words: np.ndarray) -> np.ndarray:
    """A flat read-only view, so that numba compiles for one type whoever owns the memory; a copy if it is not contiguous or aligned."""
    flat = np.require(words, requirements=["C", "A"]).reshape(-1).view()
    flat.flags.writeable = False
    return flat


def convolve(
    x: np.ndarray,
    weight: PackedWeight,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    bias: np.ndarray | None = None,
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Convolve x (N, C, H, W) with a packed weight: (N, O, OH, OW) words, of which the low `weight.bits` bits are meaningful.

    x, bias (O,) and out are arrays of the weight's type, uint64 or uint32; padding is (top, left, bottom, right) zeros. The result is
    written to `out` where given (C-contiguous) and returned. `threads` is how many processor cores to use. Raises ValueError for
    shapes or types that do not fit.
    """
    channels_out, group_channels, *kernel_size = weight.shape
    if x.ndim != 4 or x.shape[1] != group_channels * weight.groups or x.dtype != weight.panels.dtype:
        raise ValueError(f"x is {x.dtype} {x.shape}, the weight takes {weight.panels.dtype} (N, {group_channels * weight.groups}, H, W)")
    if bias is not None and (bias.shape != (channels_out,) or bias.dtype != x.dtype):
        raise ValueError(f"bias is {bias.dtype} {bias.shape}, not {x.dtype} ({channels_out},)")
    images, channels, height, wide = x.shape
    out_height, out_width = output_size(height, wide, kernel_size, stride, padding, dilation)
    shape = (images, channels_out, out_height, out_width)
    if out is None:
        out = np.empty(shape, x.dtype)
    elif out.shape != shape or out.dtype != x.dtype or not out.flags.carray:
        raise ValueError(f"out is {out.dtype} {out.shape}, not C-contiguous {x.dtype} {shape}")
    if not out.size:
        return out
    rows = channels_out // weight.groups
    padded_bias = np.zeros((weight.groups, -(-rows // ROWS) * ROWS), x.dtype)
    if bias is not None:
        padded_bias[:, :rows] = bias.reshape(weight.groups, rows)
    if _winograd_is_faster(weight, x.shape, out.shape, stride, dilation):
        _convolve_tiles(x, weight, padding, dilation, padded_bias.reshape(-1), out, threads)
        return out
    if not weight.depthwise and tuple(kernel_size) == (1, 1) and tuple(stride) == (1, 1) and not any(padding):
        height, wide, out_height, out_width = 1, height * wide, 1, out_height * out_width  # one long row: longer pieces to copy
    geometry = (channels, height, wide, group_channels, *kernel_size, *stride, *padding[:2], *dilation, out_height, out_width)
    geometry = tuple(int(value) for value in geometry)
    panels, source, start, target = weight.panels, _read_only(x), _read_only(padded_bias), out.reshape(-1)
    short = weight.bits <= SHORT_RING

    def correlate(*part):
        plane = _scratch.words("plane", plane_words(geometry), x.dtype)
        correlate_channels(panels, source, start, target, plane, geometry, rows, padded_bias.shape[1], short, part)

    def multiply(*part):
        widest = VECTORS * VECTOR_BYTES // x.itemsize
        buffer = _scratch.words("buffer", BUFFER_BYTES // x.itemsize, x.dtype)
        tile = _scratch.words("tile", ROWS * widest + ROWS, x.dtype)
        pieces = _scratch.words("pieces", widest * 8, np.dtype(np.int64)).reshape(widest, 8)
        step = depth_block(group_channels * kernel_size[0] * kernel_size[1])
        _convolve_part(panels, source, start, target, buffer, tile, pieces, geometry, weight.groups, rows, step, short, part)

    if weight.depthwise:
        run_parts(correlate, _ranges(images * channels, threads))
    else:
        run_parts(multiply, _split(weight.groups, -(-rows // ROWS), images * out_height * out_width, x.itemsize, threads))
    return out


def _winograd_is_faster(
    weight: PackedWeight, shape: tuple[int, ...], out_shape: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> bool:
    """Whether a convolution may go by `winograd`, and should."""
    fits = weight.shape[2:] == (3, 3) and weight.groups == 1 and tuple(stride) == (1, 1)
    if not fits or weight.bits > winograd.RING_BITS or weight.panels.dtype != np.uint64:
        return False
    images, outputs, height, wide = out_shape
    down, across = dilation
    copied = math.prod(shape) + math.prod(out_shape) if down * across > 1 else 0
    size = -(-height // down), -(-wide // across)
    return winograd.is_faster(images * down * across, shape[1], outputs, size, 9 * images * height * wide, copied)


def _convolve_tiles(
    x: np.ndarray,
    weight: PackedWeight,
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    start: np.ndarray,
    out: np.ndarray,
    threads: int,
) -> None:
    """Convolve by `winograd`; a dilated kernel is an undilated one on the maps of every so manieth row and column."""
    images, channels, height, wide = x.shape
    _, outputs, out_height, out_wide = out.shape
    (top, left), (down, across) = padding[:2], dilation
    source, target = _read_only(x), out.reshape(-1)
    rows, columns = -(-out_height // down), -(-out_wide // across)
    maps = images * down * across
    if maps > images:
        split = np.empty(maps * channels * (rows + 2) * (columns + 2), x.dtype)
        target = np.empty(maps * outputs * rows * columns, x.dtype)
        run_parts(
            lambda *part: winograd.split_phases(
                source, split, height, wide, top, left, down, across, rows + 2, columns + 2, channels, part
            ),
            _ranges(images * channels, threads),
        )
        source, height, wide, top, left = _read_only(split), rows + 2, columns + 2, 0, 0
    geometry = channels, height, wide, outputs, top, left, rows, columns
    panels, tiles = -(-outputs // ROWS), winograd.tiles_of(maps, rows, columns)
    places, block = winograd.places_of_taps(channels, panels), winograd.channel_block(channels)

    def multiply(*part):
        *sizes, pieces_shape = winograd.scratch_words(channels, part[1] - part[0], part[3] - part[2])
        kernels, inputs, products = (_scratch.words(f"Winograd {n}", size, x.dtype) for n, size in enumerate(sizes))
        pieces = _scratch.words("Winograd pieces", math.prod(pieces_shape), np.dtype(np.int64)).reshape(pieces_shape)
        winograd.convolve_tiles(weight.panels, places, source, start, target, kernels, inputs, products, pieces, geometry, block, part)

    # Each thread transforms what it multiplies: inputs again where they share output channels, kernels again where they share tiles.
    if tiles > outputs:
        run_parts(multiply, [(0, panels, *part) for part in _ranges(tiles, threads, VECTOR_BYTES // x.itemsize)])
    else:
        run_parts(multiply, [(*part, 0, tiles) for part in _ranges(panels, threads)])
    if maps > images:
        flat = out.reshape(-1)
        run_parts(
            lambda *part: winograd.merge_phases(target, flat, out_height, out_wide, down, across, rows, columns, outputs, part),
            _ranges(images * outputs, threads),
        )


def _split(groups: int, panels: int, columns: int, itemsize: int, threads: int) -> list[tuple]:
    """Ranges of groups, panels and columns for each thread: whole groups, else columns, else, where these are few, rows."""
    grain = VECTORS * VECTOR_BYTES // itemsize
    if groups >= threads:
        return [(*part, 0, panels, 0, columns) for part in _ranges(groups, threads)]
    if columns >= 4 * threads * grain or columns > panels * ROWS:
        return [(0, groups, 0, panels, *part) for part in _ranges(columns, threads, grain)]
    return [(0, groups, *part, 0, columns) for part in _ranges(panels, threads)]


def warm_up(bits: int) -> Iterator[str]:
    """Compile the kernels that a ring of 2^bits needs, or load them from the cache, yielding a label before each step."""
    dtype = np.dtype(np.uint64 if bits > 32 else np.uint32)
    for label, groups in (("convolution", 1), ("depthwise convolution", 2)):
        yield f"{label}, {bits} bits"
        weight = pack_weight(np.ones((2, 2 // groups, 1, 1), dtype), groups, bits)
        convolve(np.ones((1, 2, 1, 1), dtype), weight)
    if 32 < bits <= winograd.RING_BITS:
        yield f"Winograd convolution, {bits} bits"
        x, weight = np.ones((1, 1, 4, 4), dtype), pack_weight(np.ones((1, 1, 3, 3), dtype), 1, bits)
        _convolve_tiles(x, weight, (2, 2, 2, 2), (2, 2), np.zeros(ROWS, dtype), np.empty_like(x), 1)
