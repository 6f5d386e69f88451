"""A plan as it grows: one step after the other, with the form and the scale that every value has. layers.py says what each kind of node adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from threepc.errors import InputError
from threepc.graph import relu_spec
from threepc.graph.ir import Graph, Node
from threepc.graph.kinds import TWO_INPUTS
from threepc.graph.relu_spec import Sizes
from threepc.kernels.gate import Cut
from threepc.kernels.packing import TILE
from threepc.plan.precision import DEEPEST_TRUNCATION, MAX_TRUNCATION, Precision
from threepc.protocol.late_relu import WIDEST_LIFT, LateRelu
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.one_level import WIDEST
from threepc.protocol.pieces import CHANNELS, MOST, ROWS, InPieces, evenly
from threepc.protocol.quick_relu import QuickRelu
from threepc.protocol.relu import Relu
from threepc.protocol.relu_layer import OPS, ReluLayer
from threepc.protocol.steps import CUT, RAW, REDUCED, LocalStep, ReluStep, Step, Value
from threepc.protocol.summands import every_second

# Limits on what a stranger's model may ask for, so that nothing is allocated for more; far above what the largest networks take.
MOST_OPS = 1 << 16
"""Addresses in the parties' streams; one has 24 bits for them."""
ROWS_OF_PIECE, LEAST_ROWS = 8, TILE // 4
"""A piece of rows is so much smaller than one of channels, but no smaller than that: the next layer waits for the first pieces alone."""
LEAST_KEPT = 11
"""Bits that a value keeps at least where its truncation removes an average's besides its own."""
MOST_ELEMENTS = 1 << 30
"""Of one value, over the batch."""


def elements(value: Value) -> int:
    """Numbers of one value, over the batch."""
    n, c, h, w = value.shape
    return n * c * h * w


class Scheduler:
    """The plan so far: its steps, and for every node the value that stands for it."""

    def __init__(  # noqa: PLR0913 - of `schedule`
        self,
        graph: Graph,
        precision: Precision,
        sizes: Sizes,
        batch: int,
        reveals: Mapping[str, str],
        draft: bool,
        quick: frozenset[str],
        to_client: frozenset[str],
        *,
        piece: int,
        late: frozenset[str],
    ) -> None:
        self.piece, self.late = piece, late
        self.draft, self.quick, self.to_client = draft, quick, to_client
        self.graph, self.precision, self.sizes, self.batch, self.reveals = graph, precision, sizes, batch, reveals
        self.readers = graph.consumers()
        self.bits, self.fraction = precision.bits, precision.fraction
        self.steps: list[Step] = []
        self.op = 0
        self.linear: dict[str, int] = {}  # convolution -> its op
        self.decoded = 0  # numbers that the client makes of all outputs
        self.held: dict[str, str] = {}  # node name -> name of the value that stands for it
        self.values: dict[str, Value] = {}
        self.settled: dict[str, int] = {}  # the fractional bits that a value has once it is truncated, by its name

    # The pieces

    def relu(self, node: Node, width: int, lifted: int = 0) -> Callable[..., ReluLayer]:
        """The protocol of a node's ReLUs, whose comparisons have `width` bits: of two messages, if these can be compared in two, of six, or of four.

        lifted: bits by which a gate without slopes lifts its values; of no others there are six messages. Of those in four or six, the client may be told
        its share of what is dealt.
        """
        if node.name in self.quick and width <= WIDEST:
            return QuickRelu
        make = LateRelu if node.name in self.late and 0 < lifted <= WIDEST_LIFT else Relu
        return partial(make, to_client=True) if node.name in self.to_client else make

    def in_pieces(
        self, shape: tuple[int, int, int, int], make: Callable[[int, slice], ReluLayer | MaxPool], ops: int, axis: int = CHANNELS
    ) -> InPieces | None:
        """A layer of that shape in pieces, each with `ops` addresses of its own; None for a small one. make: takes the first of these, and which of the axis."""
        size = max(self.piece // ROWS_OF_PIECE, min(self.piece, LEAST_ROWS)) if axis == ROWS else self.piece
        count = min(MOST[axis], shape[axis], -(-math.prod(shape) // size)) if self.piece else 1
        if count < 2:
            return None
        return InPieces(tuple(make(self.op + ops * i, where) for i, where in enumerate(evenly(shape[axis], count))), axis)

    def inputs(self, node: Node) -> list[str]:
        """Names of the values that stand for a node's inputs."""
        return [self.held[name] for name in node.inputs]

    def shape(self, node: Node) -> tuple[int, int, int, int]:
        """A node's result, over the batch."""
        return (self.batch, *node.shape)

    def append(
        self, make: Callable[..., Step], node: Node, name: str, sources: list[str], value: Value, ops: int, kind: str = "", **own: Any
    ) -> str:
        """Add a step whose result stands for the node from now on; returns the result's name. Raises InputError for one beyond the limits."""
        inputs = tuple(self.values[s] for s in sources)
        if value.form == RAW:  # what weights of many bits bring beyond what a truncation can remove stays
            self.settled[name] = max(self.fraction, value.fraction - self.precision.truncation)
        else:
            self.settled[name] = max((self.settled[s] for s in sources), default=value.fraction)
        if name in self.values:
            raise InputError(f"{name}: the name of two steps; rename the module")
        if value.fraction > self.bits - 2:
            raise InputError(f"{name}: {value.fraction} fractional bits do not fit a ring of {self.bits} bits")
        if elements(value) > MOST_ELEMENTS:
            raise InputError(f"{name}: {elements(value):,} numbers for {self.batch} images at once; at most {MOST_ELEMENTS:,} are possible")
        if self.op + ops > MOST_OPS:
            raise InputError(f"{name}: the model takes more than {MOST_OPS:,} protocols")
        self.steps.append(make(name, kind or node.kind, self.op, tuple(sources), inputs, value, **own))
        self.op += ops
        self.values[name] = value
        self.held[node.name] = name
        return name

    def opened(self, name: str, early: int = 0) -> Cut:
        """The cut that brings a value to its settled fraction less `early` bits. Raises InputError where a gate cannot lift what remains."""
        value = self.values[name]
        shift = value.fraction - self.settled[name]
        if not 0 <= shift <= self.precision.truncation or (value.form == RAW and shift == 0):
            raise InputError(f"{name}: a truncation by {shift} bits is outside 1 to {self.precision.truncation}")
        if early and (value.form != RAW or shift + early > min(DEEPEST_TRUNCATION, self.bits - LEAST_KEPT) or early >= self.settled[name]):
            raise InputError(f"{name}: no truncation that could remove {early} bits besides")
        if value.form == CUT:
            return Cut(value.bits, 0, value.bits)
        shift += early
        # as many bits are lifted as a product's truncation removes, unless an average of very many values removes more
        lifted = shift if value.form == RAW else max(shift, min(self.fraction, MAX_TRUNCATION))
        return Cut(value.bits, shift, self.bits - lifted)

    def grows_too_long(self, name: str, more: int) -> bool:
        """Whether a value with so many more fractional bits has more than the truncation that comes some time removes."""
        shift = self.values[name].fraction - self.settled[name]
        return shift + more > max(MAX_TRUNCATION, shift)

    def reduce(self, name: str) -> str:
        """A value in reduced form at its settled fraction; any other is truncated once, for all that read it later."""
        value = self.values[name]
        if value.form == REDUCED and value.fraction == self.settled[name]:
            return name
        readers = [n for n, held in self.held.items() if held == name]
        through = (relu_spec.IDENTITY,) * value.shape[1]
        relu = Relu(self.op, value.shape, self.opened(name), self.bits, 0, 1, sizes=through)
        result = Value(value.shape, REDUCED, self.settled[name], self.bits)
        node = self.graph[readers[0]]
        truncated = self.append(ReluStep, node, f"{name}/truncation", [name], result, OPS, kind="truncation", protocol=relu)
        self.held.update(dict.fromkeys(readers, truncated))
        return truncated

    def is_kept(self, node: Node, source: str) -> bool:
        """Whether a ReLU's input is a factor of a product too, and can be truncated in the messages of the ReLU."""
        multiplied = any(reader.kind in TWO_INPUTS for reader in self.readers[node.inputs[0]])
        return multiplied and node.kind != "rectify" and self.values[source].form == RAW and node.name not in self.sizes

    def part(self, node: Node, source: str) -> None:
        """The two halves of what a ReLU that keeps its input gives: the activation, and `source` after its truncation."""
        value = self.values[node.name]
        n, channels, height, width = value.shape
        half = Value((n, channels // 2, height, width), REDUCED, value.fraction, value.bits)
        readers = [name for name, held in self.held.items() if held == source]
        for name, of, first in ((f"{node.name}/activation", node, 0), (f"{source}/truncation", self.graph[readers[0]], 1)):
            apply = partial(every_second, first=first)
            self.append(LocalStep, of, name, [node.name], half, 0, kind="part", apply=apply)
        self.held.update(dict.fromkeys(readers, name))

    def ends_here(self, node: Node) -> bool:
        """Whether nothing but the output reads a node, flattened or not."""
        return all(
            reader.kind == "output" or (reader.kind in ("reshape", "gather") and self.ends_here(reader))
            for reader in self.readers[node.name]
        )

    def aligned(self, node: Node) -> tuple[list[str], list[int], Value]:
        """Inputs of a sum or concatenation, the shifts that bring them to one scale, and the result's description."""
        for name in self.inputs(node):
            if self.values[name].form == CUT and name in self.held.values():
                self.reduce(name)
        names = self.inputs(node)
        values = [self.values[n] for n in names]
        fraction = max(v.fraction for v in values)
        form = REDUCED if all(v.form == REDUCED for v in values) else RAW
        return names, [fraction - v.fraction for v in values], Value(self.shape(node), form, fraction, self.bits)
