"""A job, traced to a program: a public graph whose inputs have owners and whose outputs have receivers, and the policy that limits these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from threepc.choices import LABEL, LOGITS
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.graph.outputs import check_path, reveal_text
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel
from threepc.plan.precision import Precision
from threepc.ring import Ring
from threepc.tensors.tensor import Labels, Tensor, Trace, cells

CLIENT, SERVER = "client", "server"

Policy = Mapping[str, str]
"""Who may be shown what: the receiver, "client" or "server", by the name of what is revealed. Nothing else may be."""


@dataclass(frozen=True)
class Input:
    """An array that its owner hands in; the client and the server are owners, and so is any other name. node: the server's part."""

    name: str
    shape: tuple[int, ...]
    owner: str
    node: str

    @property
    def is_shared(self) -> bool:
        """Whether its owner is none of the parties, who get a share each."""
        return self.owner not in (CLIENT, SERVER)


@dataclass(frozen=True)
class Revealed:
    """What a job reveals, and to whom."""

    name: str
    shape: tuple[int, ...]
    to: str
    is_label: bool


class Job:
    """What a job's function is given: it declares inputs, computes with them, and says what is revealed to whom."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.inputs: list[Input] = []
        self.outputs: list[tuple[Revealed, Node]] = []
        self._at_client: list[tuple[int, Node]] = []  # where each of the client's parts begins, and the node that takes it

    def input(self, name: str, shape: tuple[int, ...], owner: str) -> Tensor:
        """An array of `shape` that `owner` brings to every run: "client", "server", or a data owner of any other name, who shares it out."""
        shape = tuple(shape)
        for what, text in (("input", name), ("owner", owner)):
            _check_name(what, text)
        if any(name == other.name for other in self.inputs):
            raise InputError(f"input {name!r}: declared twice")
        own, sizes = [], cells(shape)
        if owner != CLIENT:
            own.append(self._trace.add("input", [], sizes, f"{name} of {owner}, at the server", owner=SERVER))
        if owner != SERVER:
            own.append(self._part_of_client(sizes, f"{name} of {owner}, at the client"))
        self.inputs.append(Input(name, shape, owner, own[0].name if owner != CLIENT else ""))
        whole = own[0] if len(own) == 1 else self._trace.add("add", [node.name for node in own])
        return Tensor(self._trace, whole.name, shape)

    def _part_of_client(self, sizes: tuple[int, int, int], name: str) -> Node:
        """The node that takes the next numbers of the client's only input."""
        begin, count = self.from_client, int(np.prod(sizes))
        moves = [["take", 0, begin, 1, count], ["reshape", list(sizes)]]
        node = self._trace.add("gather", [CLIENT], sizes, name, moves=moves)
        self._at_client.append((begin + count, node))
        return node

    @property
    def from_client(self) -> int:
        """How many numbers the client hands in so far."""
        return self._at_client[-1][0] if self._at_client else 0

    def reveal(self, tensor: Tensor | Labels, to: str, name: str) -> None:
        """Reveal an array, or the indices that `argmax` gives, to the client or to the server, and to no other."""
        ranked = tensor.ranked if isinstance(tensor, Labels) else tensor
        if not isinstance(ranked, Tensor) or ranked._trace is not self._trace:
            raise InputError(f"reveal {name!r:.80}: must be a tensor of this job")
        if to not in (CLIENT, SERVER):
            raise InputError(f"reveal {name!r:.80}: to must be {CLIENT} or {SERVER}, not {to!r:.80}")
        if isinstance(tensor, Labels) and to != CLIENT:
            raise InputError(f"reveal {name!r:.80}: an argmax can be revealed to the client alone")
        try:
            check_path([["dict", name]])
        except InputError:
            raise InputError(f"reveal {name!r:.80}: a name has 1 to 64 letters, digits and _.-") from None
        if any(name == other.name for other, _ in self.outputs):
            raise InputError(f"reveal {name!r}: revealed twice")
        attributes = {"path": [["dict", name]]} | ({"to": SERVER} if to == SERVER else {})
        node = Node(f"output {name}", "output", (ranked.node,), cells(ranked.shape), attributes)
        self.outputs.append((Revealed(name, tensor.shape, to, isinstance(tensor, Labels)), node))


@dataclass(frozen=True)
class Program:
    """A job as all parties hold it; two programs are the same where their fingerprints are."""

    name: str
    public: PublicModel
    inputs: tuple[Input, ...]
    outputs: tuple[Revealed, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of graph, precision and what is revealed, in hexadecimal."""
        return self.public.fingerprint

    def check(self, policy: Policy) -> None:
        """Raises InputError unless the policy allows each of the outputs to its receiver."""
        _check_revealed({output.name: output.to for output in self.outputs}, policy)

    def encoded(self, name: str, values: object) -> np.ndarray:
        """Ring words (1, C, H, W) of an input's numbers. Raises InputError for another shape, and for what is not finite or does not fit."""
        declared = next((each for each in self.inputs if each.name == name), None)
        if declared is None:
            raise InputError(f"{name!r:.80} is no input of {self.name}: it has {', '.join(each.name for each in self.inputs)}")
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name}: must be an array of real numbers") from None
        if array.shape != declared.shape:
            raise InputError(f"{name}: must have the shape {declared.shape}, not {array.shape}")
        precision = self.public.precision
        return Ring(precision.bits).encode(array, precision.fraction, name, headroom=precision.fraction).reshape(1, *cells(array.shape))


def trace(job: Callable[[Job], None], ring: int = 64, fraction: int | None = None, name: str = "") -> Program:
    """The program of a job: a function that is given a `Job`, called here once, with no data.

    ring: bits, 64, 48, 40 or 32; fraction: fractional bits, by default what suits the ring. A number must stay below 2^(ring - 2 - 2 * fraction)
    in size, and sums of products too. Raises InputError, in one line, for what the job does that cannot be done.
    """
    usual = Precision.default(ring)
    bits = usual.fraction if fraction is None else fraction
    precision = Precision(ring, bits)
    if 2 * bits > ring - 6:
        raise InputError(f"fraction: {bits} fractional bits leave a ring of {ring} bits no room for products: at most {(ring - 6) // 2}")
    precision = Precision(ring, bits, window=(bits, ring - 2))
    own = Job(Trace(2.0**-bits))
    job(own)
    if not own.outputs:
        raise InputError("the job reveals nothing")
    first = Node(CLIENT, "input", (), (max(own.from_client, 1), 1, 1))
    nodes = [first, *own._trace.nodes, *(node for _, node in own.outputs)]
    outputs = tuple(output for output, _ in own.outputs)
    called = name or job.__name__
    reveal = reveal_text([LABEL if output.is_label else LOGITS for output in outputs])
    public = PublicModel(Graph(tuple(_live(nodes))), precision, None, ModelCard(called, Preprocessing((1, 1))), reveal)
    public.plan(1)
    return Program(called, public, tuple(own.inputs), outputs)


def _live(nodes: list[Node]) -> list[Node]:
    """Without what nothing reads; inputs stay."""
    wanted = {node.name for node in nodes if node.kind in ("input", "output")}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return [node for node in nodes if node.name in wanted]


def check_policy(model: PublicModel, policy: Policy) -> None:
    """As `Program.check`, of a program that another party describes: every party asks this of its own policy, before anything is computed."""
    _check_revealed(
        {str(node.attrs.get("path", [["", "output"]])[0][1]): node.attrs.get("to", CLIENT) for node in model.graph.outputs}, policy
    )


def _check_revealed(revealed: Mapping[str, str], policy: Policy) -> None:
    for name, to in revealed.items():
        if name not in policy:
            raise InputError(f"policy: nothing called {name!r:.80} may be revealed, and the job reveals it to the {to}")
        if policy[name] != to:
            raise InputError(f"policy: {name!r:.80} may be revealed to the {policy[name]} alone, and the job reveals it to the {to}")


def _check_name(what: str, text: object) -> None:
    if not isinstance(text, str) or not 1 <= len(text) <= 64 or not text.isascii() or not text.isprintable():
        raise InputError(f"{what} {text!r:.80}: a name has 1 to 64 printable ASCII characters")
