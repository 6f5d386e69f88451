"""Data owners who are none of the parties: each shares its array out between client and server, and is gone.

The owner makes a key k_O for this array alone, and sends it to C (message 1). It sends S the words x - r, r from k_O (message 2). C's input r
and S's input x - r are added by the job, which takes no message. Semi-honest, one corruption. Security: C receives a random key; S receives
x, padded by r, of which it knows nothing; P receives nothing. The sums of many owners' arrays need no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.errors import InputError
from threepc.kernels.packing import pack, packed_bytes, padded, unpack
from threepc.prf import KEY_BYTES, Keystream, Purpose, new_key
from threepc.ring import word_of
from threepc.tensors.program import Program


@dataclass(frozen=True)
class Shares:
    """The two messages of an owner: `to_client`, a key, and `to_server`, masked words. Each is sent to that party and to no other."""

    to_client: bytes
    to_server: bytes


def share(program: Program, name: str, values: object) -> Shares:
    """The owner: the shares of one input of a program, for one run. Raises InputError as `Program.encoded` does."""
    words, key = program.encoded(name, values), new_key()
    masked, bits = np.zeros(padded(words.size), words.dtype), program.public.precision.bits
    masked[: words.size] = words.reshape(-1)
    masked -= _mask(key, words.size, bits)
    message = np.empty(packed_bytes(words.size, bits), np.uint8)
    pack(masked, masked.size, bits, message)
    return Shares(key, message.tobytes())


def of_client(message: bytes, count: int, bits: int) -> np.ndarray:
    """C: its `count` words. Raises InputError for what is no such message."""
    if not isinstance(message, bytes) or len(message) != KEY_BYTES:
        raise InputError(f"a share for the client is a message of {KEY_BYTES} bytes")
    return _mask(message, count, bits)[:count]


def of_server(message: bytes, count: int, bits: int) -> np.ndarray:
    """S: its `count` words. Raises InputError for what is no such message."""
    if not isinstance(message, bytes) or len(message) != packed_bytes(count, bits):
        raise InputError(f"a share for the server is a message of {packed_bytes(count, bits)} bytes")
    words = np.empty(padded(count), word_of(bits))
    unpack(np.frombuffer(message, np.uint8).copy(), words.size, bits, words)
    return words[:count]


def _mask(key: bytes, count: int, bits: int) -> np.ndarray:
    """r, padded."""
    stream = Keystream(key)
    stream.begin_attempt(0)
    mask = stream.stream(0, 0, Purpose.SHARE).fill(np.empty(padded(count), word_of(bits)))
    stream.erase()
    return mask
