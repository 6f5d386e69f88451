"""Pickles of integer arrays in plain containers, read without running what a pickle may hold.

CIFAR's files and the relu specs of the paper's authors come as pickles, and a pickle is a program. This reader admits no callable of any
library: the few names that a pickled numpy array mentions are answered by inert stand-ins that only record bytes, and the arrays are
built from those bytes after validation. Any other name ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from threepc.errors import InputError

_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
# A key of tuples within tuples is hashed by recursion in C: a million of them would overflow the stack, and with it end the process.
_MOST_TUPLES = 50_000


def read_arrays(path: Path, largest: int) -> dict[Any, Any]:
    """The dict in a pickle of at most `largest` bytes; integer arrays among its values are numpy arrays, byte strings of Python 2 are texts.

    Raises InputError, naming the file, for any other pickle, and for what is none; executes nothing.
    """
    try:
        if path.stat().st_size > largest:
            raise InputError(f"{path}: larger than {largest >> 20} MB, which is more than such a file holds")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    try:
        _check_memory(raw)
        content = _Reader(io.BytesIO(raw), encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: refused, the pickle holds {error}") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{path}: not a readable pickle ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: the pickle holds no dictionary")
    return {name: value.values if isinstance(value, _Array) else value for name, value in content.items()}


def _check_memory(raw: bytes) -> None:
    tuples = 0
    for opcode, argument, _ in pickletools.genops(raw):
        tuples += "TUPLE" in opcode.name
        # A memo index far beyond the file's length would make the unpickler allocate that much memory.
        if "PUT" in opcode.name and int(argument or 0) > len(raw):
            raise InputError("a memo index out of range")
        if tuples > _MOST_TUPLES:
            raise InputError(f"more than {_MOST_TUPLES} tuples")


class _Dtype:
    """Stand-in for numpy.dtype: plain integers of 1 to 8 bytes."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in _INTEGERS:
            raise InputError(f"an array of type {str(name)[:20]!r}, not of integers")
        self.name, self.order = name, "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata]): plain integers have none of the middle.
        if not isinstance(state, tuple) or len(state) not in (8, 9) or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise InputError("an array of a structured type")
        self.order = "=" if state[1] == "|" else state[1]

    def array(self, raw: Any, shape: Any, fortran: bool) -> np.ndarray:
        if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
            raise InputError("an array without a shape")
        raw = _latin1(raw, "latin1") if isinstance(raw, str) else raw  # as Python 2 wrote bytes
        if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(shape) * int(self.name[1:]):
            raise InputError("an array whose bytes do not match its shape")
        return np.frombuffer(raw, np.dtype(self.order + self.name)).reshape(shape, order="F" if fortran else "C")


class _Array:
    """Stand-in for numpy.ndarray: filled by its pickled state."""

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise InputError("an array in an unknown form")
        _version, shape, dtype, fortran, raw = state
        self.values = dtype.array(raw, shape, fortran is True)


def _reconstruct(_subtype: Any, _shape: Any, _typecode: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *_axes: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _scalar(dtype: Any, raw: Any) -> int:
    if not isinstance(dtype, _Dtype):
        raise InputError("a scalar in an unknown form")
    return int(dtype.array(raw, (1,), False)[0])


def _latin1(text: Any, encoding: Any) -> bytes:
    # How pickle protocols 0 to 2 write bytes.
    if not isinstance(text, str) or encoding != "latin1":
        raise InputError("bytes in an unknown form")
    return text.encode("latin1")


class _Call:
    """One of the functions above, without the attributes by which a pickle's BUILD could change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise InputError("an assignment to a function")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Call(_latin1),
    ("collections", "OrderedDict"): dict,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Call(_reconstruct),
        (f"{_core}.multiarray", "scalar"): _Call(_scalar),
        (f"{_core}.numeric", "_frombuffer"): _Call(_frombuffer),
    }


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(f"the name {module[:60]}.{name[:60]}: only arrays of integers in plain containers are read")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:  # noqa: ARG002 - as pickle calls it
        raise InputError("a persistent reference")
