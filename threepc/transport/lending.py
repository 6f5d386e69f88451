"""Large frames sent from where they lie, without a thread that waits for libzmq to let go of them.

pyzmq has such a thread: what libzmq has sent it is told frame by frame, and each time takes the interpreter from the thread that computes. Here
libzmq sets a mark in memory, and whoever sends or receives next looks which marks are set, and lets go of those buffers.
"""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import zmq
from zmq.backend.cython import _zmq

LEAST = 1 << 16
"""Smaller buffers are copied, which costs less."""
PLACES = 1024
"""Buffers that libzmq may hold at once; further ones are copied."""

_WAITING = -1


class _Message(ctypes.Structure):
    """zmq_msg_t."""

    _fields_ = (("content", ctypes.c_uint64 * 8),)


# Of pyzmq's own library. These calls return at once, so the interpreter is not given away meanwhile.
_LIBRARY = ctypes.PyDLL(_zmq.__file__)
_VOID, _MESSAGE = ctypes.c_void_p, ctypes.POINTER(_Message)
_init_data, _send, _close = _LIBRARY.zmq_msg_init_data, _LIBRARY.zmq_msg_send, _LIBRARY.zmq_msg_close
_init_data.argtypes = _MESSAGE, _VOID, ctypes.c_size_t, _VOID, _VOID
_send.argtypes = _MESSAGE, _VOID, ctypes.c_int
_close.argtypes = (_MESSAGE,)

# What libzmq calls, as f(buffer, mark), when it needs a buffer no more: in a thread of its own, where nothing of the interpreter may run. Of libc's
# functions of two pointers this one writes what it reads from the first, made positive, where the second points to; so a mark of -1 is gone.
_set_mark = ctypes.cast(ctypes.CDLL(None).sem_getvalue, _VOID)


class _Lent:
    """The buffers that libzmq reads. They stay alive here, whatever becomes of the sockets."""

    def __init__(self) -> None:
        self._marks = np.full(PLACES, _WAITING, np.int32)
        self._address: int = self._marks.ctypes.data
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
        return self._address + place * self._marks.itemsize

    def collect(self) -> None:
        """Let go of what libzmq needs no more."""
        if not self._buffers:
            return
        with self._lock:
            for place in np.flatnonzero(self._marks != _WAITING).tolist():
                self._marks[place] = _WAITING
                del self._buffers[place]
                self._free.append(place)


_lent = _Lent()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_lent))  # libzmq's threads may read and mark to the very end of the process
collect = _lent.collect


def send(socket: zmq.Socket[bytes], view: memoryview, flags: int) -> bool:
    """Send a large buffer, which nobody may write to afterwards, as a frame; False, with nothing sent, where it is better copied.

    Raises zmq.ZMQError as `socket.send` does. The caller has the socket for itself.
    """
    if view.nbytes < LEAST or socket.closed:
        return False
    buffer = np.frombuffer(view, np.uint8)
    mark = _lent.lend(buffer)
    if mark is None:
        return False
    message = _Message()
    if _init_data(message, buffer.__array_interface__["data"][0], view.nbytes, _set_mark, mark) < 0:
        raise zmq.ZMQError(_LIBRARY.zmq_errno())
    if _send(message, socket.underlying, flags) < 0:
        number = _LIBRARY.zmq_errno()
        _close(message)  # which sets the mark
        raise zmq.ZMQError(number)
    return True
