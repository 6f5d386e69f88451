"""Keyed streams: AES-128 in counter mode, every draw addressed by (attempt, op, purpose).

Two parties that share a key draw the same words without talking; a third, without it, sees uniform words. AES under a
secret key is taken for a pseudorandom permutation (the standard assumption; blocks of one key stay far below 2^64).
That is only worth something while no position of a stream ever masks two values, so the address *is* the counter:

    attempt (32 bits) | op (24 bits) | purpose (8 bits) | block (64 bits)        big-endian, the initial counter block

and a `Keystream` refuses, at each holder, an attempt that does not increase and an address that was already opened.
Keys are fresh for each session (`new_key`), so the session itself needs no place in the address.

Words take the stream's bytes in the machine's order: little-endian on every machine this is built for.

`Keystream.stream` draws with the library `cryptography`, in the interpreter. `Keystream.source` reserves a run for kernels, which draw it in place with
the processor's AES instructions (kernels/keystream.py) at twice the library's speed; where there are none, or they disagree with the library
when a process first needs them, the library draws the run for them.
"""

from __future__ import annotations

import functools
import secrets
import threading
from enum import IntEnum, unique
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from threepc.errors import RunError
from threepc.kernels import keystream

KEY_BYTES = 16
BLOCK_BYTES = keystream.BLOCK_BYTES
ATTEMPT_BITS, OP_BITS, PURPOSE_BITS, BLOCK_BITS = 32, 24, 8, 64

# Encrypting zeros yields the bare stream. 256 KiB amortise the call (9.4 GB/s from 64 KiB on) and stay in the L2 cache.
_ZEROS = memoryview(bytes(1 << 18))
_NOTHING = np.empty(0, np.uint8)


@unique
class Purpose(IntEnum):
    """What the words that one op draws under one key are for: with the op, what keeps its streams apart."""

    OPENING = 1
    """The one-time pads of a value that is opened: t of C and P, s of S and P; at the output g_C."""
    ACTIVATION = 2
    """d, the summand of an op's result that C and P hold."""
    DECISION = 3
    """Halves of the tables and products that P deals, masks of the comparison's wires, and beta, the mask of its bit."""
    GATE = 4
    """t and p, the pads of both branches of a gate, and w, those of its lift."""
    IDENTITY = 5
    """E and M_C, by which a truncation without a decision is lifted to the ring."""
    PRODUCT = 6
    """Of a product of two hidden values: s_x and s_y, the masks of its factors, of S and P; t, w and beta, the pads of C's answer, of C and P."""
    LOOKUP = 7
    """C's half of a one-hot choice and of what P deals with it, and the pads of the coefficients that are opened."""
    WEIGHT = 8
    """L_W, the mask of a layer's weights; under a key that S makes for these weights when it starts, and shares with P."""
    SHARE = 9
    """The client's share of an array of a data owner's; under a key that the owner makes for this array, and sends to C."""
    LABEL = 10
    """Delta and the labels l_c, by which one of two ciphertexts can be read."""
    LIFT = 11
    """Of the lift of a gate's result: s, the mask of its choice, of S and P; w, the pad of what P deals for it, of C and P."""


def new_key() -> bytes:
    """A fresh 16-byte key from the operating system's randomness."""
    return secrets.token_bytes(KEY_BYTES)


def _expanded(key: bytes) -> np.ndarray:
    """Round keys as kernels take them."""
    keys = np.empty(4 * (keystream.ROUNDS + 1), np.uint32)
    keystream.expand_key(np.frombuffer(bytes(key), np.uint32).copy(), keys)
    return keys.view(np.uint64)


@functools.cache
def instructions_agree() -> bool:
    """Whether this processor's AES instructions, as kernels use them, draw what the library draws: tried once in a process, with a fresh key."""
    if not keystream.has_instructions():
        return False
    key, drawn = new_key(), np.empty(1000, np.uint8)
    upper, block = secrets.randbits(64), secrets.randbits(32)
    keystream.fill(keystream.Source(_expanded(key), np.uint64(upper), np.empty(0, np.uint8)), block, drawn)
    encryptor = Cipher(algorithms.AES(key), modes.CTR((upper << BLOCK_BITS | block).to_bytes(BLOCK_BYTES, "big"))).encryptor()
    return encryptor.update(bytes(drawn.size)) == drawn.tobytes()


def derive_key(key: bytes, context: bytes) -> bytes:
    """A 16-byte key for one context: HKDF-SHA256 of `key` with `context` as its public label.

    Different contexts give independent keys. Parties draw every key fresh instead; the debug run, which repeats itself, derives the three
    keys of one number. Raises ValueError for a key that is not 16 bytes long.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a PRF key has {KEY_BYTES} bytes, not {len(key)}")
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=b"threepc/derived-key/" + context).derive(bytes(key))


class Keystream:
    """All streams of one shared key, at one of its holders.

    Attempts only increase: `begin_attempt` opens one, `end_attempt` closes it for good; several may be open at once, as
    dealing runs ahead of the online phase. Within an attempt no address is opened twice. Safe to share between threads.
    """

    def __init__(self, key: bytes) -> None:
        """`key`: 16 bytes from `new_key` or `derive_key`. Raises ValueError for another length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a PRF key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = bytearray(key)
        self._algorithm: algorithms.AES | None = algorithms.AES(self._key)
        self._round_keys = _expanded(key) if instructions_agree() else np.zeros(0, np.uint64)
        self._last_attempt = -1
        self._opened: dict[int, set[int]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Keystream(<secret key>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keystream holds a secret key and is never pickled")

    @property
    def last_attempt(self) -> int:
        """The highest attempt begun so far, -1 before the first."""
        return self._last_attempt

    def begin_attempt(self, attempt: int) -> None:
        """Open `attempt` for drawing. Raises RunError unless it is larger than every attempt before it."""
        _address(attempt, 0, 0)
        with self._lock:
            if attempt <= self._last_attempt:
                raise RunError(f"attempt {attempt} was refused: attempts only increase and {self._last_attempt} was begun before")
            self._last_attempt = attempt
            self._opened[attempt] = set()

    def end_attempt(self, attempt: int) -> None:
        """Close `attempt` and forget what it drew; nothing can be drawn from it again. No effect when it is not open."""
        with self._lock:
            self._opened.pop(attempt, None)

    def stream(self, attempt: int, op: int, purpose: int) -> Stream:
        """The stream of (attempt, op, purpose), which can be opened once, as a stream or a source.

        Raises ValueError when a field exceeds its bits; RunError when the attempt is not open, or the address was opened before.
        """
        with self._lock:
            return _stream(*self._open(attempt, op, purpose))

    def source(self, attempt: int, op: int, purpose: int, blocks: int) -> keystream.Source:
        """The first `blocks` 16-byte blocks of that stream for kernels, which draw each of them once at most. Raises as `stream` does."""
        with self._lock:
            algorithm, address = self._open(attempt, op, purpose)
            # a copy: erasing the key must not let a kernel that still runs draw with a key of zeros
            keys = self._round_keys.copy()
            stream = None if keys.size else _stream(algorithm, address)
        drawn = _NOTHING if stream is None else stream.fill(np.empty(blocks * BLOCK_BYTES, np.uint8))
        return keystream.Source(keys, np.uint64(address), drawn)

    def _open(self, attempt: int, op: int, purpose: int) -> tuple[algorithms.AES, int]:
        """The cipher and an address that is marked as opened from now on."""
        address = _address(attempt, op, purpose)
        if self._algorithm is None:
            raise RunError("the key of this session has been erased")
        if attempt not in self._opened:
            raise RunError(f"attempt {attempt} is not open for drawing")
        if address in self._opened[attempt]:
            raise RunError(f"the stream of attempt {attempt}, op {op}, purpose {purpose} would be used twice")
        self._opened[attempt].add(address)
        return self._algorithm, address

    def erase(self) -> None:
        """Overwrite the key and refuse further streams. Best effort: Python's, OpenSSL's and running kernels' copies are beyond reach."""
        with self._lock:
            self._key[:] = bytes(KEY_BYTES)
            self._round_keys[:] = 0
            self._algorithm = None
            self._opened.clear()


class Stream:
    """A run of pseudorandom bytes, drawn front to back; made by `Keystream.stream`, used by one thread at a time."""

    __slots__ = ("_encryptor",)

    def __init__(self, encryptor: CipherContext) -> None:
        self._encryptor = encryptor

    def fill(self, array: np.ndarray) -> np.ndarray:
        """Overwrite `array` with the next words of the stream and return it.

        `array`: C-contiguous and writeable, any shape, dtype uint8, uint16, uint32 or uint64. Every fill starts on a fresh 16-byte block:
        when the array ends within one, the rest of that block is skipped. Raises ValueError for another kind of array.
        """
        if array.dtype.kind != "u" or not array.flags.c_contiguous:
            raise ValueError(f"a stream fills C-contiguous arrays of unsigned words, not {array.dtype} with strides {array.strides}")
        if array.size == 0:
            return array
        buffer = array.data.cast("B")
        update_into = self._encryptor.update_into
        for begin in range(0, len(buffer), len(_ZEROS)):
            piece = buffer[begin : begin + len(_ZEROS)]
            update_into(_ZEROS[: len(piece)], piece)
        if len(buffer) % BLOCK_BYTES:
            self._encryptor.update(_ZEROS[: BLOCK_BYTES - len(buffer) % BLOCK_BYTES])
        return array


def _stream(algorithm: algorithms.AES, address: int) -> Stream:
    counter = (address << BLOCK_BITS).to_bytes(BLOCK_BYTES, "big")
    return Stream(Cipher(algorithm, modes.CTR(counter)).encryptor())


def _address(attempt: int, op: int, purpose: int) -> int:
    """The upper half of the counter blocks of an address."""
    for field, value, bits in (("attempt", attempt, ATTEMPT_BITS), ("op", op, OP_BITS), ("purpose", purpose, PURPOSE_BITS)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"the {field} of a stream's address must be in 0..2^{bits}-1, not {value}")
    return (attempt << OP_BITS | op) << PURPOSE_BITS | purpose
