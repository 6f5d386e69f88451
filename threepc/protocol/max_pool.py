"""Max pooling: a tournament of max(a, b) = b + ReLU(a - b) on summands cut to the bits that decide, rows first, then columns.

Every value stays a sum c + s - p of the parties' summands in the cut ring: a comparison's result is u + d at S and C, and b is added by each
party to its own. No truncation happens and nothing is lifted, so every word of the tournament has `cut` bits. Each comparison is relu.py's,
with a window over the whole cut ring: exact for |a - b| < 2^(cut-1). Semi-honest, one corruption; security is that of ReLU.
Pooling in the smaller ring after a local cut is ours: it saves a third of the bytes of a 48-bit ring.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.protocol.cost import Cost
from threepc.protocol.relu import OPS, Relu
from threepc.protocol.roles import Client, Provider, Server
from threepc.ring import word_of


@dataclass(frozen=True)
class _Round:
    """One comparison for a range of output positions along an axis: held[begin:end] = max(held[begin:end], input[at::step])."""

    relu: Relu
    axis: int
    begin: int
    end: int
    source: slice


class MaxPool:
    """Max pooling of `shape` (N, C, H, W); padding [top, left, bottom, right], whose cells never win. Values are cut words of `cut` bits."""

    def __init__(self, op: int, shape, kernel, stride, padding, dilation, cut: int):
        self.shape, self.cut = tuple(shape), cut
        self.passes: list[tuple[int, slice, list[_Round]]] = []
        current, op_next = list(shape), op
        for axis, before, after in ((3, padding[1], padding[3]), (2, padding[0], padding[2])):
            i = axis - 2
            size = (current[axis] + before + after - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            ranges = [_valid(k * dilation[i] - before, stride[i], current[axis], size) for k in range(kernel[i])]
            start = next((k for k, (begin, end) in enumerate(ranges) if (begin, end) == (0, size)), None)
            if start is None:
                raise ValueError("a pooling window without a cell that every window position has inside the map")
            take = lambda k: slice(ranges[k][0] * stride[i] + k * dilation[i] - before, None, stride[i])
            current[axis], rounds = size, []
            for k in [k for k in range(kernel[i]) if k != start and ranges[k][0] < ranges[k][1]]:
                begin, end = ranges[k]
                part = list(current)
                part[axis] = end - begin
                relu = Relu(op_next, tuple(part), bits=cut, shift=0, cut=cut, ring=cut, first=0, width=cut - 1)
                rounds.append(_Round(relu, axis, begin, end, take(k)))
                op_next += OPS
            self.passes.append((axis, take(start), rounds))
        self.output_shape = tuple(current)
        self.ops = op_next - op

    @property
    def cost(self) -> Cost:
        """The sum over all comparisons."""
        return sum((r.relu.cost for _, _, rounds in self.passes for r in rounds), Cost())

    def _run(self, z: np.ndarray, compare) -> np.ndarray:
        """Any party: its summand through the tournament; compare(relu, a - b) is its share of ReLU(a - b)."""
        for axis, first, rounds in self.passes:
            length = self.output_shape[axis]
            held = _along(z, axis, first, length).copy()  # z is still read when this has changed
            for r in rounds:
                other = _along(z, axis, r.source, r.end - r.begin)
                place = _along(held, axis, slice(r.begin, r.end), r.end - r.begin)
                np.add(other, compare(r.relu, place - other), out=place)
            z = held
        return z

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """P: deal every comparison; returns P's summand of the maxima."""

        def compare(relu, difference):
            relu.deal(provider, difference)
            return word_of(self.cut)(0)  # the result is d at C and u at S; nothing is subtracted for P

        return self._run(z, compare)

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline: returns C's summand of the maxima."""
        return self._run(z, lambda relu, difference: relu.prepare(client, difference))

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S, online: returns S's summand of the maxima."""
        return self._run(z, lambda relu, difference: relu.serve(server, difference))

    def infer(self, client: Client) -> None:
        """C, online."""
        for _, _, rounds in self.passes:
            for r in rounds:
                r.relu.infer(client)


def _valid(offset: int, stride: int, size: int, count: int) -> tuple[int, int]:
    """Positions o in 0..count-1 with 0 <= o * stride + offset < size, as a range."""
    return max(0, -(offset // stride) if offset < 0 else 0), max(0, min(count, -(-(size - offset) // stride)))


def _along(array: np.ndarray, axis: int, where: slice, length: int) -> np.ndarray:
    index = [slice(None)] * 4
    index[axis] = where
    view = array[tuple(index)]
    index[axis] = slice(0, length)
    return view[tuple(index)]
