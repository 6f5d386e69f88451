"""Vector code that numba's own loops do not reach: functions that emit LLVM instructions become intrinsics of numba.

They work on arrays of one word type, uint64 or uint32. A ring of at most 52 bits (`short`) is multiplied by AVX-512 IFMA where the processor has
it: one instruction multiplies the low 52 bits of two words and adds the low 52 bits of the product. 2^l divides 2^52, so sums are exact modulo
2^l whatever the bits above hold. Otherwise whole words wrap.
"""

import functools
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from threepc.kernels.options import has_ifma, vector_bits

VECTOR_BYTES = vector_bits() // 8
_AHEAD = 8192  # bytes that the stream of left-hand panels, the weights, is fetched ahead

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


class Matrix(NamedTuple):
    """Rows of words, equally far apart."""

    first: Any  # place (`at`) of the first row
    step: int  # words from each row to the next


class Before(NamedTuple):
    """What a kernel adds its sums to."""

    words: Any  # place (`at`) of the words from which fresh sums start
    fresh: bool  # if not, the sums are added to what the result holds


@intrinsic
def at(_typingctx, array, index):  # noqa: ARG001 - a parameter here is the type of what codegen gets
    """Place of array[index], for a flat contiguous array that outlives its use: a pointer, without a count of references to keep."""

    def codegen(context, builder, signature, args):
        return builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


def emitted(function=None, *, bits=None):
    """An intrinsic without a result from a function that emits its code: of an `Emitter`, then an LLVM value for each argument of a call.

    Arguments are places (`at`) in arrays of one word type, integers, which become 64 bits wide, booleans, and NamedTuples of these. bits: of the
    words that it computes with, by default those of the arrays; narrower ones are widened as they are loaded, and cut as they are stored.
    """
    if function is None:
        return functools.partial(emitted, bits=bits)

    @functools.wraps(function)  # numba asks it for the names of the parameters
    def typed(_typingctx, *arguments):
        def codegen(context, builder, signature, args):
            emit = Emitter(builder, bits or next(_word_bits(signature.args)))
            function(emit, *(_parts(builder, kind, value) for kind, value in zip(signature.args, args, strict=True)))
            return context.get_dummy_value()

        return types.void(*map(_passed, arguments)), codegen

    return intrinsic(typed)


def _passed(kind):
    """The type as which an argument is passed."""
    if isinstance(kind, types.Integer):
        return types.int64 if kind.signed else types.uint64
    return types.boolean if isinstance(kind, types.Boolean) else kind


def _parts(builder, kind, value):
    """An argument's value, a NamedTuple's as that NamedTuple of values."""
    return kind.instance_class(*cgutils.unpack_tuple(builder, value)) if isinstance(kind, types.BaseNamedTuple) else value


def _word_bits(kinds):
    """Bits of the words at each place among arguments."""
    for kind in kinds:
        if isinstance(kind, types.CPointer):
            yield kind.dtype.bitwidth
        elif isinstance(kind, types.BaseTuple):
            yield from _word_bits(kind)


def number(value: int) -> ir.Constant:
    """An integer of 64 bits."""
    return ir.Constant(_I64, value)


class Emitter:
    """LLVM instructions on words of so many bits, at the builder's position."""

    def __init__(self, builder, bits):
        self.builder, self.bits = builder, bits
        self.word = ir.IntType(bits)
        self.lanes = VECTOR_BYTES * 8 // bits

    def shift(self, pointer, places):
        """The place so many words further on."""
        return self.builder.gep(pointer, [number(places) if isinstance(places, int) else places])

    def load(self, pointer, lanes=None):
        """Load a word, or a vector of so many words."""
        if lanes is None:
            return self._widened(self.builder.load(pointer))
        pointer, word = self._vector_at(pointer, lanes)
        return self._widened(self.builder.load(pointer, align=word.width // 8))

    def store(self, vector, pointer):
        """Store a vector from a place on, which may be any word's."""
        pointer, word = self._vector_at(pointer, vector.type.count)
        self.builder.store(self._cut(vector, word), pointer, align=word.width // 8)

    def _vector_at(self, pointer, lanes):
        """A place as that of a vector, and the type of the words there."""
        word = pointer.type.pointee
        return self.builder.bitcast(pointer, ir.VectorType(word, lanes).as_pointer()), word

    def _widened(self, loaded):
        of_words = ir.VectorType(self.word, loaded.type.count) if isinstance(loaded.type, ir.VectorType) else self.word
        return self.builder.zext(loaded, of_words)

    def _cut(self, vector, word):
        return self.builder.trunc(vector, ir.VectorType(word, vector.type.count))

    def prefetch(self, pointer):
        """Fetch the cache line that lies _AHEAD bytes after a word."""
        byte, flags = self.builder.bitcast(pointer, ir.IntType(8).as_pointer()), [ir.Constant(_I32, flag) for flag in (0, 3, 1)]
        function = ir.FunctionType(ir.VoidType(), [byte.type, _I32, _I32, _I32])
        function = self.builder.module.declare_intrinsic("llvm.prefetch", (byte.type,), function)
        self.builder.call(function, [self.shift(byte, _AHEAD), *flags])

    def fill(self, value, lanes):
        """A vector with the same integer in every lane."""
        return ir.Constant(ir.VectorType(self.word, lanes), [value] * lanes)

    def zero(self, lanes):
        """A vector of zeros."""
        return self.fill(0, lanes)

    def shuffle(self, x, y, lanes):
        """A vector of the given lanes of x, from 0 on, and of y, after those of x."""
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))

    def spread(self, scalar, lanes):
        """A vector with the scalar in every lane."""
        first = self.builder.insert_element(ir.Constant(ir.VectorType(self.word, lanes), ir.Undefined), scalar, ir.Constant(_I32, 0))
        return self.shuffle(first, first, [0] * lanes)

    def multiply_add(self, total, x, y, ifma):
        """The vector total + x * y, with IFMA right in its low 52 bits alone."""
        if not ifma:
            return self.builder.add(total, self.builder.mul(x, y))
        function = ir.FunctionType(total.type, [total.type] * 3)
        return self.builder.call(self.builder.module.declare_intrinsic("llvm.x86.avx512.vpmadd52l.uq.512", (), function), [total, x, y])

    def _masked(self, operation, word, result, arguments):
        name = f"llvm.masked.{operation}.v{self.lanes}i{word.width}.p0"
        function = self.builder.module.globals.get(name)
        if function is None:
            function = ir.Function(self.builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name)
        return self.builder.call(function, arguments)

    def mask(self, bits):
        """One bit a lane out of the low bits of a 64-bit integer."""
        return self.builder.bitcast(self.builder.trunc(bits, ir.IntType(self.lanes)), ir.VectorType(_I1, self.lanes))

    def load_masked(self, pointer, mask):
        """Load a vector; where the mask is off, the lane is zero and memory is not touched."""
        pointer, word = self._vector_at(pointer, self.lanes)
        vector = ir.VectorType(word, self.lanes)
        zeros = ir.Constant(vector, [0] * self.lanes)
        return self._widened(self._masked("load", word, vector, [pointer, ir.Constant(_I32, word.width // 8), mask, zeros]))

    def store_masked(self, vector, pointer, mask):
        """Store the lanes whose mask is on; other memory is not touched."""
        pointer, word = self._vector_at(pointer, self.lanes)
        self._masked("store", word, ir.VoidType(), [self._cut(vector, word), pointer, ir.Constant(_I32, word.width // 8), mask])

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
        for phi, first, later in zip([index, *values], [start, *carried], [builder.add(index, number(step)), *following], strict=True):
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
