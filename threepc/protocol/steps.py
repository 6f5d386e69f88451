"""One node of a network as its three roles run it: which summand goes into which protocol.

Forms of a value: "reduced" x = d + u (d at C and P, u at S), what linear layers take and ReLUs give; "raw" z = z_C + z_S - z_P in the ring, what
linear layers give; "cut" the same in a cut ring without the fractional bits of the weights. In P's hands a reduced value is d, although P's
summand of it is zero; None stands for a summand of zeros.
"""

# ruff: noqa: ARG002, D102 - the kinds of steps do what Step says, some without all that it is given

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from threepc.kernels.gate import Cut
from threepc.protocol.argmax import Argmax
from threepc.protocol.cost import Cost
from threepc.protocol.input_output import Input, Output, ServerOutput
from threepc.protocol.linear import Linear
from threepc.protocol.lookup import Lookup
from threepc.protocol.max_pool import MaxPool
from threepc.protocol.pieces import ROWS, InPieces
from threepc.protocol.product import Product
from threepc.protocol.relu_layer import ReluLayer
from threepc.protocol.roles import Client, Provider, Server
from threepc.protocol.rows import Held, Rows, rows_of, whole
from threepc.protocol.summands import Summand, cut_summand
from threepc.ring import Ring, word_of

REDUCED, RAW, CUT = "reduced", "raw", "cut"


@dataclass(frozen=True)
class Value:
    """What is public about a value: shape (N, C, H, W), form, fractional bits, bits of its ring."""

    shape: tuple[int, int, int, int]
    form: str
    fraction: int
    bits: int

    def summand(self, held: Summand) -> Summand:
        """P's summand from what P holds."""
        return None if self.form == REDUCED else held

    def array(self, summand: Summand) -> np.ndarray:
        """The summand, zeros for None."""
        return np.zeros(self.shape, word_of(self.bits)) if summand is None else summand


@dataclass(frozen=True)
class Step:
    """A scheduled node: `name` and `kind` as in the graph, its inputs' names and public descriptions, its result. Subclasses run it."""

    name: str
    kind: str
    op: int
    sources: tuple[str, ...]
    inputs: tuple[Value, ...]
    result: Value

    @property
    def cost(self) -> Cost:
        """What travels."""
        return Cost()

    @property
    def drelus(self) -> int:
        """Decisions of a ReLU or clip, over the batch; those of max pooling are not counted."""
        return 0

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        """P, offline: what P holds of the result, from what it holds of the inputs."""
        raise NotImplementedError

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        """C, offline: its summand of the result, from those of the inputs."""
        raise NotImplementedError

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        """S, online: its summand of the result, from those of the inputs."""
        raise NotImplementedError

    def serve_by_rows(self, server: Server, inputs: Sequence[Held]) -> Held:
        """S, online: as `serve`, of values of which rows are still to come; so may rows of the result. Most kinds of steps wait for all of them."""
        server.settle()
        return self.serve(server, [whole(held) for held in inputs])

    def infer(self, client: Client) -> None:
        """C, online: nothing, unless the protocol talks."""


@dataclass(frozen=True)
class InputStep(Step):
    """The client's input; what C feeds in is kept by the party that runs the step."""

    protocol: Input

    @property
    def cost(self) -> Cost:
        return self.protocol.cost

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.mask(provider, provider.with_client)

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> np.ndarray:
        return self.protocol.mask(client, client.with_provider)

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.serve(server)


@dataclass(frozen=True)
class _AtServerStep(Step):
    """What S has as it is: d is zero."""

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return None

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return None


@dataclass(frozen=True)
class ServerInputStep(_AtServerStep):
    """An array that S brings to every inference; the party that runs the step has it."""


@dataclass(frozen=True)
class PublicStep(_AtServerStep):
    """A constant that everybody knows, ring words."""

    words: np.ndarray = field(compare=False)

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self.words


@dataclass(frozen=True)
class LinearStep(Step):
    """A convolution of a reduced value to a raw one; each role's weights are in its `weights`, the server's biases in `biases`.

    weights: the name of the step whose weights these are, mostly its own.
    """

    protocol: Linear
    weights: str

    @property
    def cost(self) -> Cost:
        return self.protocol.cost

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.apply(provider.weights[self.protocol.held], self.inputs[0].array(inputs[0]), None, provider.threads)

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.apply(client.weights[self.protocol.held], self.inputs[0].array(inputs[0]), None, client.threads)

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.apply(
            server.weights[self.protocol.held], self.inputs[0].array(inputs[0]), server.biases[self.op], server.threads
        )

    def serve_by_rows(self, server: Server, inputs: Sequence[Held]) -> Held:
        x = inputs[0]
        if not isinstance(x, Rows) or not self.protocol.takes_rows:
            return super().serve_by_rows(server, inputs)
        weights, height = server.weights[self.protocol.held], self.inputs[0].shape[2]
        return self.protocol.apply_by_rows(weights, x, height, server.biases[self.op], server.threads)


@dataclass(frozen=True)
class LocalStep(Step):
    """An operation that every party applies to its own summands."""

    apply: Callable[[Sequence[Summand]], Summand]

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        if self.result.form != REDUCED:
            inputs = [value.summand(held) for value, held in zip(self.inputs, inputs, strict=True)]
        return self.apply(inputs)

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return self.apply(inputs)

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self.apply(inputs)


@dataclass(frozen=True)
class SumStep(LocalStep):
    """A sum of values of one shape."""

    def serve_by_rows(self, server: Server, inputs: Sequence[Held]) -> Held:
        if not any(isinstance(held, Rows) for held in inputs):
            return super().serve_by_rows(server, inputs)

        def fill(words: np.ndarray, begin: int, end: int) -> int:
            words[:, :, begin:end] = self.apply([rows_of(held, begin, end) for held in inputs])
            return end

        return Rows(self.result.shape, word_of(self.result.bits), fill)


@dataclass(frozen=True)
class ConstantStep(LocalStep):
    """A public constant added by the server; the others' summands stay as they are."""

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return inputs[0]

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return inputs[0]


@dataclass(frozen=True)
class ProductStep(Step):
    """The product of two reduced values, or the square of one, to a reduced value."""

    protocol: Product

    @property
    def cost(self) -> Cost:
        return self.protocol.cost

    def _arrays(self, inputs: Sequence[Summand]) -> list[np.ndarray]:
        return [value.array(held) for value, held in zip(self.inputs, inputs, strict=True)]

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.deal(provider, self._arrays(inputs))

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.prepare(client, self._arrays(inputs))

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self.protocol.serve(server, self._arrays(inputs))

    def infer(self, client: Client) -> None:
        self.protocol.infer(client)


@dataclass(frozen=True)
class _ProtocolStep(Step):
    """One protocol on one value, of any form."""

    protocol: ReluLayer | MaxPool | Lookup | Output | ServerOutput | Argmax

    @property
    def _running(self) -> ReluLayer | MaxPool | Lookup | Output | ServerOutput | Argmax | InPieces:
        """What is run: the protocol, unless that is cut into pieces."""
        return self.protocol

    @property
    def cost(self) -> Cost:
        return self._running.cost

    def _summand(self, held: Summand, at_server: bool = False) -> np.ndarray:
        """A party's summand as the protocol takes it."""
        return self.inputs[0].array(held)

    def deal(self, provider: Provider, inputs: Sequence[Summand]) -> Summand:
        return self._running.deal(provider, self._summand(self.inputs[0].summand(inputs[0])))

    def prepare(self, client: Client, inputs: Sequence[Summand]) -> Summand:
        return self._running.prepare(client, self._summand(inputs[0]))

    def serve(self, server: Server, inputs: Sequence[Summand]) -> Summand:
        return self._running.serve(server, self._summand(inputs[0], at_server=True))


@dataclass(frozen=True)
class ReluStep(_ProtocolStep):
    """ReLU of any kind, or truncation alone, to a reduced value. pieces: what is run in place of the protocol, of the same channels."""

    protocol: ReluLayer
    pieces: InPieces | None = None

    @property
    def _running(self) -> ReluLayer | InPieces:
        return self.pieces or self.protocol

    @property
    def drelus(self) -> int:
        return self.protocol.decided

    def serve_by_rows(self, server: Server, inputs: Sequence[Held]) -> Held:
        if self.pieces is None or self.pieces.axis != ROWS:
            return super().serve_by_rows(server, inputs)
        held = inputs[0]
        return self.pieces.serve_by_rows(server, word_of(self.result.bits), held if isinstance(held, Rows) else self._summand(held))

    def infer(self, client: Client) -> None:
        self._running.infer(client)


@dataclass(frozen=True)
class LookupStep(_ProtocolStep):
    """A curve at a reduced value in a known range, in a cut ring; error: the largest of its table, a real number."""

    protocol: Lookup
    error: float

    def infer(self, client: Client) -> None:
        self.protocol.infer(client)


@dataclass(frozen=True)
class MaxPoolStep(_ProtocolStep):
    """Max pooling in the cut ring; summands are cut first. pieces: as of `ReluStep`."""

    protocol: MaxPool
    cut: Cut
    pieces: InPieces | None = None

    @property
    def _running(self) -> MaxPool | InPieces:
        return self.pieces or self.protocol

    def _summand(self, held: Summand, at_server: bool = False) -> np.ndarray:
        return cut_summand(super()._summand(held), self.cut, at_server)

    def infer(self, client: Client) -> None:
        self._running.infer(client)


@dataclass(frozen=True)
class OutputStep(_ProtocolStep):
    """The result, or its argmax over the channels, to the client alone; `prepare` returns what C keeps for `reveal`."""

    protocol: Output | Argmax

    def reveal(self, client: Client, kept: np.ndarray) -> np.ndarray:
        """C, online: the logits (N, C, H, W), or the labels (N, 1, H, W), float64."""
        words, value = self.protocol.infer(client, kept), self.inputs[0]
        if isinstance(self.protocol, Argmax):
            return words.astype(np.float64)
        return Ring(value.bits).decode(words, value.fraction).reshape(value.shape)


@dataclass(frozen=True)
class ServerOutputStep(_ProtocolStep):
    """The result to the server alone."""

    protocol: ServerOutput

    def serve(self, server: Server, inputs: Sequence[Summand]) -> np.ndarray:
        """S: the numbers (N, C, H, W), float64, as words of the machine; no step reads them."""
        words, value = self.protocol.serve(server, self._summand(inputs[0], at_server=True)), self.inputs[0]
        return Ring(value.bits).decode(words, value.fraction).reshape(value.shape)
