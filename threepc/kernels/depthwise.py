"""Depthwise convolution of ring words: every output channel is the correlation of one input channel with its own small kernel.

A channel is first copied to planes, with its zero padding and one plane for each phase of the stride, so that every tap of the kernel
reads contiguous words; channels are small enough for the planes to stay in the cache.
"""

import numpy as np

from threepc.kernels.options import inline, kernel
from threepc.kernels.tile import ROW_VECTORS, VECTOR_BYTES, correlate_row, gather, lanes_within, stride_reach


def _plane_size(geometry: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of one phase of a padded channel."""
    _, _, _, _, kernel_height, kernel_width, down, across, _, _, dilation_down, dilation_across, out_height, out_width = geometry
    return out_height + dilation_down * (kernel_height - 1) // down, out_width + dilation_across * (kernel_width - 1) // across


_plane_size_inline = inline(_plane_size)


def plane_words(geometry: tuple[int, ...]) -> int:
    """Size of the scratch array that `correlate_channels` takes."""
    rows, columns = _plane_size(geometry)
    # The last vector of a row is written whole, and rows are read in up to ROW_VECTORS whole vectors.
    return geometry[6] * geometry[7] * rows * columns + ROW_VECTORS * VECTOR_BYTES


@inline
def _fill_planes(x, channel, plane, used, geometry):
    """Copy a channel of x to the phases of the stride that are `used`."""
    _, height, wide, _, _, _, down, across, top, left, _, _, _, _ = geometry
    rows, columns = _plane_size_inline(geometry)
    lanes = VECTOR_BYTES // x.itemsize
    reach = stride_reach(across, lanes)
    for phase in range(down * across):
        if not used[phase]:
            continue
        first_row, first_column = phase // across - top, phase % across - left
        for i in range(rows):
            row = first_row + i * down
            for j in range(0, columns, reach):
                column = first_column + j * across
                readable = lanes_within(column, reach, across, wide) if 0 <= row < height else 0
                gather(
                    plane, (phase * rows + i) * columns + j, x, (channel * height + row) * wide + column, readable, (1 << reach) - 1, across
                )


@kernel
def correlate_channels(weight, x, bias, out, plane, geometry, multiplier, bias_step, short, part):
    """Convolve input channels [part[0], part[1]) of N * C, each with the `multiplier` kernels of its output channels.

    weight is flat (O, kh, kw), bias holds those of channel c from c * bias_step on, plane is scratch of `plane_words`.
    """
    channels, _, _, _, kernel_height, kernel_width, down, across, _, _, dilation_down, dilation_across, out_height, out_width = geometry
    lanes = VECTOR_BYTES // x.itemsize
    rows, columns = _plane_size_inline(geometry)
    taps = kernel_height * kernel_width
    offsets, used = np.empty(taps, np.int64), np.zeros(down * across, np.bool_)
    for tap in range(taps):
        row, column = tap // kernel_width * dilation_down, tap % kernel_width * dilation_across
        phase = row % down * across + column % across
        used[phase] = True
        offsets[tap] = (phase * rows + row // down) * columns + column // across
    for channel in range(*part):
        _fill_planes(x, channel, plane, used, geometry)
        group = channel % channels
        for m in range(multiplier):
            for i in range(out_height):
                place = ((channel * multiplier + m) * out_height + i) * out_width
                for j in range(0, out_width, ROW_VECTORS * lanes):
                    width = min(ROW_VECTORS * lanes, out_width - j)
                    vectors = (width + lanes - 1) // lanes
                    correlate_row(
                        out,
                        place + j,
                        bias,
                        group * bias_step + m,
                        plane,
                        i * columns + j,
                        weight,
                        (group * multiplier + m) * taps,
                        offsets,
                        taps,
                        vectors,
                        (1 << (width - (vectors - 1) * lanes)) - 1,
                        short,
                    )
