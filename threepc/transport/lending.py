"""Large frames sent from where they lie, without a thread that waits for libzmq to let go of them.

pyzmq has such a thread: what libzmq has sent it is told frame by frame, and each time takes the interpreter from the thread that computes. Here
libzmq sets a mark in memory, and whoever sends or receives next looks which marks are set, and lets go of those buffers.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import zmq
from zmq.backend.cython import _zmq

from threepc.kernels.marks import set_mark

LEAST = 1 << 16
"""Smaller buffers are copied, which costs less."""
PLACES = 1024
"""Buffers that libzmq may hold at once; further ones are not lent."""


class _Message(ctypes.Structure):
    """zmq_msg_t."""

    _fields_ = (("content", ctypes.c_uint64 * 8),)


class _Calls(NamedTuple):
    """Of libzmq, which pyzmq has no names for."""

    init_data: Callable[..., int]
    send: Callable[..., int]
    close: Callable[..., int]
    errno: Callable[[], int]


def _calls() -> _Calls | None:
    """Those of the library that pyzmq uses; None where it hides them, as on systems for which it was linked otherwise."""
    void, message = ctypes.c_void_p, ctypes.POINTER(_Message)
    try:
        library: Any = ctypes.PyDLL(_zmq.__file__)  # its calls return at once, so the interpreter is not given away meanwhile
        calls = _Calls(library.zmq_msg_init_data, library.zmq_msg_send, library.zmq_msg_close, library.zmq_errno)
    except (OSError, AttributeError):
        return None
    calls.init_data.argtypes = message, void, ctypes.c_size_t, void, void  # type: ignore[attr-defined]  # of ctypes
    calls.send.argtypes = message, void, ctypes.c_int  # type: ignore[attr-defined]  # of ctypes
    calls.close.argtypes = (message,)  # type: ignore[attr-defined]  # of ctypes
    return calls


class _Lent:
    """The buffers that libzmq reads. They stay alive here, whatever becomes of the sockets."""

    def __init__(self) -> None:
        self._marks = bytearray(PLACES)
        self._array = np.frombuffer(self._marks, np.uint8)  # which keeps the marks where they are
        self._address: int = self._array.ctypes.data
        self._buffers: dict[int, np.ndarray] = {}
        self._free = list(range(PLACES))
        self._lock = threading.Lock()

    def lend(self, buffer: np.ndarray) -> int | None:
        """The address of a mark that libzmq is to set once it needs the buffer no more; None when too many are lent."""
        with self._lock:
            if not self._free:
                return None
            place = self._free.pop()
            self._buffers[place] = buffer
        return self._address + place

    def collect(self) -> None:
        """Let go of what libzmq needs no more."""
        if not self._buffers or self._marks.find(1) < 0:
            return
        with self._lock:
            place = -1
            while (place := self._marks.find(1, place + 1)) >= 0:
                self._marks[place] = 0
                del self._buffers[place]
                self._free.append(place)


_lent, _zmq_calls = _Lent(), _calls()
for kept in (_lent, set_mark):  # libzmq's threads may read and mark to the very end of the process
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
collect = _lent.collect


def send(socket: zmq.Socket[bytes], view: memoryview, flags: int) -> bool:
    """Send a large buffer, which nobody may write to afterwards, as a frame; False, with nothing sent, where pyzmq is to send it.

    Raises zmq.ZMQError as `socket.send` does. The caller has the socket for itself.
    """
    if _zmq_calls is None or view.nbytes < LEAST or socket.closed:
        return False
    buffer = np.frombuffer(view, np.uint8)
    mark = _lent.lend(buffer)
    if mark is None:
        return False
    message = _Message()
    if _zmq_calls.init_data(message, buffer.__array_interface__["data"][0], view.nbytes, set_mark.address, mark) < 0:
        raise zmq.ZMQError(_zmq_calls.errno())
    if _zmq_calls.send(message, socket.underlying, flags) < 0:
        number = _zmq_calls.errno()
        _zmq_calls.close(message)  # which sets the mark
        raise zmq.ZMQError(number)
    return True
