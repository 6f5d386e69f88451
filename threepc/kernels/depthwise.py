"""Depthwise convolution of ring words: every output channel is the correlation of one input channel with its own small kernel.

A channel is first copied to planes, with its zero padding and one plane for each phase of the stride, so that every tap of the kernel
reads contiguous words; channels are small enough for the planes to stay in the cache.
"""

import numpy as np

from threepc.kernels.emitter import VECTOR_BYTES, at
from threepc.kernels.gemm import padded_rows
from threepc.kernels.geometry import Geometry
from threepc.kernels.options import inline, kernel
from threepc.kernels.tile import ROW_VECTORS, Taps, correlate_row, gather, lanes_within, stride_reach


def _plane_size(geometry: Geometry) -> tuple[int, int]:
    """Rows and columns of one phase of a padded channel."""
    rows = geometry.out_height + geometry.dilation_down * (geometry.kernel_height - 1) // geometry.stride_down
    return rows, geometry.out_width + geometry.dilation_across * (geometry.kernel_width - 1) // geometry.stride_across


_plane_size_inline = inline(_plane_size)


def plane_words(geometry: Geometry) -> int:
    """Size of the scratch array that `correlate_channels` takes."""
    rows, columns = _plane_size(geometry)
    # The last vector of a row is written whole, and rows are read in up to ROW_VECTORS whole vectors.
    return geometry.stride_down * geometry.stride_across * rows * columns + ROW_VECTORS * VECTOR_BYTES


@inline
def _fill_planes(x, channel, plane, used, geometry):
    """Copy a channel of x to the phases of the stride that are `used`."""
    height, width, down, across = geometry.height, geometry.width, geometry.stride_down, geometry.stride_across
    rows, columns = _plane_size_inline(geometry)
    reach = stride_reach(across, VECTOR_BYTES // x.itemsize)
    for phase in range(down * across):
        if not used[phase]:
            continue
        first_row, first_column = phase // across - geometry.top, phase % across - geometry.left
        for i in range(rows):
            row = first_row + i * down
            for j in range(0, columns, reach):
                column = first_column + j * across
                readable = lanes_within(column, reach, across, width) if 0 <= row < height else 0
                target, source = at(plane, (phase * rows + i) * columns + j), at(x, (channel * height + row) * width + column)
                gather(target, source, readable, (1 << reach) - 1, across)


@kernel
def correlate_channels(operands, plane, geometry, first, last):
    """Convolve input channels [first, last) of N * C, each with the kernels of its output channels; plane is scratch of `plane_words`."""
    weight, bias, out = operands.weight, operands.bias, operands.out
    kernels, out_height, out_width = geometry.outputs, geometry.out_height, geometry.out_width
    rows, columns = _plane_size_inline(geometry)
    taps, phases = geometry.kernel_height * geometry.kernel_width, geometry.stride_down * geometry.stride_across
    offsets, used = np.empty(taps, np.int64), np.zeros(phases, np.bool_)
    for tap in range(taps):
        row, column = tap // geometry.kernel_width * geometry.dilation_down, tap % geometry.kernel_width * geometry.dilation_across
        phase = row % geometry.stride_down * geometry.stride_across + column % geometry.stride_across
        used[phase] = True
        offsets[tap] = (phase * rows + row // geometry.stride_down) * columns + column // geometry.stride_across
    step = ROW_VECTORS * VECTOR_BYTES // out.itemsize
    for channel in range(first, last):
        _fill_planes(operands.x, channel, plane, used, geometry)
        group = channel % geometry.groups
        for m in range(kernels):
            kernel_taps = Taps(at(weight, (group * kernels + m) * taps), at(offsets, 0), taps)
            start = at(bias, group * padded_rows(geometry) + m)
            for i in range(out_height):
                place = ((channel * kernels + m) * out_height + i) * out_width
                for j in range(0, out_width, step):
                    window, width = at(plane, i * columns + j), min(step, out_width - j)
                    correlate_row(at(out, place + j), start, window, kernel_taps, width, geometry.short)
