"""Bit slicing: 64 words become one 64-bit word a bit position.

A plane holds bit b of every element, element i of the run in bit i % 64 of word i // 64. Everything that is done on bits is then done
on 64 elements an instruction and more.
"""

from llvmlite import ir

from threepc.kernels.emitter import at, emitted, number
from threepc.kernels.options import kernel


@emitted
def _slice_64(emit, source, target, stride, low_bit, count):
    """Bits low_bit .. low_bit + count - 1 of 64 words from the place `source` on, one 64-bit word each at address `target`, `stride` bytes apart.

    The byte that holds a bit is gathered from all 64 words at once; then one comparison of 64 bytes yields a plane (on AVX-512 vptestmb).
    """
    builder, byte, plane = emit.builder, ir.IntType(8), ir.IntType(64)
    octets = ir.VectorType(byte, 64)
    vector = emit.load(source, 64)
    end = builder.add(low_bit, count)
    splat = lambda value: ir.Constant(octets, [value] * 64)
    for begin in range(0, emit.bits, 8):
        some = builder.and_(builder.icmp_signed("<", low_bit, number(begin + 8)), builder.icmp_signed(">", end, number(begin)))
        with builder.if_then(some):
            part = builder.trunc(builder.lshr(vector, emit.fill(begin, 64)), octets)
            for bit in range(8):
                position = number(begin + bit)
                wanted = builder.and_(builder.icmp_signed(">=", position, low_bit), builder.icmp_signed("<", position, end))
                with builder.if_then(wanted):
                    mask = builder.icmp_unsigned("!=", builder.and_(part, splat(1 << bit)), splat(0))
                    place = builder.add(target, builder.mul(builder.sub(position, low_bit), stride))
                    builder.store(builder.bitcast(mask, plane), builder.inttoptr(place, plane.as_pointer()), align=8)


@kernel
def slice_bits(words, low_bit, planes):
    """planes[b, j] = bit low_bit + b of words 64 j .. 64 j + 63; words (64 * planes.shape[1],) uint32 or uint64, planes uint64."""
    stride = planes.strides[0]
    count, blocks = planes.shape
    for j in range(blocks):
        _slice_64(at(words, 64 * j), planes.ctypes.data + 8 * j, stride, low_bit, count)
