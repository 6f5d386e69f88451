"""Keyed streams: AES-128 in counter mode, every draw addressed by (attempt, op, purpose).

Two parties that share a key draw the same words without talking; a third, without it, sees uniform words. AES under a
secret key is taken for a pseudorandom permutation (the standard assumption; blocks of one key stay far below 2^64).
That is only worth something while no position of a stream ever masks two values, so the address *is* the counter:

    attempt (32 bits) | op (24 bits) | purpose (8 bits) | block (64 bits)        big-endian, the initial counter block

and a `Keystream` refuses, at each holder, an attempt that does not increase and a position that was already drawn.
Keys are fresh for each session (`new_key`), so the session itself needs no place in the address.

Words take the stream's bytes in the machine's order: little-endian on every machine this is built for.
"""

from __future__ import annotations

import secrets
import threading

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import RunError

KEY_BYTES = 16
BLOCK_BYTES = 16
ATTEMPT_BITS, OP_BITS, PURPOSE_BITS, BLOCK_BITS = 32, 24, 8, 64

# Encrypting zeros yields the bare stream. 256 KiB amortise the call (9.4 GB/s from 64 KiB on) and stay in the L2 cache.
_ZEROS = memoryview(bytes(1 << 18))


def new_key() -> bytes:
    """A fresh 16-byte key from the operating system's randomness."""
    return secrets.token_bytes(KEY_BYTES)


def derive_key(key: bytes, context: bytes) -> bytes:
    """A 16-byte key for one context: HKDF-SHA256 of `key` with `context` as its public label.

    For what does not fit into an address, such as the weight mask, whose context names the weights' hash, ring, precision
    and nonce. Different contexts give independent keys. Raises ValueError for a key that is not 16 bytes long.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a PRF key has {KEY_BYTES} bytes, not {len(key)}")
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=b"threepc/derived-key/" + context).derive(bytes(key))


class Keystream:
    """All streams of one shared key, at one of its holders.

    Attempts only increase: `begin_attempt` opens one, `end_attempt` closes it for good; several may be open at once, as
    dealing runs ahead of the online phase. Within an attempt no position is drawn twice. Safe to share between threads.
    """

    def __init__(self, key: bytes):
        """`key`: 16 bytes from `new_key` or `derive_key`. Raises ValueError for another length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a PRF key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = bytearray(key)
        self._algorithm: algorithms.AES | None = algorithms.AES(self._key)
        self._last_attempt = -1
        self._drawn: dict[int, dict[tuple[int, int], list[_Extent]]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return "Keystream(<secret key>)"

    def __reduce__(self):
        raise TypeError("a Keystream holds a secret key and is never pickled")

    @property
    def last_attempt(self) -> int:
        """The highest attempt begun so far, -1 before the first."""
        return self._last_attempt

    def begin_attempt(self, attempt: int) -> None:
        """Open `attempt` for drawing. Raises RunError unless it is larger than every attempt before it."""
        _check_range("attempt", attempt, ATTEMPT_BITS)
        with self._lock:
            if attempt <= self._last_attempt:
                raise RunError(f"attempt {attempt} was refused: attempts only increase and {self._last_attempt} was begun before")
            self._last_attempt = attempt
            self._drawn[attempt] = {}

    def end_attempt(self, attempt: int) -> None:
        """Close `attempt` and forget what it drew; nothing can be drawn from it again. No effect when it is not open."""
        with self._lock:
            self._drawn.pop(attempt, None)

    def stream(self, attempt: int, op: int, purpose: int, start_block: int = 0) -> Stream:
        """The stream at (attempt, op, purpose), from the 16-byte block `start_block` on.

        Parts of one stream may be drawn by several `Stream`s that start at different blocks, in any order. Raises
        ValueError when a field exceeds its bits; RunError when the attempt is not open, or the position was drawn or opened before.
        """
        _check_range("attempt", attempt, ATTEMPT_BITS)
        _check_range("op", op, OP_BITS)
        _check_range("purpose", purpose, PURPOSE_BITS)
        _check_range("start_block", start_block, BLOCK_BITS)
        address = (attempt << OP_BITS | op) << PURPOSE_BITS | purpose
        counter = (address << BLOCK_BITS | start_block).to_bytes(BLOCK_BYTES, "big")
        with self._lock:
            if self._algorithm is None:
                raise RunError("the key of this session has been erased")
            if attempt not in self._drawn:
                raise RunError(f"attempt {attempt} is not open for drawing")
            extents = self._drawn[attempt].setdefault((op, purpose), [])
            for other in extents:
                if start_block == other.start or other.start < start_block < other.end:
                    raise RunError(f"block {start_block} of stream (attempt {attempt}, op {op}, purpose {purpose}) would be used twice")
            extent = _Extent(start_block)
            extents.append(extent)
            encryptor = Cipher(self._algorithm, modes.CTR(counter)).encryptor()
        return Stream(encryptor, extent, extents, self._lock)

    def erase(self) -> None:
        """Overwrite the key and refuse further streams. Best effort: Python's and OpenSSL's own copies are beyond reach."""
        with self._lock:
            self._key[:] = bytes(KEY_BYTES)
            self._algorithm = None
            self._drawn.clear()


class _Extent:
    """The blocks start..end-1 of one address that a `Stream` has drawn."""

    __slots__ = ("start", "end")

    def __init__(self, start: int):
        self.start = start
        self.end = start


class Stream:
    """A run of pseudorandom bytes, drawn front to back; made by `Keystream.stream`, used by one thread at a time."""

    __slots__ = ("_encryptor", "_extent", "_extents", "_lock")

    def __init__(self, encryptor, extent: _Extent, extents: list[_Extent], lock: threading.Lock):
        self._encryptor = encryptor
        self._extent = extent
        self._extents = extents
        self._lock = lock

    @property
    def position(self) -> int:
        """The block that the next `fill` starts with."""
        return self._extent.end

    def fill(self, array: np.ndarray) -> np.ndarray:
        """Overwrite `array` with the next words of the stream and return it.

        `array`: C-contiguous and writeable, any shape, dtype uint8, uint16, uint32 or uint64. Every fill starts on a fresh 16-byte block:
        when the array ends within one, the rest of that block is skipped. Raises ValueError for another kind of
        array; RunError when the fill would run into blocks that another stream of this address has taken.
        """
        if array.dtype.kind != "u" or not array.flags.c_contiguous:
            raise ValueError(f"a stream fills C-contiguous arrays of unsigned words, not {array.dtype} with strides {array.strides}")
        if array.size == 0:
            return array
        self._advance(-(-array.nbytes // BLOCK_BYTES))
        buffer = memoryview(array).cast("B")
        update_into = self._encryptor.update_into
        for begin in range(0, len(buffer), len(_ZEROS)):
            piece = buffer[begin : begin + len(_ZEROS)]
            update_into(_ZEROS[: len(piece)], piece)
        if len(buffer) % BLOCK_BYTES:
            self._encryptor.update(_ZEROS[: BLOCK_BYTES - len(buffer) % BLOCK_BYTES])
        return array

    def _advance(self, blocks: int) -> None:
        extent = self._extent
        end = extent.end + blocks
        with self._lock:
            if end > 1 << BLOCK_BITS:
                raise RunError("a stream ran past the last of its blocks")
            for other in self._extents:
                if extent.end <= other.start < end and other is not extent:
                    raise RunError(f"block {other.start} of a stream would be used twice")
            extent.end = end


def _check_range(field: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"the {field} of a stream's address must be in 0..2^{bits}-1, not {value}")
