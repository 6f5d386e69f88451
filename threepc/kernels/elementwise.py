"""What every party does alone to its summand of a value: scaled sums, windows' sums, cuts. One pass over memory each."""

from threepc.kernels.options import kernel


@kernel
def add_shifted(out, x, left):
    """out += x << left; flat arrays of one word type."""
    word = out.dtype.type
    for i in range(out.shape[0]):
        out[i] += word(x[i] << word(left))


@kernel
def add_multiple(out, x, factor):
    """out += x * factor; flat arrays of one word type, factor a word of it."""
    for i in range(out.shape[0]):
        out[i] += x[i] * factor


@kernel
def shift_left(x, left, out):
    """out = x << left; flat arrays of one word type."""
    word = out.dtype.type
    for i in range(out.shape[0]):
        out[i] = word(x[i] << word(left))


@kernel
def scale(x, factor, out):
    """out = x * factor; flat arrays, factor a word of their type."""
    for i in range(out.shape[0]):
        out[i] = x[i] * factor


@kernel
def sum_windows(x, kernel_h, kernel_w, stride_h, stride_w, top, left, out):
    """Sums of windows over zero padding: x (maps, H, W), out (maps, OH, OW)."""
    word = out.dtype.type
    height, width = x.shape[1], x.shape[2]
    for m in range(x.shape[0]):
        for i in range(out.shape[1]):
            first, last = max(0, i * stride_h - top), min(height, i * stride_h - top + kernel_h)
            for j in range(out.shape[2]):
                begin, end = max(0, j * stride_w - left), min(width, j * stride_w - left + kernel_w)
                total = word(0)
                for a in range(first, last):
                    for b in range(begin, end):
                        total += x[m, a, b]
                out[m, i, j] = total
