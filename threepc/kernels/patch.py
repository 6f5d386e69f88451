"""Sums over the patches of a feature map, and bits of patches spread over their pixels.

A run of pixels is image after image, channel after channel, row after row. sizes (channels, 2) int64 holds the height and width of every channel's
patches, at least 1 and at most the map's; they start at the top left corner and are cut at the right and bottom edge. A run of patches has the
same order. Both kernels go by rows of patches: what is shared by the rows of pixels under them, or along them, is not done pixel by pixel.

Helpers with a loop are not given arrays here, nor are slices taken: numba would count references, which takes longer than a row of a small map.
"""

import numpy as np

from threepc.kernels.options import inline, kernel

LINE = 64
"""Bytes of a cache line, and of the longest vector."""


@inline
def _ones(count):
    """The lowest `count` bits, 1 to 64."""
    return ~np.uint64(0) >> np.uint64(64 - count)


@kernel
def sum_patches(x, low_bit, high_bit, sizes, height, width, images, out):  # noqa: C901, PLR0912 - see above: no helpers with a loop
    """out = sums of the bits low_bit..high_bit-1 of x over patches, zero in what pads it; x: pixels, out: patches of `images` images, of one word type."""
    word = out.dtype.type
    mask, down = word(_ones(high_bit)), word(low_bit)
    lanes = LINE // out.itemsize
    pixels, vectors = height * width, -(-width // lanes) * lanes
    columns = np.empty(vectors, out.dtype)
    last_w, whole, pixel, patch = 0, 0, 0, 0
    for _ in range(images):
        for c in range(sizes.shape[0]):
            h, w = sizes[c, 0], sizes[c, 1]
            if h == 1 and w == 1:
                for i in range(pixels):
                    out[np.uintp(patch + i)] = (x[np.uintp(pixel + i)] & mask) >> down
                pixel += pixels
                patch += pixels
                continue
            if w != last_w:
                last_w, whole = w, width // w
            left = height
            while left > 0:
                # columns of the patches first, in whole vectors: what lies beyond the row is another row's, added up and not used
                span = vectors if pixel + h * width + lanes <= x.shape[0] else width
                for j in range(span):
                    columns[j] = (x[np.uintp(pixel + j)] & mask) >> down
                pixel += width
                for _ in range(1, min(h, left)):
                    for j in range(span):
                        columns[j] += (x[np.uintp(pixel + j)] & mask) >> down
                    pixel += width
                left -= h
                if w == 1:
                    for g in range(whole):
                        out[np.uintp(patch + g)] = columns[g]
                elif w == 2:
                    for g in range(whole):
                        out[np.uintp(patch + g)] = columns[2 * g] + columns[2 * g + 1]
                elif w == 3:
                    for g in range(whole):
                        out[np.uintp(patch + g)] = columns[3 * g] + columns[3 * g + 1] + columns[3 * g + 2]
                elif w == 4:
                    for g in range(whole):
                        out[np.uintp(patch + g)] = columns[4 * g] + columns[4 * g + 1] + columns[4 * g + 2] + columns[4 * g + 3]
                else:
                    for g in range(whole):
                        total = word(0)
                        for j in range(g * w, g * w + w):
                            total = word(total + columns[np.uintp(j)])
                        out[np.uintp(patch + g)] = total
                patch += whole
                if whole * w < width:
                    total = word(0)
                    for j in range(whole * w, width):
                        total = word(total + columns[np.uintp(j)])
                    out[np.uintp(patch)] = total
                    patch += 1
    out[patch:] = word(0)


@inline
def _read(bits, first, count):
    """`count` bits, 1 to 64, of a run of bits from bit `first`."""
    at, low = first >> 6, np.uint64(first & 63)
    following = bits[np.uintp(min(at + 1, bits.shape[0] - 1))]
    return (bits[np.uintp(at)] >> low | following << np.uint64(1) << (np.uint64(63) - low)) & _ones(count)


@inline
def _append(out, end, held, value, count):
    """Append the lowest `count` bits of `value`, all that it has, to a run of `end` bits; returns the new `end` and `held`.

    held: the bits of the run's last word, where that is not whole. The word is stored each time, which costs no branch.
    """
    low = np.uint64(end & 63)
    held |= value << low
    out[np.uintp(end >> 6)] = held
    return end + count, (value >> np.uint64(1) >> (np.uint64(63) - low) if (end & 63) + count >= 64 else held)


@kernel
def spread_bits(planes, sizes, height, width, images, out):  # noqa: C901, PLR0912, PLR0915 - see above: no helpers with a loop
    """out: planes of pixels, each with its patch's bit in `planes`; what pads the last word is zero."""
    pixels = height * width
    # a row of pixels, for as long as the last patch is not cut
    row = np.empty(2 * width // 64 + 2, np.uint64)
    # `stacked` rows of pixels fit in a word; a product with `copies` repeats one so often
    stacked, copies = max(1, 64 // width), np.uint64(0)
    for i in range(stacked):
        copies |= np.uint64(1) << np.uint64(i * width)
    # `group` bits at a time are moved apart to every w-th bit of a word. They are halved again and again: a round moves the upper half of each
    # run by steps[round] and keeps masks[round].
    steps, masks = np.empty(5, np.uint64), np.empty(5, np.uint64)
    last_w, across, group, rounds = 0, 0, 0, 0
    patch, end, held = 0, 0, np.uint64(0)
    for _ in range(images):
        for c in range(sizes.shape[0]):
            h, w = sizes[c, 0], sizes[c, 1]
            if h == 1 and w == 1:
                for i in range(0, pixels, 64):
                    count = min(64, pixels - i)
                    end, held = _append(out, end, held, _read(planes, patch + i, count), count)
                patch += pixels
                continue
            if w != last_w:
                last_w, across = w, -(-width // w)
                group, rounds = 64 if w == 1 else 1, 0
                while 2 * group * w <= 64 and group < across:
                    group *= 2
                    rounds += 1
                half, places = group, np.uint64(1)
                for i in range(rounds):
                    half //= 2
                    places |= places << np.uint64(half * w)
                    steps[i] = np.uint64(half * (w - 1))
                    masks[i] = places * _ones(half)
            fill, left = _ones(min(w, 64)), height
            while left > 0:
                row_end, row_held, next_row = 0, np.uint64(0), patch + across
                if w <= 64:
                    while patch < next_row:
                        count = min(group, next_row - patch)
                        value = _read(planes, patch, count)
                        patch += group
                        for r in range(rounds):
                            value = (value | value << steps[r]) & masks[r]
                        # times fill: a bit becomes w
                        row_end, row_held = _append(row, row_end, row_held, value * fill, count * w)
                else:
                    for i in range(patch, next_row):
                        value = np.uint64(0) - _read(planes, i, 1)
                        for j in range(0, w, 64):
                            count = min(64, w - j)
                            row_end, row_held = _append(row, row_end, row_held, value & _ones(count), count)
                row[np.uintp(row_end >> 6)] = row_held
                patch, rows = next_row, min(h, left)
                left -= h
                if stacked > 1:
                    band = (row[0] & _ones(width)) * copies
                    while rows > 0:
                        count = min(rows, stacked) * width
                        end, held = _append(out, end, held, band & _ones(count), count)
                        rows -= stacked
                else:
                    for _ in range(rows):
                        for i in range(0, width, 64):
                            count = min(64, width - i)
                            end, held = _append(out, end, held, row[np.uintp(i >> 6)] & _ones(count), count)
    if end & 63:
        out[end >> 6] = held
    out[(end + 63) >> 6 :] = np.uint64(0)
