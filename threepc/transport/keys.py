"""CURVE key pairs of the parties, in the 40 characters of z85 that files and sockets use."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

KEY_CHARACTERS = 40


@dataclass(frozen=True)
class KeyPair:
    """A party's long-term keys; the secret one never shows."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> KeyPair:
        """A fresh pair from the operating system's randomness."""
        return cls(*zmq.curve_keypair())

    def is_consistent(self) -> bool:
        """Whether the two keys belong together."""
        return zmq.curve_public(self.secret) == self.public


def is_key(text: bytes) -> bool:
    """Whether `text` is a CURVE key in z85."""
    try:
        return len(text) == KEY_CHARACTERS and z85.encode(z85.decode(text)) == text
    except (KeyError, struct.error):  # a character that z85 does not have, or five that stand for more than 32 bits
        return False
