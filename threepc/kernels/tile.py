"""Vector code that numba's own loops do not reach, as intrinsics: the register tile of a matrix product and masked vector moves.

All take arrays of one word type, uint64 or uint32, and places in them counted in words. A ring of at most 52 bits (`short`) is
multiplied by AVX-512 IFMA where the processor has it: one instruction multiplies the low 52 bits of two words and adds the low 52
bits of the product. 2^l divides 2^52, so sums are exact modulo 2^l whatever the bits above hold. Otherwise whole words wrap.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from threepc.kernels.options import has_ifma, inline, vector_bits, vector_registers

ROWS, VECTORS = (8, 3) if vector_registers() == 32 else (4, 2)  # accumulators, operands and temporaries fill the registers
NARROW = ROWS  # up to so many columns, vectors lie better along the rows
ROW_VECTORS = 4  # of one row of a depthwise convolution, summed side by side
VECTOR_BYTES = vector_bits() // 8
_CHAINS = 8  # independent sums that hide the latency of a multiply-add
_AHEAD = 8192  # that the stream of left-hand panels, the weights, is fetched ahead

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def number(value: int) -> ir.Constant:
    """An integer of 64 bits."""
    return ir.Constant(_I64, value)


class Emitter:
    """LLVM instructions on the words of some arrays, at the builder's position."""

    def __init__(self, context, builder, array_type):
        self.context, self.builder = context, builder
        self.bits = array_type.dtype.bitwidth
        self.word = ir.IntType(self.bits)
        self.lanes = VECTOR_BYTES * 8 // self.bits

    def pointer(self, array_type, array, place):
        """Address of a word of an array."""
        return self.shift(self.context.make_array(array_type)(self.context, self.builder, array).data, place)

    def shift(self, pointer, places):
        """The address so many places, of the pointer's type, further on."""
        return self.builder.gep(pointer, [places])

    def load(self, pointer, lanes=None):
        """Load a word, or a vector of so many words."""
        if lanes is None:
            return self.builder.load(pointer)
        return self.builder.load(self.builder.bitcast(pointer, ir.VectorType(self.word, lanes).as_pointer()), align=self.bits // 8)

    def store(self, vector, pointer):
        self.builder.store(vector, self.builder.bitcast(pointer, vector.type.as_pointer()), align=self.bits // 8)

    def prefetch(self, pointer):
        """Fetch the cache line that lies _AHEAD bytes after a word."""
        byte, flags = self.builder.bitcast(pointer, ir.IntType(8).as_pointer()), [ir.Constant(_I32, flag) for flag in (0, 3, 1)]
        function = ir.FunctionType(ir.VoidType(), [byte.type, _I32, _I32, _I32])
        function = self.builder.module.declare_intrinsic("llvm.prefetch", (byte.type,), function)
        self.builder.call(function, [self.shift(byte, number(_AHEAD)), *flags])

    def fill(self, value, lanes):
        """A vector with the same integer in every lane."""
        return ir.Constant(ir.VectorType(self.word, lanes), [value] * lanes)

    def zero(self, lanes):
        return self.fill(0, lanes)

    def shuffle(self, x, y, lanes):
        """A vector of the given lanes of x, from 0 on, and of y, after those of x."""
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))

    def spread(self, scalar, lanes):
        """A vector with the scalar in every lane."""
        first = self.builder.insert_element(ir.Constant(ir.VectorType(self.word, lanes), ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.shuffle(first, first, [0] * lanes)

    def multiply_add(self, total, x, y, ifma):
        if not ifma:
            return self.builder.add(total, self.builder.mul(x, y))
        function = ir.FunctionType(total.type, [total.type] * 3)
        return self.builder.call(self.builder.module.declare_intrinsic("llvm.x86.avx512.vpmadd52l.uq.512", (), function), [total, x, y])

    def _masked(self, operation, result, arguments):
        name = f"llvm.masked.{operation}.v{self.lanes}i{self.bits}.p0"
        function = self.builder.module.globals.get(name)
        if function is None:
            function = ir.Function(self.builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name)
        return self.builder.call(function, arguments)

    def mask(self, bits):
        """One bit a lane out of the low bits of a 64-bit integer."""
        return self.builder.bitcast(self.builder.trunc(bits, ir.IntType(self.lanes)), ir.VectorType(_I1, self.lanes))

    def load_masked(self, pointer, mask):
        """Load a vector; where the mask is off, the lane is zero and memory is not touched."""
        vector = ir.VectorType(self.word, self.lanes)
        pointer = self.builder.bitcast(pointer, vector.as_pointer())
        return self._masked("load", vector, [pointer, ir.Constant(_I32, self.bits // 8), mask, self.zero(self.lanes)])

    def store_masked(self, vector, pointer, mask):
        pointer = self.builder.bitcast(pointer, vector.type.as_pointer())
        self._masked("store", ir.VoidType(), [vector, pointer, ir.Constant(_I32, self.bits // 8), mask])

    def repeat(self, start, stop, step, carried, body):
        """for index in range(start, stop, step): carried = body(index, carried); returns the last index and carried."""
        builder, before = self.builder, self.builder.block
        head, work, after = (builder.append_basic_block(name) for name in ("head", "work", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        index, values = builder.phi(_I64), [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed("<", index, stop), work, after)
        builder.position_at_end(work)
        following = body(index, list(values))
        for phi, first, later in zip([index, *values], [start, *carried], [builder.add(index, number(step)), *following]):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return index, values

    def dispatch(self, short, size, sizes, body):
        """Emit body(n, ifma) for every n of `sizes`, to run the one with n = size, with IFMA if the ring is short and it is there."""
        builder = self.builder
        after, nowhere = builder.append_basic_block("done"), builder.append_basic_block("impossible")
        methods = [False, True] if has_ifma() and self.bits == 64 else [False]
        choice = builder.add(size, builder.select(short, number(1 << 16), number(0))) if len(methods) == 2 else size
        switch = builder.switch(choice, nowhere)
        for ifma in methods:
            for n in sizes:
                block = builder.append_basic_block(f"size{n}")
                switch.add_case(number(n + (ifma << 16)), block)
                builder.position_at_end(block)
                body(n, ifma)
                builder.branch(after)
        builder.position_at_end(nowhere)
        builder.unreachable()
        builder.position_at_end(after)


@intrinsic
def multiply_tile(typingctx, a, i, b, j, c, k, start, s, depth, leading, vectors, fresh, short):
    """c[ROWS, vectors * lanes] = (start[ROWS, 1] if fresh else c) + a[depth, ROWS]^T b[depth, vectors * lanes].

    The matrices begin at a[i], b[j], c[k] and start[s]; rows of c are `leading` words apart, those of a and b are dense.
    """
    signature = types.void(
        a, types.intp, b, types.intp, c, types.intp, start, types.intp, types.intp, types.intp, types.intp, types.boolean, types.boolean
    )

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        a, b, c, start = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 2, 4, 6))
        depth, leading, vectors, fresh, short = args[8:]
        lanes = emit.lanes

        def tile(count, ifma):
            row_of_c = [emit.shift(c, builder.mul(leading, number(i))) for i in range(ROWS)]
            with builder.if_else(fresh) as (begin, resume):
                with begin:
                    begun, begun_in = [emit.spread(emit.load(emit.shift(start, number(i))), lanes) for i in range(ROWS)], builder.block
                with resume:
                    kept = [emit.load(emit.shift(row, number(v * lanes)), lanes) for row in row_of_c for v in range(count)]
                    kept_in = builder.block
            sums = []
            for n in range(ROWS * count):
                sums.append(builder.phi(ir.VectorType(emit.word, lanes)))
                sums[-1].add_incoming(begun[n // count], begun_in)
                sums[-1].add_incoming(kept[n], kept_in)

            def step(k, sums):
                row_of_b = emit.shift(b, builder.mul(k, number(count * lanes)))
                row_of_b = [emit.load(emit.shift(row_of_b, number(v * lanes)), lanes) for v in range(count)]
                row_of_a = emit.shift(a, builder.mul(k, number(ROWS)))
                emit.prefetch(row_of_a)
                for i in range(ROWS):
                    factor = emit.spread(emit.load(emit.shift(row_of_a, number(i))), lanes)
                    for v in range(count):
                        sums[i * count + v] = emit.multiply_add(sums[i * count + v], factor, row_of_b[v], ifma)
                return sums

            _, sums = emit.repeat(number(0), depth, 1, sums, step)
            for n, total in enumerate(sums):
                emit.store(total, emit.shift(row_of_c[n // count], number(n % count * lanes)))

        emit.dispatch(short, vectors, range(1, VECTORS + 1), tile)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def multiply_narrow(typingctx, a, i, b, j, c, k, depth, columns, short):
    """c[columns, ROWS] = b[depth, columns]^T a[depth, ROWS] for 1 to NARROW columns: vectors lie along the rows of the product.

    The dense matrices begin at a[i], b[j] and c[k]; every word of a is read once, so that one column runs at the speed of memory.
    """
    signature = types.void(a, types.intp, b, types.intp, c, types.intp, types.intp, types.intp, types.boolean)

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        a, b, c = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 2, 4))
        depth, columns, short = args[6:]

        def product(count, ifma):
            ifma = ifma and ROWS * emit.bits == 512
            chains = -(-_CHAINS // count)

            def step(k, sums):
                for chain in range(len(sums) // count):
                    row = builder.add(k, number(chain))
                    row_of_a = emit.load(emit.shift(a, builder.mul(row, number(ROWS))), ROWS)
                    row_of_b = emit.shift(b, builder.mul(row, number(count)))
                    for n in range(count):
                        factor = emit.spread(emit.load(emit.shift(row_of_b, number(n))), ROWS)
                        sums[chain * count + n] = emit.multiply_add(sums[chain * count + n], row_of_a, factor, ifma)
                return sums

            whole = builder.sub(depth, builder.srem(depth, number(chains)))
            k, sums = emit.repeat(number(0), whole, chains, [emit.zero(ROWS)] * (chains * count), step)
            totals = sums[:count]
            for n, extra in enumerate(sums[count:]):
                totals[n % count] = builder.add(totals[n % count], extra)
            _, totals = emit.repeat(k, depth, 1, totals, step)
            for n, total in enumerate(totals):
                emit.store(total, emit.shift(c, number(n * ROWS)))

        emit.dispatch(short, columns, range(1, NARROW + 1), product)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def move(typingctx, target, t, source, s, readable, writable):
    """target[t + n] = source[s + n] for the lanes n whose bit is set in `writable`; zero where it is not in `readable`."""
    signature = types.void(target, types.intp, source, types.intp, types.int64, types.int64)

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        target, source = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 2))
        emit.store_masked(emit.load_masked(source, emit.mask(args[4])), target, emit.mask(args[5]))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def move_even(typingctx, target, t, source, s, readable, writable):
    """target[t + n] = source[s + 2 n] for the lanes n set in `writable`; `readable` has a bit for each of 2 lanes' worth of source."""
    signature = types.void(target, types.intp, source, types.intp, types.int64, types.int64)

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        target, source = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 2))
        low = emit.load_masked(source, emit.mask(args[4]))
        high = emit.load_masked(emit.shift(source, number(emit.lanes)), emit.mask(builder.lshr(args[4], number(emit.lanes))))
        emit.store_masked(emit.shuffle(low, high, range(0, 2 * emit.lanes, 2)), target, emit.mask(args[5]))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def correlate_row(typingctx, out, o, start, s, plane, p, weight, w, offsets, taps, vectors, writable, short):
    """out[o + n] = start[s] + sum over t < taps of weight[w + t] * plane[p + offsets[t] + n], for `vectors` (1 to ROW_VECTORS) vectors.

    In the last vector only the lanes set in `writable` are written; the plane is read to its end in any case.
    """
    signature = types.void(
        out,
        types.intp,
        start,
        types.intp,
        plane,
        types.intp,
        weight,
        types.intp,
        offsets,
        types.intp,
        types.intp,
        types.int64,
        types.boolean,
    )

    def codegen(context, builder, signature, args):
        emit = Emitter(context, builder, signature.args[0])
        out, start, plane, weight = (emit.pointer(signature.args[n], args[n], args[n + 1]) for n in (0, 2, 4, 6))
        offsets = emit.pointer(signature.args[8], args[8], number(0))
        taps, vectors, writable, short = args[9:]

        def row(count, ifma):
            def tap(t, sums):
                factor = emit.spread(emit.load(emit.shift(weight, t)), emit.lanes)
                place = emit.shift(plane, builder.load(emit.shift(offsets, t)))
                vectors = [emit.load(emit.shift(place, number(v * emit.lanes)), emit.lanes) for v in range(count)]
                return [emit.multiply_add(total, factor, vector, ifma) for total, vector in zip(sums, vectors)]

            _, sums = emit.repeat(number(0), taps, 1, [emit.spread(emit.load(start), emit.lanes)] * count, tap)
            for v, total in enumerate(sums[:-1]):
                emit.store(total, emit.shift(out, number(v * emit.lanes)))
            emit.store_masked(sums[-1], emit.shift(out, number((count - 1) * emit.lanes)), emit.mask(writable))

        emit.dispatch(short, vectors, range(1, ROW_VECTORS + 1), row)
        return context.get_dummy_value()

    return signature, codegen


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
def gather(target, t, source, s, readable, writable, stride):
    """target[t + n] = source[s + stride * n] for lanes n in `writable`, zero where `readable` lacks them; at most `stride_reach` lanes."""
    if stride == 2:
        move_even(target, t, source, s, readable, writable)
    else:
        move(target, t, source, s, readable, writable)
