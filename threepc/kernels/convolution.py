"""Convolution of ring words, exact modulo 2^l: an implicit im2col feeds the blocked matrix product of `gemm`.

Columns are the output pixels of all images, the depth is (kernel row, kernel column, channel) in this order. Panels of columns are
packed straight from the input: lanes that fall into the padding are masked, so no padded or unfolded copy ever exists. Where it is
faster, `winograd` computes the same words modulo 2^l with fewer products.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from threepc.kernels import winograd
from threepc.kernels.depthwise import correlate_channels, plane_words
from threepc.kernels.emitter import VECTOR_BYTES, at
from threepc.kernels.gemm import (
    BUFFER_BYTES,
    Block,
    Part,
    Space,
    depth_block,
    even_inline,
    multiply_block,
    pack_rows,
    padded_rows,
    panel_width,
    stored_width,
)
from threepc.kernels.geometry import Geometry, Operands, read_only
from threepc.kernels.options import has_ifma, inline, kernel
from threepc.kernels.threads import Scratch, ranges, run_parts
from threepc.kernels.tile import NARROW, ROWS, VECTORS, close_panel, gather, lanes_within, stride_reach
from threepc.kernels.winograd_transforms import RING_BITS

SHORT_RING = 52  # bits of the widest ring that IFMA multiplies
NARROW_PRODUCT = 0.65  # what a product of words of 32 bits takes of one by IFMA, on an AMD Zen 4 core


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
        panels = pack_rows(weight.transpose(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1), bits <= SHORT_RING)
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


PIECE = np.dtype(
    [
        ("first", np.int64),  # column in its panel
        ("image", np.int64),  # place of its image in x
        ("row", np.int64),  # of the window of its first pixel in the map; outside it, that of the padding
        ("column", np.int64),
        ("length", np.int64),
        ("source", np.int64),  # place in x, for channel 0, of what the tap at hand reads
        ("readable", np.int64),  # which words from there on are within the map, as `gather` takes it
        ("writable", np.int64),
    ]
)
"""Columns of a panel, at most a vector, that lie within one row of the output map."""


@inline
def _cut_pieces(pieces, column, width, geometry, lanes):
    """Cut a panel of `width` columns from `column` on into pieces; returns how many."""
    out_height, out_width = geometry.out_height, geometry.out_width
    reach = stride_reach(geometry.stride_across, lanes)
    count, n = 0, 0
    image, pixel = divmod(column, out_height * out_width)
    row, across = divmod(pixel, out_width)
    while n < width:
        length = min(reach, width - n, out_width - across)
        piece = pieces[count]
        piece.first = n
        piece.image = image * geometry.groups * geometry.inputs * geometry.height * geometry.width
        piece.row = row * geometry.stride_down - geometry.top
        piece.column = across * geometry.stride_across - geometry.left
        piece.length = length
        piece.writable = (1 << length) - 1
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
    """Find what the kernel's tap at offset (down, across) reads in each piece; returns whether that is anything but padding."""
    anything = False
    for p in range(count):
        piece = pieces[p]
        row, column = piece.row + down, piece.column + across
        piece.source = piece.image + row * geometry.width + column
        inside = 0 <= row < geometry.height
        piece.readable = lanes_within(column, piece.length, geometry.stride_across, geometry.width) if inside else 0
        anything |= piece.readable != 0
    return anything


@inline
def _pack_columns(x, space, geometry, block):
    """Pack a block of the unfolded input, whose rows are the depth, as right-hand panels.

    Panels that read nothing but padding, as many do where kernels are dilated, are not `live`.
    """
    buffer, live, pieces, inputs = space.buffer, space.live, space.pieces, geometry.inputs
    lanes = VECTOR_BYTES // x.itemsize
    place, done, panel = 0, 0, 0
    while done < block.columns:
        width = panel_width(block.columns - done, lanes)
        stored = stored_width(width, lanes)
        count = _cut_pieces(pieces, block.column + done, width, geometry, lanes)
        live[panel] = False
        for tap in range(block.begin // inputs, (block.end - 1) // inputs + 1):
            down, across = divmod(tap, geometry.kernel_width)
            live[panel] |= _aim_pieces(pieces, count, down * geometry.dilation_down, across * geometry.dilation_across, geometry)
            for k in range(max(block.begin, tap * inputs), min(block.end, (tap + 1) * inputs)):
                channel = (block.group * inputs + k - tap * inputs) * geometry.height * geometry.width
                row = place + (k - block.begin) * stored
                for p in range(count):
                    piece = pieces[p]
                    source = at(x, channel + piece.source)
                    gather(at(buffer, row + piece.first), source, piece.readable, piece.writable, geometry.stride_across)
        if width > NARROW:
            close_panel(at(buffer, place), block.end - block.begin, stored // lanes, geometry.short)
        elif (block.end - block.begin) % 2:
            last = place + (block.end - block.begin) * stored
            buffer[last : last + stored] = 0
        place += stored * (even_inline(block.end - block.begin) + 1)
        done += width
        panel += 1


@kernel
def _convolve_part(operands, space, geometry, part, step):
    """Compute a part of a convolution, in blocks that are as wide as the buffer and, at most, `step` deep."""
    depth = geometry.inputs * geometry.kernel_height * geometry.kernel_width
    widest, rows = VECTORS * VECTOR_BYTES // operands.x.itemsize, padded_rows(geometry)
    capacity = space.buffer.size // (step + 1) // widest * widest
    of_group = (even_inline(depth) + (depth + step - 1) // step) * rows
    for group in range(part.first_group, part.last_group):
        for column in range(part.first_column, part.last_column, capacity):
            for begin in range(0, depth, step):
                left = group * of_group + (begin + begin // step) * rows
                block = Block(group, column, min(capacity, part.last_column - column), begin, min(begin + step, depth), left)
                _pack_columns(operands.x, space, geometry, block)
                multiply_block(operands, space, geometry, part, block)


_scratch = Scratch()


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
    if not weight.depthwise and tuple(kernel_size) == (1, 1) and tuple(stride) == (1, 1) and not any(padding):
        height, wide, out_height, out_width = 1, height * wide, 1, out_height * out_width  # one long row: longer pieces to copy
    operands = Operands(weight.panels, read_only(x), read_only(padded_bias), out.reshape(-1))
    sizes = (weight.groups, group_channels, rows, height, wide, *kernel_size, *stride, *padding[:2], *dilation, out_height, out_width)
    geometry = Geometry(*map(int, sizes), short=weight.bits <= SHORT_RING)
    if weight.depthwise:
        run_parts(partial(_correlate, operands, geometry), ranges(images * channels, threads))
    elif _winograd_is_faster(weight, images, geometry):
        winograd.convolve(operands, geometry, images, threads)
    else:
        run_parts(partial(_multiply, operands, geometry), _split(geometry, images * out_height * out_width, x.itemsize, threads))
    return out


def _correlate(operands: Operands, geometry: Geometry, first: int, last: int) -> None:
    plane = _scratch.words("plane", plane_words(geometry), operands.x.dtype)
    correlate_channels(operands, plane, geometry, first, last)


def _multiply(operands: Operands, geometry: Geometry, *part: int) -> None:
    dtype = operands.x.dtype
    words, widest = BUFFER_BYTES // dtype.itemsize, VECTORS * VECTOR_BYTES // dtype.itemsize
    space = Space(
        buffer=_scratch.words("buffer", words, dtype),
        live=_scratch.words("live", words // widest + 2, np.bool_),  # of the last columns, whole vectors and the rest may be panels too
        pieces=_scratch.words("pieces", widest, PIECE),
        tile=_scratch.words("tile", ROWS * widest + ROWS, dtype),
    )
    step = depth_block(geometry.inputs * geometry.kernel_height * geometry.kernel_width)
    _convolve_part(operands, space, geometry, Part(*part), step)


def _winograd_is_faster(weight: PackedWeight, images: int, geometry: Geometry) -> bool:
    """Whether a convolution may go by `winograd`, and should."""
    fits = weight.shape[2:] == (3, 3) and weight.groups == 1 and geometry.stride_down == geometry.stride_across == 1
    if not fits or weight.bits > RING_BITS or (weight.panels.itemsize == 4 and not has_ifma()):
        return False
    inputs, outputs, down, across = geometry.inputs, geometry.outputs, geometry.dilation_down, geometry.dilation_across
    pixels = geometry.out_height * geometry.out_width
    copied = images * (inputs * geometry.height * geometry.width + outputs * pixels) if down * across > 1 else 0
    size = -(-geometry.out_height // down), -(-geometry.out_width // across)
    direct = 9 * images * pixels * (NARROW_PRODUCT if weight.panels.itemsize == 4 else 1)
    return winograd.is_faster(images * down * across, inputs, outputs, size, direct, copied)


def _split(geometry: Geometry, columns: int, itemsize: int, threads: int) -> list[tuple[int, ...]]:
    """What makes the `Part` of each thread: whole groups, else columns, else, where these are few, rows."""
    groups, panels = geometry.groups, -(-geometry.outputs // ROWS)
    grain = VECTORS * VECTOR_BYTES // itemsize
    if groups >= threads:
        return [(*part, 0, panels, 0, columns) for part in ranges(groups, threads)]
    if columns >= 4 * threads * grain or columns > panels * ROWS:
        return [(0, groups, 0, panels, *part) for part in ranges(columns, threads, grain)]
    return [(0, groups, *part, 0, columns) for part in ranges(panels, threads)]


def warm_up(bits: int) -> Iterator[str]:
    """Compile the kernels that a ring of 2^bits needs, or load them from the cache, yielding a label before each step."""
    dtype = np.dtype(np.uint64 if bits > 32 else np.uint32)
    for label, groups in (("convolution", 1), ("depthwise convolution", 2)):
        yield f"{label}, {bits} bits"
        weight = pack_weight(np.ones((2, 2 // groups, 1, 1), dtype), groups, bits)
        convolve(np.ones((1, 2, 1, 1), dtype), weight)
    if bits <= RING_BITS and (bits > 32 or has_ifma()):
        yield f"Winograd convolution, {bits} bits"
        weight, x = pack_weight(np.ones((1, 1, 3, 3), dtype), 1, bits), np.ones(16, dtype)
        dilated = Geometry(1, 1, 1, 4, 4, 3, 3, 1, 1, 2, 2, 2, 2, 4, 4, short=True)
        winograd.convolve(Operands(weight.panels, read_only(x), read_only(np.zeros(ROWS, dtype)), np.empty_like(x)), dilated, 1, 1)
