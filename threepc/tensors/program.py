"""A job, traced to a program: a public graph whose inputs have owners and whose outputs have receivers, and the policy that limits these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from threepc.choices import LABEL, LOGITS
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.graph.outputs import check_path, reveal_text
from threepc.images.card import ModelCard, Preprocessing
from threepc.model.served import PublicModel
from threepc.plan.precision import Precision
from threepc.ring import Ring
from threepc.tensors.clear import evaluated
from threepc.tensors.ranges import check as check_ranges
from threepc.tensors.recording import Trace, cells, limit_of, named
from threepc.tensors.tensor import Labels, Tensor

CLIENT, SERVER = "client", "server"


class Policy(dict[str, str]):
    """Who may be shown what: the receiver, "client" or "server", by the name of what is revealed. Nothing else may be.

    assumptions: whether a job may state bounds that no party can check (`Tensor.assume`), as it may where a party's policy is a plain mapping.
    """

    def __init__(self, shown: Mapping[str, str], *, assumptions: bool = True) -> None:
        super().__init__(shown)
        self.assumptions = assumptions


@dataclass(frozen=True)
class Input:
    """An array that its owner hands in; the client and the server are owners, and so is any other name. node: the server's part.

    limit: the largest absolute value of its numbers, which its owner sees to.
    """

    name: str
    shape: tuple[int, ...]
    owner: str
    node: str
    limit: float

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

    def __init__(self, trace: Trace, usual_limit: float) -> None:
        self._trace, self._usual_limit = trace, usual_limit
        self.inputs: list[Input] = []
        self.outputs: list[tuple[Revealed, Node]] = []
        self._at_client: list[tuple[int, Node]] = []  # where each of the client's parts begins, and the node that takes it

    def input(self, name: str, shape: tuple[int, ...], owner: str, limit: float | None = None) -> Tensor:
        """An array of `shape` that `owner` brings to every run: "client", "server", or a data owner of any other name, who shares it out.

        limit: the largest absolute value of its numbers, by default `usual_limit`; the owner's own party refuses larger ones.
        """
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
        size = self._usual_limit if limit is None else limit_of(f"input {name!r}", limit)
        self.inputs.append(Input(name, shape, owner, own[0].name if owner != CLIENT else "", size))
        whole = own[0] if len(own) == 1 else self._trace.add("add", [node.name for node in own], name=f"{name} of {owner}, whole")
        limited = self._trace.add("limit", [whole.name], name=f"{name} of {owner}", size=size, by=owner)
        return Tensor(self._trace, limited.name, shape)

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
    """A job as all parties hold it; two programs are the same where their fingerprints are. As text, what is brought, assumed and revealed."""

    name: str
    public: PublicModel
    inputs: tuple[Input, ...]
    outputs: tuple[Revealed, ...]
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where in the job's code, FILE:LINE, each node was made: for messages, and no part of what the parties compare."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of graph, precision and what is revealed, in hexadecimal."""
        return self.public.fingerprint

    def __str__(self) -> str:
        brought = [f"{each.owner} brings {each.name} {each.shape}, no number above {each.limit:g} in size" for each in self.inputs]
        revealed = [f"{each.to} is shown {each.name} {each.shape}" for each in self.outputs]
        return "\n".join([f"{self.name}:", *(f"  {line}" for line in [*brought, *self.assumptions, *revealed])])

    @cached_property
    def assumptions(self) -> tuple[str, ...]:
        """What the job's author states of values on the way, a line each."""
        text = "assumed, and not checked by the parties: no number of"
        return tuple(f"{text} {named(node.inputs[0], self.places)} above {node.attrs['size']:g} in size" for node in _assumed(self.public))

    def in_the_clear(self, values: Mapping[str, object]) -> dict[str, np.ndarray]:
        """What a run with these arrays, by the names of all inputs, should reveal but for roundings: a look at example data, and no privacy.

        Raises InputError as `encoded` does, for an array that is missing, and where a number is larger than the job assumes.
        """
        names = [each.name for each in self.inputs]
        for name in [*values, *names]:
            if name not in values:
                raise InputError(f"{name!r:.80} is missing: the job takes {', '.join(names)}")
            self.encoded(name, values[name])
        brought = {
            f"{each.name} of {each.owner}": np.asarray(values[each.name], np.float64).reshape(cells(each.shape)) for each in self.inputs
        }
        found = evaluated(self.public.graph, brought, 2.0**-self.public.precision.fraction, self.places)
        return {each.name: _revealed(each, found[f"output {each.name}"]) for each in self.outputs}

    def check(self, policy: Mapping[str, str]) -> None:
        """Raises InputError unless the policy allows each of the outputs to its receiver, and what the job assumes."""
        check_policy(self.public, policy)

    def encoded(self, name: str, values: object) -> np.ndarray:
        """Ring words (1, C, H, W) of an input's numbers. Raises InputError for another shape, and for what is not finite or above its limit."""
        declared = next((each for each in self.inputs if each.name == name), None)
        if declared is None:
            raise InputError(f"{name!r:.80} is no input of {self.name}: it has {', '.join(each.name for each in self.inputs)}")
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name}: must be an array of real numbers") from None
        if array.shape != declared.shape:
            raise InputError(f"{name}: must have the shape {declared.shape}, not {array.shape}")
        if np.abs(array).max() > declared.limit:  # says no number: a log may show this
            raise InputError(f"{name}: a number is outside of the limit {declared.limit:g} that the job states for it")
        precision = self.public.precision
        return Ring(precision.bits).encode(array, precision.fraction, name).reshape(1, *cells(array.shape))


def usual_limit(precision: Precision) -> float:
    """Of an input for which a job states none: so large that the product of three such numbers fits."""
    return 2.0 ** ((precision.bits - 3 - 2 * precision.fraction) // 3)


def trace(job: Callable[[Job], None], ring: int = 64, fraction: int | None = None, name: str = "") -> Program:
    """The program of a job: a function that is given a `Job`, called here once, with no data.

    ring: bits, 64, 48, 40, 32, 28 or 24; fraction: fractional bits, by default what suits the ring. Raises InputError, in one line, for what the job
    does that cannot be done, and where a number may get larger than the ring holds, by the limits of its inputs.
    """
    usual = Precision.default(ring)
    bits = usual.fraction if fraction is None else fraction
    precision = Precision(ring, bits)
    if 2 * bits > ring - 6:
        raise InputError(f"fraction: {bits} fractional bits leave a ring of {ring} bits no room for products: at most {(ring - 6) // 2}")
    precision = Precision(ring, bits, window=(bits, ring - 2))
    own = Job(Trace(2.0**-bits), usual_limit(precision))
    job(own)
    if not own.outputs:
        raise InputError("the job reveals nothing")
    first = Node(CLIENT, "input", (), (max(own.from_client, 1), 1, 1))
    nodes = [first, *own._trace.nodes, *(node for _, node in own.outputs)]
    outputs = tuple(output for output, _ in own.outputs)
    called = name or job.__name__
    reveal = reveal_text([LABEL if output.is_label else LOGITS for output in outputs])
    public = PublicModel(Graph(tuple(_live(nodes))), precision, None, ModelCard(called, Preprocessing((1, 1))), reveal)
    check_ranges(public, own._trace.places)
    return Program(called, public, tuple(own.inputs), outputs, own._trace.places)


def _revealed(output: Revealed, numbers: np.ndarray) -> np.ndarray:
    """The numbers of an output in its shape; the index of the largest of the first axis, the last of equal ones, where that is revealed."""
    if output.is_label:
        numbers = len(numbers) - 1 - numbers[::-1].argmax(0)
    return numbers.reshape(output.shape)


def _live(nodes: list[Node]) -> list[Node]:
    """Without what nothing reads; inputs stay."""
    wanted = {node.name for node in nodes if node.kind in ("input", "output")}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return [node for node in nodes if node.name in wanted]


def _assumed(model: PublicModel) -> list[Node]:
    """The limits that nobody sees to."""
    return [node for node in model.graph.nodes if node.kind == "limit" and "by" not in node.attrs]


def check_policy(model: PublicModel, policy: Mapping[str, str]) -> None:
    """As `Program.check`, of a program that another party describes: every party asks this of its own policy, before anything is computed."""
    if isinstance(policy, Policy) and not policy.assumptions and (assumed := _assumed(model)):
        raise InputError(f"policy: no bound may be assumed that nobody checks, and the job assumes one of {assumed[0].inputs[0]}")
    for output in model.graph.outputs:
        name, to = str(output.attrs.get("path", [["", "output"]])[0][1]), output.attrs.get("to", CLIENT)
        if name not in policy:
            raise InputError(f"policy: nothing called {name!r:.80} may be revealed, and the job reveals it to the {to}")
        if policy[name] != to:
            raise InputError(f"policy: {name!r:.80} may be revealed to the {policy[name]} alone, and the job reveals it to the {to}")


def _check_name(what: str, text: object) -> None:
    if not isinstance(text, str) or not 1 <= len(text) <= 64 or not text.isascii() or not text.isprintable():
        raise InputError(f"{what} {text!r:.80}: a name has 1 to 64 printable ASCII characters")
