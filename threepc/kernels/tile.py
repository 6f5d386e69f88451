"""The inner loops of convolutions, as vector code: the register tile of a matrix product, rows of a depthwise one, masked moves of words.

Additions cost less than products, so the tile takes two rows of the depth at once (Winograd, "A New Algorithm for Inner Product", 1968):
a0 b0 + a1 b1 = (a0 + b1) (a1 + b0) - a0 a1 - b0 b1. Panels end with a row of minus the sums of their own products, which is small work.
This is exact in a ring. An AMD Zen 4 makes 1.33 times as many multiply-adds a second so with IFMA, 1.3 to 1.4 times without (`in_pairs`).

Places and `Matrix` are those of `emitter`; matrices without a step between their rows are dense.
"""

from typing import Any, NamedTuple

from llvmlite import ir

from threepc.kernels.emitter import emitted, number
from threepc.kernels.options import cpu_name, inline, vector_registers

ROWS, VECTORS = (8, 3) if vector_registers() == 32 else (4, 2)  # accumulators, operands and temporaries fill the registers
NARROW = ROWS  # up to so many columns, vectors lie better along the rows
ROW_VECTORS = 4  # of one row of a depthwise convolution, summed side by side
_CHAINS = 8  # independent sums that hide the latency of a multiply-add


class Taps(NamedTuple):
    """The taps of a small kernel."""

    weights: Any  # place of the first one's weight
    offsets: Any  # place of the first one's offset: words from the place of a row's window to what the tap reads there
    count: int


def in_pairs(ifma: bool) -> bool:
    """Whether `multiply_tile` takes rows in pairs. Intel's servers make additions and IFMA's products on the same ports: there it would cost."""
    return not ifma or cpu_name().startswith("znver")


def _in_chains(emit, depth, chains, sums, step):
    """Vectors of sums after `sums = step(k, sums)` for every k below depth, in so many independent chains, which are then added."""
    builder, count = emit.builder, len(sums)

    def steps(k, all_sums):
        chained = [step(builder.add(k, number(n)), all_sums[n * count : (n + 1) * count]) for n in range(chains)]
        return [total for totals in chained for total in totals]

    whole = builder.sub(depth, builder.srem(depth, number(chains)))
    k, all_sums = emit.repeat(number(0), whole, chains, sums + [emit.zero(total.type.count) for total in sums] * (chains - 1), steps)
    totals = all_sums[:count]
    for n, extra in enumerate(all_sums[count:]):
        totals[n % count] = builder.add(totals[n % count], extra)
    return emit.repeat(k, depth, 1, totals, step)[1]


@emitted
def close_panel(emit, panel, depth, vectors, short):
    """Complete a panel[depth, vectors * lanes] for `multiply_tile`: a row of zeros if depth is odd, then minus the sums of its pairs' products.

    panel is the place of a dense matrix with room for these rows; what is not taken in pairs gets zeros for the last.
    """
    builder = emit.builder

    def close(count, ifma):
        def row(k):
            place = emit.shift(panel, builder.mul(k, number(count * emit.lanes)))
            return [emit.shift(place, v * emit.lanes) for v in range(count)]

        def step(pair, sums):
            rows = [row(builder.add(builder.mul(pair, number(2)), number(n))) for n in range(2)]
            pairs = zip(sums, *([emit.load(place, emit.lanes) for place in places] for places in rows), strict=True)
            return [emit.multiply_add(total, x, y, ifma) for total, x, y in pairs]

        with builder.if_then(builder.trunc(depth, ir.IntType(1))):
            for place in row(depth):
                emit.store(emit.zero(emit.lanes), place)
        sums = [emit.zero(emit.lanes)] * count
        if in_pairs(ifma):
            sums = _in_chains(emit, builder.lshr(depth, number(1)), -(-_CHAINS // (2 * count)), sums, step)
        last = builder.add(depth, builder.and_(depth, number(1)))
        for total, place in zip(sums, row(last), strict=True):
            emit.store(builder.neg(total), place)

    emit.dispatch(short, vectors, sorted({*range(1, VECTORS + 1), max(1, ROWS // emit.lanes)}), close)


@emitted
def multiply_tile(emit, a, b, c, before, depth, vectors, short):
    """c[ROWS, vectors * lanes] = a[depth, ROWS]^T b[depth, vectors * lanes] + what was `before`, of which each row of c takes one word.

    a and b are the places of dense panels as `close_panel` completes them, of even depth; c is `Matrix`.
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

        def rows_of(k):
            left, right = (emit.shift(matrix, builder.mul(k, number(width))) for matrix, width in ((a, ROWS), (b, count * lanes)))
            return left, [emit.load(emit.shift(right, v * lanes), lanes) for v in range(count)]

        def factor(row, i):
            return emit.spread(emit.load(emit.shift(row, i)), lanes)

        def one(k, sums):
            left, right = rows_of(k)
            emit.prefetch(left)
            factors = [factor(left, i) for i in range(ROWS)]
            return [emit.multiply_add(total, factors[n // count], right[n % count], ifma) for n, total in enumerate(sums)]

        def pair(k, sums):
            (left, right), (next_left, next_right) = rows_of(k), rows_of(builder.add(k, number(1)))
            for row in (left, next_left)[: ROWS * emit.bits // 256]:  # a row may be half a line of the cache
                emit.prefetch(row)
            for i in range(ROWS):
                first, second = factor(left, i), factor(next_left, i)
                for v in range(count):
                    x, y = builder.add(first, next_right[v]), builder.add(second, right[v])
                    sums[i * count + v] = emit.multiply_add(sums[i * count + v], x, y, ifma)
            return sums

        sums = []
        for n in range(ROWS * count):
            sums.append(builder.phi(kept[n].type))
            sums[-1].add_incoming(begun[n // count], begun_in)
            sums[-1].add_incoming(kept[n], kept_in)
        if in_pairs(ifma):
            left, right = rows_of(depth)
            own = [factor(left, i) for i in range(ROWS)]
            sums = [builder.add(total, builder.add(own[n // count], right[n % count])) for n, total in enumerate(sums)]
            _, sums = emit.repeat(number(0), depth, 2, sums, pair)
        else:
            _, sums = emit.repeat(number(0), depth, 1, sums, one)
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
            row_of_a = emit.load(emit.shift(a, builder.mul(k, number(ROWS))), ROWS)
            row_of_b = emit.shift(b, builder.mul(k, number(count)))
            factors = [emit.spread(emit.load(emit.shift(row_of_b, n)), ROWS) for n in range(count)]
            return [emit.multiply_add(total, row_of_a, factor, ifma) for total, factor in zip(sums, factors, strict=True)]

        totals = _in_chains(emit, depth, chains, [emit.zero(ROWS)] * count, step)
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
