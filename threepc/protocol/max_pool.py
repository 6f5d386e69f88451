"""Max pooling: a tournament of max(a, b) = b + ReLU(a - b) on summands cut to the bits that decide, rows first, then columns.

Every value stays a sum c + s - p of the parties' summands in the cut ring: a comparison's result is u + d at S and C, and b is added by each
party to its own. No truncation happens and nothing is lifted, so every word of the tournament has `kept_bits` bits. Each comparison is relu.py's, or quick_relu.py's,
exact for |a - b| < 2^width, at most 2^(kept-1). Semi-honest, one corruption; security is that of ReLU.
Pooling in the smaller ring after a local cut is ours: it saves a third of the bytes of a 48-bit ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels.gate import Cut
from threepc.protocol.cost import Cost
from threepc.protocol.relu import Relu
from threepc.protocol.relu_layer import OPS, ReluLayer
from threepc.protocol.roles import Client, Provider, Server, Turns, finished

Pair = tuple[int, int]
_Cells = tuple[int, int, int]
"""A cell of the windows of a range of positions: the first, the one after the last, and the cell's offset from the first of its window's step."""


@dataclass(frozen=True)
class _Round:
    """One comparison for a range of output positions along an axis: held[begin:end] = max(held[begin:end], input[source])."""

    relu: ReluLayer
    begin: int
    end: int
    source: slice


@dataclass(frozen=True)
class _Pass:
    """The comparisons along one axis of the map; held begins as the cells of `start`, one after the other: slices of the input, and their positions."""

    axis: int
    size: int
    start: tuple[tuple[slice, int], ...]
    rounds: tuple[_Round, ...]


@dataclass(frozen=True)
class MaxPool:
    """Max pooling of `shape` (N, C, H, W) by comparisons of the protocol `relu`. Values are cut words of `kept_bits` bits.

    width: bits of a difference that are compared, below its sign; None for all. padding: [top, left, bottom, right], whose cells never win.
    Raises ValueError for a window of which some position has no cell inside the map.
    """

    op: int
    shape: tuple[int, int, int, int]
    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    kept_bits: int
    relu: Callable[..., ReluLayer] = Relu
    width: int | None = None

    def __post_init__(self) -> None:
        _ = self.passes  # refuses what cannot be pooled

    @cached_property
    def passes(self) -> tuple[_Pass, ...]:
        """Along the rows, then along the columns of what that leaves."""
        along_rows = self._pass(3, self.op, self.shape)
        return along_rows, self._pass(2, self.op + OPS * len(along_rows.rounds), (*self.shape[:3], along_rows.size))

    @property
    def compared(self) -> int:
        """Bits of a difference that are compared."""
        return self.width or self.kept_bits - 1

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, C, OH, OW)."""
        along_rows, along_columns = self.passes
        return (*self.shape[:2], along_columns.size, along_rows.size)

    @cached_property
    def _relus(self) -> list[ReluLayer]:
        return [one.relu for along in self.passes for one in along.rounds]

    @property
    def ops(self) -> int:
        """Addresses taken."""
        return OPS * len(self._relus)

    @cached_property
    def cost(self) -> Cost:
        """The sum over all comparisons."""
        return sum((relu.cost for relu in self._relus), Cost())

    def _pass(self, axis: int, op: int, shape: tuple[int, int, int, int]) -> _Pass:
        (n, c, h, w), i, whole = shape, axis - 2, Cut(self.kept_bits, 0, self.kept_bits)
        before, after, step = self.padding[i], self.padding[i + 2], self.stride[i]
        size = (shape[axis] + before + after - self.dilation[i] * (self.kernel[i] - 1) - 1) // step + 1
        offsets = [k * self.dilation[i] - before for k in range(self.kernel[i])]
        cells = [(*_valid(offset, step, shape[axis], size), offset) for offset in offsets]
        starts = _starts(cells, size)
        rounds: list[_Round] = []
        for begin, end, offset in _remaining(cells, starts):
            part = (n, c, h, end - begin) if axis == 3 else (n, c, end - begin, w)
            relu = self.relu(op + OPS * len(rounds), part, whole, self.kept_bits, low_bit=0, width=self.compared)
            rounds.append(_Round(relu, begin, end, slice(begin * step + offset, None, step)))
        start = tuple((slice(begin * step + offset, None, step), end - begin) for begin, end, offset in starts)
        return _Pass(axis, size, start, tuple(rounds))

    def _run(self, z: np.ndarray, compare: Callable[[ReluLayer, np.ndarray], Turns[np.ndarray]]) -> Turns[np.ndarray]:
        """Any party: its summand through the tournament; compare(relu, a - b) is its share of ReLU(a - b)."""
        for along in self.passes:
            # a copy: z is still read when this has changed
            held = np.concatenate([_along(z, along.axis, *cells) for cells in along.start], along.axis)
            for one in along.rounds:
                other = _along(z, along.axis, one.source, one.end - one.begin)
                place = _along(held, along.axis, slice(one.begin, one.end), one.end - one.begin)
                np.add(other, (yield from compare(one.relu, place - other)), out=place)
            z = held
        return z

    def deal(self, provider: Provider, z: np.ndarray) -> np.ndarray:
        """P: deal every comparison; returns P's summand of the maxima."""
        return finished(self.dealing(provider, z))

    def dealing(self, provider: Provider, z: np.ndarray) -> Turns[np.ndarray]:
        """As `deal`, with a pause after every comparison."""
        return self._run(z, lambda relu, difference: _pausing(no_summand(relu.deal(provider, difference))))

    def prepare(self, client: Client, z: np.ndarray) -> np.ndarray:
        """C, offline: returns C's summand of the maxima."""
        return finished(self.preparing(client, z))

    def preparing(self, client: Client, z: np.ndarray) -> Turns[np.ndarray]:
        """As `prepare`, with a pause after every comparison."""
        return self._run(z, lambda relu, difference: _pausing(relu.prepare(client, difference)))

    def serve(self, server: Server, z: np.ndarray) -> np.ndarray:
        """S, online: returns S's summand of the maxima."""
        return finished(self.serving(server, z))

    def serving(self, server: Server, z: np.ndarray) -> Turns[np.ndarray]:
        """As `serve`, in turns."""
        return self._run(z, lambda relu, difference: relu.serving(server, difference))

    def infer(self, client: Client) -> None:
        """C, online."""
        finished(self.inferring(client))

    def inferring(self, client: Client) -> Turns[None]:
        """As `infer`, in turns."""
        for relu in self._relus:
            yield from relu.inferring(client)


def _pausing(share: np.ndarray) -> Turns[np.ndarray]:
    yield
    return share


def no_summand(d: np.ndarray) -> np.ndarray:
    """P's summand of a masked activation that is used where every party has one: C holds d, S u, and nothing is subtracted for P."""
    return np.zeros((), d.dtype)


def _valid(offset: int, stride: int, size: int, count: int) -> tuple[int, int]:
    """Positions o in 0..count-1 with 0 <= o * stride + offset < size, as a range."""
    return max(0, -(offset // stride) if offset < 0 else 0), max(0, min(count, -(-(size - offset) // stride)))


def _starts(cells: Sequence[_Cells], size: int) -> list[_Cells]:
    """For each of `size` positions one cell that is inside the map: a single one for all of them where there is one."""
    starts: list[_Cells] = []
    position = 0
    while position < size:
        inside = [(end, offset) for begin, end, offset in cells if begin <= position < end]
        if not inside:
            raise ValueError("a pooling window without a cell inside the map")
        end, offset = max(inside, key=lambda cell: cell[0])  # of equal ones the first
        starts.append((position, end, offset))
        position = end
    return starts


def _remaining(cells: Sequence[_Cells], starts: Sequence[_Cells]) -> Iterator[_Cells]:
    """What is left to compare: the cells, but for those where positions start."""
    for begin, end, offset in cells:
        at = begin
        for first, last, _ in (start for start in starts if start[2] == offset):
            if at < first:
                yield at, first, offset
            at = last
        if at < end:
            yield at, end, offset


def _along(array: np.ndarray, axis: int, where: slice, length: int) -> np.ndarray:
    index = [slice(None)] * 4
    index[axis] = where
    view = array[tuple(index)]
    index[axis] = slice(0, length)
    return view[tuple(index)]
