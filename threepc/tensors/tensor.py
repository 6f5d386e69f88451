"""A hidden array while a job is traced: what is done to it becomes nodes of a graph, as numpy would do it.

An array of up to three axes is a node of shape (C, H, W), axes that it lacks being 1 in front. What only moves numbers takes no message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from threepc.errors import InputError, typed
from threepc.graph.ir import signed
from threepc.graph.kinds import MAX_KERNEL, MAX_SIDE
from threepc.graph.moves import are_bounded, simplified
from threepc.graph.smooth import SMOOTH
from threepc.tensors.recording import Trace, cells, limit_of


class Tensor:
    """A hidden array of `shape`. Operators and methods as numpy's; every operation refuses, in one line, what it does not do."""

    __array_ufunc__ = None  # numpy leaves array + tensor to the tensor
    __hash__ = object.__hash__

    def __init__(self, trace: Trace, node: str, shape: tuple[int, ...]) -> None:
        self._trace, self.node, self.shape = trace, node, shape

    def __repr__(self) -> str:
        return f"Tensor({self.node}, shape={self.shape})"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of numbers."""
        return math.prod(self.shape)

    def __bool__(self) -> bool:
        raise InputError("a hidden value decides nothing in Python: use where(condition, a, b)")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1

    # Pieces

    def _new(self, kind: str, shape: tuple[int, ...], *others: Tensor, **attributes: Any) -> Tensor:
        """An operation whose result has the cells of `shape`."""
        node = self._trace.add(kind, [self.node, *(other.node for other in others)], **attributes)
        return Tensor(self._trace, node.name, shape)

    def moved(self, shape: Sequence[int], *moves: list[Any]) -> Tensor:
        """The numbers rearranged by `moves` of this array's own axes."""
        whole, found = cells(self.shape), [["reshape", list(self.shape)], *moves, ["reshape", list(cells(shape))]]
        kept = simplified(whole, found)
        if not kept:
            return Tensor(self._trace, self.node, tuple(shape))
        if not are_bounded(whole, kept):
            raise InputError(f"an array of shape {self.shape} becomes too large on the way to {tuple(shape)}")
        return Tensor(self._trace, self._trace.moved(self.node, kept).name, tuple(shape))

    def _other(self, value: object) -> Tensor:
        """The second operand; a number or an array becomes a constant that everybody knows."""
        if isinstance(value, Tensor):
            if value._trace is not self._trace:
                raise InputError("the two tensors belong to two jobs: a job takes only its own")
            return value
        return constant(self._trace, value)

    def _together(self, value: object) -> tuple[Tensor, Tensor]:
        """Both operands, broadcast to one shape."""
        other = self._other(value)
        shape = broadcast(self.shape, other.shape)
        return self.broadcast_to(shape), other.broadcast_to(shape)

    def assume(self, limit: float) -> Tensor:
        """The same array, of which the job's author states that no number is larger than `limit`, rounding included.

        No party can check that: a number that is larger may make the results wrong without any sign. It is for values whose worst case is far
        from what occurs. The program carries it (`Program.assumptions`), every party's log says it, `Program.in_the_clear` checks it.
        """
        return self._new("limit", self.shape, size=limit_of("assume", limit))

    # Moving numbers

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        """As numpy.broadcast_to."""
        shape = tuple(shape)
        if broadcast(self.shape, shape) != shape:
            raise InputError(f"an array of shape {self.shape} cannot be broadcast to {shape}")
        if shape == self.shape:
            return self
        padded = (1,) * (len(shape) - self.ndim) + self.shape
        takes = [["take", axis, 0, 0, size] for axis, size in enumerate(shape) if size != padded[axis]]
        return self.moved(shape, ["reshape", list(padded)], *takes)

    def reshape(self, *shape: Any) -> Tensor:
        """As numpy's; one size may be -1."""
        sizes = [*shape[0]] if len(shape) == 1 and isinstance(shape[0], Sequence) else [*shape]
        if sizes.count(-1) == 1:
            rest = math.prod(size for size in sizes if size != -1)
            sizes[sizes.index(-1)] = self.size // rest if rest else 0
        if math.prod(sizes) != self.size or any(type(size) is not int or size < 1 for size in sizes):
            raise InputError(f"an array of shape {self.shape} cannot be reshaped to {tuple(shape)}")
        return self.moved(sizes, ["reshape", sizes])

    def transpose(self, *axes: int) -> Tensor:
        """As numpy's: the axes in reverse, or in this order."""
        order = [axis % self.ndim for axis in axes if -self.ndim <= axis < self.ndim] or list(range(self.ndim))[::-1]
        if sorted(order) != list(range(self.ndim)) or len(axes) not in (0, self.ndim):
            raise InputError(f"axes {axes} are not those of an array of shape {self.shape}")
        return self.moved([self.shape[axis] for axis in order], ["permute", order])

    @property
    def T(self) -> Tensor:  # noqa: N802 - numpy's name
        """The axes in reverse."""
        return self.transpose()

    def __getitem__(self, key: Any) -> Tensor:
        """Whole numbers and slices, one for each axis from the first on."""
        keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim:
            raise InputError(f"{len(keys)} indices for an array of shape {self.shape}")
        moves: list[list[Any]] = []
        shape: list[int] = []
        for axis, (size, each) in enumerate(zip(self.shape, [*keys, *[slice(None)] * (self.ndim - len(keys))], strict=True)):
            if isinstance(each, slice):
                found = range(*each.indices(size))
                shape.append(len(found))
            elif type(each) is int and -size <= each < size:
                found = range(each % size, each % size + 1)
            else:
                raise InputError(f"index {each!r:.80} of axis {axis}: must be a slice, or a whole number below {size}")
            if not found:
                raise InputError(f"index {each!r:.80} of axis {axis} leaves nothing of its {size} numbers")
            if found != range(size):
                moves.append(["take", axis, found.start, found.step, len(found)])
        return self.moved(shape, *moves)

    # Arithmetic

    def _sum(self, value: object, signs: tuple[int, int]) -> Tensor:
        one, other = self._together(value)
        return one._new("add", one.shape, other, **signed(signs))

    def __add__(self, value: object) -> Tensor:
        return self._sum(value, (1, 1))

    __radd__ = __add__

    def __sub__(self, value: object) -> Tensor:
        return self._sum(value, (1, -1))

    def __rsub__(self, value: object) -> Tensor:
        return self._sum(value, (-1, 1))

    def __neg__(self) -> Tensor:
        return self * -1

    def __mul__(self, value: object) -> Tensor:
        other = self._other(value)
        shape = broadcast(self.shape, other.shape)
        one, two = self, other
        if _leaves_rows(cells(one.shape), cells(shape)):
            one = one.broadcast_to(shape)
        if _leaves_rows(cells(two.shape), cells(shape)):
            two = two.broadcast_to(shape)
        return one._new("multiply", shape, two)

    __rmul__ = __mul__

    def __truediv__(self, value: object) -> Tensor:
        if isinstance(value, Tensor):
            raise InputError("a hidden divisor is not possible: divide what is revealed, or multiply by the reciprocal")
        divisor = np.asarray(value, np.float64)
        if not divisor.all():
            raise InputError("a division by zero")
        return self * (1 / divisor)

    def __pow__(self, power: int) -> Tensor:
        if type(power) is not int or not 1 <= power <= 64:
            raise InputError(f"a power must be a whole number from 1 to 64, not {power!r:.80}")
        half = self ** (power // 2) if power > 1 else self
        return self if power == 1 else half * half if power % 2 == 0 else half * half * self

    def __matmul__(self, value: object) -> Tensor:
        return _matmul(self, self._other(value))

    def __rmatmul__(self, value: object) -> Tensor:
        return _matmul(self._other(value), self)

    # Comparisons: 1 where they hold, else 0

    def __gt__(self, value: object) -> Tensor:
        # what lies above 0 by a unit or more becomes one unit, and that is 1 when it is multiplied by a whole number
        return (self - value).clip(0.0, self._trace.unit) * (1 / self._trace.unit)

    def __lt__(self, value: object) -> Tensor:
        return self._other(value) > self

    def __ge__(self, value: object) -> Tensor:
        return 1 - (self < value)

    def __le__(self, value: object) -> Tensor:
        return 1 - (self > value)

    def __eq__(self, value: object) -> Tensor:  # type: ignore[override]  # as numpy's, which gives an array too
        return 1 - (self < value) - (self > value)

    def __ne__(self, value: object) -> Tensor:  # type: ignore[override]  # as numpy's, which gives an array too
        return (self < value) + (self > value)

    # Functions of each number

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return self._new("relu", self.shape)

    def clip(self, low: float, high: float) -> Tensor:
        """As numpy's."""
        if not float(low) < float(high):
            raise InputError(f"clip: the lower bound {low} must be below {high}")
        return self._new("clip", self.shape, **({"min": float(low)} if low else {}), max=float(high))

    def __abs__(self) -> Tensor:
        return self._new("bend", self.shape, slopes=[-1.0, 1.0])

    def apply(self, function: str) -> Tensor:
        """A smooth function by its name, such as sigmoid or tanh, from a table; its error is about a unit."""
        if function not in SMOOTH:
            raise InputError(f"no function {function!r:.80}: there are {', '.join(SMOOTH)}")
        return self._new("smooth", self.shape, function=function, parameter=1.0)

    # Over axes

    def _rows(self, axis: int | Sequence[int] | None) -> tuple[Tensor, tuple[int, ...], int]:
        """The array as (numbers of the result, 1, numbers that make one), the result's shape, and the latter."""
        chosen = range(self.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
        for each in chosen:
            if type(each) is not int or not -self.ndim <= each < self.ndim:
                raise InputError(f"axis {each!r:.80} of an array of shape {self.shape}")
        gone = sorted({each % self.ndim for each in chosen}) if self.ndim else []
        stay = [each for each in range(self.ndim) if each not in gone]
        shape, count = tuple(self.shape[each] for each in stay), math.prod(self.shape[each] for each in gone)
        if count > MAX_SIDE:
            raise InputError(f"{count:,} numbers at once are more than {MAX_SIDE:,}: go over one axis after the other")
        rows = (math.prod(shape), 1, count)
        return self.moved(rows, ["permute", [*stay, *gone]], ["reshape", list(rows)]), shape, count

    def _pooled(self, axis: int | Sequence[int] | None, divides: bool) -> Tensor:
        rows, shape, count = self._rows(axis)
        window: dict[str, Any] = {"kernel": [1, count], "stride": [1, 1], "padding": [0] * 4, "divisor": float(count) if divides else 1.0}
        return rows._new("avgpool", (rows.shape[0], 1, 1), **window).reshape(shape)

    def sum(self, axis: int | Sequence[int] | None = None) -> Tensor:
        """As numpy's."""
        return self._pooled(axis, False)

    def mean(self, axis: int | Sequence[int] | None = None) -> Tensor:
        """As numpy's."""
        return self._pooled(axis, True)

    def max(self, axis: int | Sequence[int] | None = None) -> Tensor:
        """As numpy's; a tournament, of at most 1,024 numbers."""
        rows, shape, count = self._rows(axis)
        if count > MAX_KERNEL:
            raise InputError(f"a maximum of {count:,} numbers: at most {MAX_KERNEL:,} at once; go over one axis after the other")
        window: dict[str, Any] = {"kernel": [1, count], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1]}
        return rows._new("maxpool", (rows.shape[0], 1, 1), **window).reshape(shape)

    def min(self, axis: int | Sequence[int] | None = None) -> Tensor:
        """As numpy's."""
        return -(-self).max(axis)

    def argmax(self, axis: int | None = None) -> Labels:
        """The index of the largest number of an axis, or of all; the last of equal ones. It can only be revealed, and to the client."""
        rows, shape, count = self._rows(axis)
        return Labels(rows.moved((count, rows.shape[0], 1), ["permute", [2, 0, 1]]), shape)


@dataclass(frozen=True)
class Labels:
    """Indices of largest numbers, of `shape`, which become known only as they are revealed. ranked: numbers to compare along the first axis."""

    ranked: Tensor
    shape: tuple[int, ...]


def constant(trace: Trace, value: object) -> Tensor:
    """An array that everybody knows. Raises InputError for anything but finite real numbers."""
    if isinstance(value, str | bytes) or not isinstance(value, Real | np.ndarray | Sequence):
        raise InputError(f"an operand must be a tensor of this job, a number or an array, not {typed(value)}")
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError("an array must be one of real numbers") from None
    if not np.isfinite(numbers).all():
        raise InputError("a constant holds infinite or undefined numbers")
    node = trace.add("constant", [], cells(numbers.shape), values=numbers.reshape(-1).tolist())
    return Tensor(trace, node.name, numbers.shape)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that numpy broadcasts these to. Raises InputError where it does not."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InputError(f"arrays of shapes {' and '.join(map(str, shapes))} do not broadcast") from None


def _leaves_rows(factor: tuple[int, int, int], shape: tuple[int, int, int]) -> bool:
    """Whether a factor is repeated along the first and the last axis but not between them, which a product does not do by itself."""
    return factor[0] < shape[0] and factor[1] == shape[1] > 1 and factor[2] < shape[2]


def _matmul(one: Tensor, other: Tensor) -> Tensor:
    """As numpy.matmul."""
    if not one.ndim or not other.ndim or one.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise InputError(f"arrays of shapes {one.shape} and {other.shape} have no matrix product")
    a = one if one.ndim > 1 else one.reshape(1, one.size)
    b = other if other.ndim > 1 else other.reshape(other.size, 1)
    maps = broadcast(a.shape[:-2], b.shape[:-2])
    a, b = a.broadcast_to((*maps, *a.shape[-2:])), b.broadcast_to((*maps, *b.shape[-2:]))
    product = a._new("matmul", (*maps, a.shape[-2], b.shape[-1]), b)
    kept = (*maps, *(a.shape[-2:-1] if one.ndim > 1 else ()), *(b.shape[-1:] if other.ndim > 1 else ()))
    return product if kept == product.shape else product.reshape(kept)


def where(condition: Tensor, one: object, other: object) -> Tensor:
    """`one` where a comparison holds, `other` where it does not; broadcast as numpy does."""
    if not isinstance(condition, Tensor):
        raise InputError("where: the condition must be a tensor, the result of a comparison")
    second = condition._other(other)
    return condition * (condition._other(one) - second) + second


def maximum(one: Tensor, other: object) -> Tensor:
    """The larger of each two numbers."""
    second = one._other(other)
    return second + (one - second).relu()


def minimum(one: Tensor, other: object) -> Tensor:
    """The smaller of each two numbers."""
    return one - (one - other).relu()


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """As numpy's."""
    shapes = [tensor.shape for tensor in tensors]
    first = shapes[0] if shapes else ()
    if len(tensors) < 2 or not first or not -len(first) <= axis < len(first):
        raise InputError("concatenate: takes two arrays or more, and one of their axes")
    axis %= len(first)
    without = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(without) > 1 or any(len(shape) != len(first) for shape in shapes):
        raise InputError(f"arrays of shapes {', '.join(map(str, shapes))} cannot be put together along axis {axis}")
    order = [axis, *(other for other in range(len(first)) if other != axis)]
    rows = [tensor.moved((tensor.shape[axis], 1, tensor.size // tensor.shape[axis]), ["permute", order]) for tensor in tensors]
    together = rows[0]
    for each in rows[1:]:
        other = together._other(each)
        together = together._new("concat", (len(together) + len(other), 1, rows[0].shape[2]), other)
    sizes = [len(together), *(first[other] for other in order[1:])]
    back = [order.index(other) for other in range(len(first))]
    return together.moved([sizes[i] for i in back], ["reshape", sizes], ["permute", back])
