"""Bit slicing: 64 words become one 64-bit word a bit position, and back.

A plane holds bit b of every element, element i of the run in bit i % 64 of word i // 64. Everything that is done on bits is then done
on 64 elements an instruction and more.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from threepc.kernels.options import kernel


@intrinsic
def _slice_64(typingctx, source, destination, stride, first, count):  # noqa: ARG001 - numba hands them to `codegen`
    """Bits first..first+count-1 of 64 words at address `source`, one 64-bit word each at `destination`, `stride` bytes apart.

    The byte that holds a bit is gathered from all 64 words at once; then one comparison of 64 bytes yields a plane (on AVX-512 vptestmb).
    `source` is a typed pointer so that the word's width is known here.
    """
    word_bits = source.dtype.bitwidth
    signature = types.void(source, types.uintp, types.intp, types.intp, types.intp)

    def codegen(context, builder, signature, args):
        pointer, target, stride, first, count = args
        word, byte, plane, size = ir.IntType(word_bits), ir.IntType(8), ir.IntType(64), ir.IntType(64)
        words, octets = ir.VectorType(word, 64), ir.VectorType(byte, 64)
        vector = builder.load(builder.bitcast(pointer, words.as_pointer()))
        vector.align = 1
        last = builder.add(first, count)
        splat = lambda value: ir.Constant(octets, [ir.Constant(byte, value)] * 64)
        for octet in range(word_bits // 8):
            begin, end = octet * 8, octet * 8 + 8
            some = builder.and_(builder.icmp_signed("<", first, size(end)), builder.icmp_signed(">", last, size(begin)))
            with builder.if_then(some):
                shifted = builder.lshr(vector, ir.Constant(words, [ir.Constant(word, begin)] * 64))
                part = builder.trunc(shifted, octets)
                for bit in range(8):
                    position = size(begin + bit)
                    wanted = builder.and_(builder.icmp_signed(">=", position, first), builder.icmp_signed("<", position, last))
                    with builder.if_then(wanted):
                        mask = builder.icmp_unsigned("!=", builder.and_(part, splat(1 << bit)), splat(0))
                        place = builder.add(target, builder.mul(builder.sub(position, first), stride))
                        store = builder.store(builder.bitcast(mask, plane), builder.inttoptr(place, plane.as_pointer()))
                        store.align = 8
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _pointer_at(typingctx, array, index):  # noqa: ARG001 - numba hands them to `codegen`
    """Pointer to element `index` of a one-dimensional contiguous array."""
    signature = types.CPointer(array.dtype)(array, types.intp)

    def codegen(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        return cgutils.pointer_add(
            builder, view.data, builder.mul(args[1], ir.IntType(64)(signature.args[0].dtype.bitwidth // 8)), view.data.type
        )

    return signature, codegen


@kernel
def slice_bits(words, first, planes):
    """planes[b, j] = bit first + b of words 64 j .. 64 j + 63; words (64 * planes.shape[1],) uint32 or uint64, planes uint64."""
    stride = planes.strides[0]
    count, blocks = planes.shape
    for j in range(blocks):
        _slice_64(_pointer_at(words, 64 * j), planes.ctypes.data + 8 * j, stride, first, count)
