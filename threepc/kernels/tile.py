"""The inner loops of convolutions, as vector code: the register tile of a matrix product, rows of a depthwise one, masked moves of words.

Places and `Matrix` are those of `emitter`; matrices without a step between their rows are dense.
"""

from typing import Any, NamedTuple

from threepc.kernels.emitter import emitted, number
from threepc.kernels.options import inline, vector_registers

ROWS, VECTORS = (8, 3) if vector_registers() == 32 else (4, 2)  # accumulators, operands and temporaries fill the registers
NARROW = ROWS  # up to so many columns, vectors lie better along the rows
ROW_VECTORS = 4  # of one row of a depthwise convolution, summed side by side
_CHAINS = 8  # independent sums that hide the latency of a multiply-add


class Taps(NamedTuple):
    """The taps of a small kernel."""

    weights: Any  # place of the first one's weight
    offsets: Any  # place of the first one's offset: words from the place of a row's window to what the tap reads there
    count: int


@emitted
def multiply_tile(emit, a, b, c, before, depth, vectors, short):
    """c[ROWS, vectors * lanes] = a[depth, ROWS]^T b[depth, vectors * lanes] + what was `before`, of which each row of c takes one word.

    a and b are the places of dense matrices, c is `Matrix`.
    """
    builder, lanes = emit.builder, emit.lanes

    def tile(count, ifma):
        row_of_c = [emit.shift(c.first, builder.mul(c.step, number(i))) for i in range(ROWS)]
        with builder.if_else(before.fresh) as (begin, resume):
            with begin:
                begun = [emit.spread(emit.load(emit.shift(before.words, i)), lanes) for i in range(ROWS)]
                begun_in = builder.block
            with resume:
                kept = [emit.load(emit.shift(row, v * lanes), lanes) for row in row_of_c for v in range(count)]
                kept_in = builder.block
        sums = []
        for n in range(ROWS * count):
            sums.append(builder.phi(kept[n].type))
            sums[-1].add_incoming(begun[n // count], begun_in)
            sums[-1].add_incoming(kept[n], kept_in)

        def step(k, sums):
            row_of_b = emit.shift(b, builder.mul(k, number(count * lanes)))
            row_of_b = [emit.load(emit.shift(row_of_b, v * lanes), lanes) for v in range(count)]
            row_of_a = emit.shift(a, builder.mul(k, number(ROWS)))
            emit.prefetch(row_of_a)
            for i in range(ROWS):
                factor = emit.spread(emit.load(emit.shift(row_of_a, i)), lanes)
                for v in range(count):
                    sums[i * count + v] = emit.multiply_add(sums[i * count + v], factor, row_of_b[v], ifma)
            return sums

        _, sums = emit.repeat(number(0), depth, 1, sums, step)
        for n, total in enumerate(sums):
            emit.store(total, emit.shift(row_of_c[n // count], n % count * lanes))

    emit.dispatch(short, vectors, range(1, VECTORS + 1), tile)


@emitted
def multiply_narrow(emit, a, b, c, depth, columns, short):
    """c[columns, ROWS] = b[depth, columns]^T a[depth, ROWS] for 1 to NARROW columns: vectors lie along the rows of the product.

    a, b and c are the places of dense matrices; every word of a is read once, so that one column runs at the speed of memory.
    """
    builder = emit.builder

    def product(count, ifma):
        ifma = ifma and ROWS * emit.bits == 512
        chains = -(-_CHAINS // count)

        def step(k, sums):
            for chain in range(len(sums) // count):
                row = builder.add(k, number(chain))
                row_of_a = emit.load(emit.shift(a, builder.mul(row, number(ROWS))), ROWS)
                row_of_b = emit.shift(b, builder.mul(row, number(count)))
                for n in range(count):
                    factor = emit.spread(emit.load(emit.shift(row_of_b, n)), ROWS)
                    sums[chain * count + n] = emit.multiply_add(sums[chain * count + n], row_of_a, factor, ifma)
            return sums

        whole = builder.sub(depth, builder.srem(depth, number(chains)))
        k, sums = emit.repeat(number(0), whole, chains, [emit.zero(ROWS)] * (chains * count), step)
        totals = sums[:count]
        for n, extra in enumerate(sums[count:]):
            totals[n % count] = builder.add(totals[n % count], extra)
        _, totals = emit.repeat(k, depth, 1, totals, step)
        for n, total in enumerate(totals):
            emit.store(total, emit.shift(c, n * ROWS))

    emit.dispatch(short, columns, range(1, NARROW + 1), product)


@emitted
def correlate_row(emit, out, start, plane, taps, width, short):
    """out[n] = start[0] + sum over taps t of weights[t] * plane[offsets[t] + n] for n < width, which is 1 to ROW_VECTORS vectors' lanes.

    out, start and plane are places; the plane is read in whole vectors.
    """
    builder = emit.builder
    vectors = builder.udiv(builder.add(width, number(emit.lanes - 1)), number(emit.lanes))
    rest = builder.sub(width, builder.mul(builder.sub(vectors, number(1)), number(emit.lanes)))
    writable = emit.mask(builder.sub(builder.shl(number(1), rest), number(1)))

    def row(count, ifma):
        def tap(t, sums):
            factor = emit.spread(emit.load(emit.shift(taps.weights, t)), emit.lanes)
            place = emit.shift(plane, builder.load(emit.shift(taps.offsets, t)))
            vectors = [emit.load(emit.shift(place, v * emit.lanes), emit.lanes) for v in range(count)]
            return [emit.multiply_add(total, factor, vector, ifma) for total, vector in zip(sums, vectors, strict=True)]

        _, sums = emit.repeat(number(0), taps.count, 1, [emit.spread(emit.load(start), emit.lanes)] * count, tap)
        for v, total in enumerate(sums[:-1]):
            emit.store(total, emit.shift(out, v * emit.lanes))
        emit.store_masked(sums[-1], emit.shift(out, (count - 1) * emit.lanes), writable)

    emit.dispatch(short, vectors, range(1, ROW_VECTORS + 1), row)


@emitted
def _move(emit, target, source, readable, writable):
    """target[n] = source[n] for the lanes n whose bit is set in `writable`; zero where it is not in `readable`."""
    emit.store_masked(emit.load_masked(source, emit.mask(readable)), target, emit.mask(writable))


@emitted
def _move_even(emit, target, source, readable, writable):
    """target[n] = source[2 n] for the lanes n set in `writable`; `readable` has a bit for each of 2 lanes' worth of source."""
    low = emit.load_masked(source, emit.mask(readable))
    high = emit.load_masked(emit.shift(source, emit.lanes), emit.mask(emit.builder.lshr(readable, number(emit.lanes))))
    emit.store_masked(emit.shuffle(low, high, range(0, 2 * emit.lanes, 2)), target, emit.mask(writable))


@inline
def stride_reach(stride, lanes):
    """Number of pixels that one `gather` fetches from a row of a map."""
    return lanes if stride <= 2 else 1


@inline
def lanes_within(column, length, stride, wide):
    """Bits for `gather`, of the words that `length` pixels `stride` apart read from `column` on in a row of `wide` pixels."""
    step = stride if stride <= 2 else 1
    half = step - 1  # shifting by it divides by step
    first = (half - column) >> half if column < 0 else 0
    last = min(length - 1, (wide - 1 - column) >> half)
    return (1 << (step * last + 1)) - (1 << (step * first)) if first <= last else 0


@inline
def gather(target, source, readable, writable, stride):
    """target[n] = source[stride * n] for lanes n in `writable`, zero where `readable` lacks them; at most `stride_reach` lanes.

    target and source are places.
    """
    if stride == 2:
        _move_even(target, source, readable, writable)
    else:
        _move(target, source, readable, writable)
