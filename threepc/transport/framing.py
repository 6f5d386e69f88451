"""The bytes of a message: its header, the descriptions of its arrays, and the JSON of control messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from threepc.errors import InputError
from threepc.files import parse_json

PROTOCOL_VERSION = 4
MAGIC = b"3PCm"
SESSION_BYTES = 8
NO_ARRIVAL = 0

DATA, CONTROL, ABORT = 0, 1, 2

_HEADER = struct.Struct("<4sHBB8sIIQQH")
HEADER_BYTES = _HEADER.size
_DTYPES: tuple[np.dtype[Any], ...] = tuple(np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64"))
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}

Layout = Sequence[tuple[np.dtype[Any] | type | str, tuple[int, ...]]]
"""The dtype (uint8, uint16, uint32 or uint64) and the shape of each array of a message."""


class MalformedError(Exception):
    """Received bytes that are no message; the text says why."""


class Header(NamedTuple):
    """The fixed part of every message; integers of 16, 8, 8, 32, 32, 64, 64 and 16 bits and a session of 8 bytes."""

    version: int
    kind: int
    phase: int
    session: bytes
    attempt: int
    op: int
    sequence: int
    arrival: int
    """When a simulated network delivers the message, in nanoseconds of CLOCK_MONOTONIC; NO_ARRIVAL without one."""
    parts: int

    def pack(self) -> bytes:
        """The header's bytes, in little-endian order behind MAGIC."""
        return _HEADER.pack(MAGIC, *self)

    @classmethod
    def unpack(cls, frame: memoryview) -> Header:
        """The header at the beginning of a frame. Raises MalformedError unless it is one of this protocol version."""
        if frame.nbytes < HEADER_BYTES or frame[: len(MAGIC)] != MAGIC:
            raise MalformedError("sent something that is no message of this protocol")
        header = cls(*_HEADER.unpack_from(frame)[1:])
        if header.version != PROTOCOL_VERSION:
            versions = f"protocol version {header.version}, this is version {PROTOCOL_VERSION}"
            raise MalformedError(f"speaks {versions}: install the same threepc everywhere")
        if header.kind not in (DATA, CONTROL, ABORT):
            raise MalformedError(f"sent a message of the unknown kind {header.kind}")
        return header


def describe(layout: Layout) -> bytes:
    """The descriptions of a message's arrays as they follow its header. Raises ValueError for a dtype that does not travel."""
    return b"".join([_describe_array(dtype, tuple(shape)) for dtype, shape in layout])


@lru_cache(maxsize=4096)
def _describe_array(dtype: np.dtype[Any] | type | str, shape: tuple[int, ...]) -> bytes:
    code = _CODES.get(np.dtype(dtype))
    if code is None:
        raise ValueError(f"arrays of {np.dtype(dtype)} do not travel, only {', '.join(map(str, _DTYPES))}")
    return struct.pack(f"<BB{len(shape)}Q", code, len(shape), *shape)


def describe_text(described: bytes) -> str:
    """Descriptions, also a stranger's, in words for an error message."""
    arrays: list[str] = []
    position = 0
    while position < len(described) and len(arrays) < 16:
        code, dimensions = described[position], int.from_bytes(described[position + 1 : position + 2], "little")
        end = position + 2 + 8 * dimensions
        if code >= len(_DTYPES) or end > len(described):
            return "unreadable arrays"
        shape = struct.unpack(f"<{dimensions}Q", described[position + 2 : end])
        arrays.append(f"{_DTYPES[code]}{list(shape)}")
        position = end
    return ", ".join(arrays + ["..."] * (position < len(described))) or "no arrays"


@dataclass(frozen=True)
class Control:
    """A control message: JSON fields, and binary attachments, which may be keys and therefore never show."""

    kind: str
    fields: dict[str, Any]
    attachments: list[bytes] = field(default_factory=list, repr=False)


def pack_control(kind: str, fields: dict[str, Any]) -> bytes:
    """Control fields as JSON. Raises ValueError for numbers that are not finite, TypeError for what is not plain."""
    return json.dumps({"kind": kind, "fields": fields}, allow_nan=False).encode()


def unpack_control(text: bytes) -> tuple[str, dict[str, Any]]:
    """Kind and fields of a control message's JSON; strict. Raises MalformedError."""
    try:
        value = parse_json(text, "a control message")
    except InputError:
        raise MalformedError("sent a control message that is not strict JSON") from None
    if not isinstance(value, dict) or set(value) != {"kind", "fields"}:
        raise MalformedError("sent a control message without kind and fields")
    if not isinstance(value["kind"], str) or not isinstance(value["fields"], dict):
        raise MalformedError("sent a control message whose kind is no text or whose fields are no mapping")
    return value["kind"], value["fields"]


def printable(text: str, limit: int = 400) -> str:
    """A stranger's text as one short line that cannot disturb a terminal."""
    return "".join(character if character.isprintable() else " " for character in text[:limit])
