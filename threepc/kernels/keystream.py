"""AES-128 in counter mode with the processor's own instructions, so that masks are drawn where they are used, in the cache.

The counter blocks are those of `threepc.prf`, which says what an address is, keeps the keys, sees to it that none is drawn twice, and compares
what is drawn here with the library it uses otherwise. VAES encrypts four blocks an instruction, AES-NI one; without either, and on other
processors, `threepc.prf` draws with its library and `Source.drawn` holds the stream. The instructions take the same time for every key.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from threepc.kernels.emitter import at, emitted, number
from threepc.kernels.options import cpu_features, has_avx512, inline, kernel

BLOCK_BYTES = 16
ROUNDS = 10

_HAS_AES = "aes" in cpu_features()
_VECTOR_BLOCKS = 4 if "vaes" in cpu_features() and has_avx512() else 1
_VECTORS = 8
STEP = _VECTORS * _VECTOR_BLOCKS
"""Blocks that are encrypted together: enough independent chains to hide an instruction's latency."""


class Source(NamedTuple):
    """A stream as kernels draw it: round keys (22,) uint64, the upper half of all counter blocks, and, where the library drew, all its bytes."""

    keys: np.ndarray
    address: np.uint64
    drawn: np.ndarray


def has_instructions() -> bool:
    """Whether this processor encrypts AES blocks by instructions that are known here."""
    return _HAS_AES


def _declare(builder, name, result, arguments):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _aes(builder, last, state, key):
    suffix = "last" if last else ""
    width = ".512" if state.type.count == 8 else ""
    return builder.call(_declare(builder, f"llvm.x86.aesni.aesenc{suffix}{width}", state.type, [state.type, state.type]), [state, key])


@emitted
def _encrypt(emit, keys, address, block, target):
    """Encrypt STEP counter blocks from `block` on to the address `target`; keys: place of the round keys."""
    builder, lanes = emit.builder, 2 * _VECTOR_BLOCKS
    swap = _declare(builder, f"llvm.bswap.v{lanes}i64", ir.VectorType(emit.word, lanes), [ir.VectorType(emit.word, lanes)])
    upper, first = emit.spread(address, lanes), emit.spread(block, lanes)
    states = []
    for v in range(_VECTORS):
        lower = builder.add(first, ir.Constant(first.type, [v * _VECTOR_BLOCKS + i // 2 for i in range(lanes)]))
        # upper halves in even lanes, both big-endian
        states.append(builder.call(swap, [emit.shuffle(upper, lower, [i if i % 2 == 0 else lanes + i for i in range(lanes)])]))
    for i in range(ROUNDS + 1):
        pair = emit.load(emit.shift(keys, 2 * i), 2)
        key = emit.shuffle(pair, pair, [j % 2 for j in range(lanes)])
        states = [builder.xor(s, key) if i == 0 else _aes(builder, i == ROUNDS, s, key) for s in states]
    for v, state in enumerate(states):
        place = builder.add(target, ir.Constant(target.type, v * _VECTOR_BLOCKS * BLOCK_BYTES))
        builder.store(state, builder.inttoptr(place, state.type.as_pointer()), align=1)


@emitted
def _substitute(emit, word):
    """Put the bytes of the 32-bit word at a place through AES's S-box: in four equal columns a round without mixing moves nothing."""
    builder, pair = emit.builder, ir.VectorType(ir.IntType(64), 2)
    state = _aes(builder, True, builder.bitcast(emit.spread(emit.load(word), 4), pair), ir.Constant(pair, [0, 0]))
    builder.store(builder.extract_element(builder.bitcast(state, ir.VectorType(emit.word, 4)), number(0)), word)


@kernel
def expand_key(key, keys):
    """keys (44,) uint32 = the round keys of key (4,) uint32, FIPS 197; only where `has_instructions`."""
    keys[:4] = key
    constant = np.uint32(1)
    for i in range(4, 4 * (ROUNDS + 1)):
        keys[i] = keys[i - 1]
        if i % 4 == 0:
            keys[i] = np.uint32(keys[i] >> np.uint32(8)) | np.uint32(keys[i] << np.uint32(24))
            _substitute(at(keys, i))
            keys[i] ^= constant
            constant = np.uint32(constant << np.uint32(1)) ^ np.uint32(np.uint32(0x11B) * np.uint32(constant >> np.uint32(7)))
        keys[i] ^= keys[i - 4]


if _HAS_AES:

    @inline
    def _fill(source, block, octets):
        size, target, keys = octets.shape[0], octets.ctypes.data, at(source.keys, 0)
        whole = size // (STEP * BLOCK_BYTES)
        for i in range(whole):
            _encrypt(keys, source.address, np.uint64(block) + np.uint64(i * STEP), target + i * STEP * BLOCK_BYTES)
        done = whole * STEP * BLOCK_BYTES
        if done < size:
            rest = np.empty(STEP * BLOCK_BYTES, np.uint8)
            _encrypt(keys, source.address, np.uint64(block) + np.uint64(whole * STEP), rest.ctypes.data)
            octets[done:] = rest[: size - done]

else:

    @inline
    def _fill(_source, _block, _octets):
        raise ValueError("a stream that was to be drawn beforehand")


@inline
def draw(source, block, out):
    """Fill `out`, flat words of any type, from block `block` of the stream on; returns the first block that is left."""
    octets = out.view(np.uint8)
    if source.drawn.shape[0]:
        octets[:] = source.drawn[block * BLOCK_BYTES : block * BLOCK_BYTES + octets.shape[0]]
    else:
        _fill(source, block, octets)
    return np.int64(block) + (octets.shape[0] + BLOCK_BYTES - 1) // BLOCK_BYTES


@kernel
def fill(source, block, out):
    """`draw` as a call of its own."""
    return draw(source, block, out)
