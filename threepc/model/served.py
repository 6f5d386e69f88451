"""What a server serves: the public description that all parties compare, and the weights that only the server holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import IO, Any, Protocol, cast

import numpy as np

from threepc.choices import LABEL, LOGITS, NETWORKS, read_links
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node, Weights, check_weights, holder
from threepc.graph.outputs import revealed, split
from threepc.graph.relu_spec import Sizes, patch_sizes
from threepc.images.card import ModelCard
from threepc.images.resize import bilinear
from threepc.model.limits import check_windows, check_work
from threepc.plan.dealing import choose
from threepc.plan.messages import LEAST_PIECE, Links
from threepc.plan.precision import Precision
from threepc.plan.schedule import Plan, deciding, fingerprint, schedule
from threepc.plan.scheduler import MOST_ELEMENTS

Outputs = np.ndarray | tuple[np.ndarray, ...]
"""What a network gives for N images: an array (N, ...), or a tuple of these, in order, where it returns several tensors."""

_LAYERS = {"quick": "layers of two messages", "late": "layers of six messages", "to_client": "layers that are dealt to the client"}
"""Choices by layer, and what a refusal calls them."""


@dataclass(frozen=True)
class PublicModel:
    """Graph, precision, patch sizes of block ReLUs (None: every ReLU is plain) and the card for clients.

    quick: the layers whose ReLUs take two messages; late: those whose take six; to_client: those of which the client is dealt its share; piece: see `schedule`.
    """

    graph: Graph
    precision: Precision
    sizes: Sizes | None
    card: ModelCard
    reveal: str = LOGITS
    quick: tuple[str, ...] = ()
    to_client: tuple[str, ...] = ()
    piece: int = 0
    late: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all but the card: equal at all parties or the session ends."""
        return fingerprint(self.graph, self.precision, self.sizes, self.reveal, self.quick, self.to_client, self.piece, self.late)

    @property
    def is_varied(self) -> bool:
        """Whether some ReLUs take two or six messages."""
        return bool(self.quick or self.late)

    def balanced(self, network: str, links: str) -> PublicModel:
        """The same, with the layers dealt to the client that suit a preset and hosts' rates, see `plan.dealing`; none where no rate is stated."""
        usual = dataclasses.replace(self, to_client=())
        if not links:
            return usual
        layers = [name for name in deciding(self.graph, self.reveal) if name not in self.quick]
        told = choose(usual.plan(1), self._told_plan, layers, Links(NETWORKS[network], read_links(links)))
        return dataclasses.replace(self, to_client=told)

    def cut_for(self, network: str, links: str) -> PublicModel:
        """The same, with layers in pieces as large as suit a preset and hosts' rates; whole where no rate is stated."""
        return dataclasses.replace(self, piece=Links(NETWORKS[network], read_links(links)).piece)

    def _told_plan(self, names: Sequence[str]) -> Plan:
        return dataclasses.replace(self, to_client=tuple(names)).plan(1)

    @cached_property
    def reveals(self) -> tuple[str, ...]:
        """What is revealed of each output, "logits" or "label"."""
        return revealed(self.graph, self.reveal)

    @property
    def reveals_labels(self) -> bool:
        """Whether of an output nothing but its label is revealed."""
        return LABEL in self.reveals

    @cached_property
    def has_server_side(self) -> bool:
        """Whether the server brings inputs or is shown outputs, which it does for one run at a time: no batch but 1 is possible."""
        return any("owner" in node.attrs or (node.kind == "output" and "to" in node.attrs) for node in self.graph.nodes)

    @property
    def called(self) -> str:
        """NAME@FINGERPRINT, the fingerprint cut short: what tells versions of one name apart."""
        return f"{self.card.name}@{self.fingerprint[:12]}"

    def plan(self, batch: int) -> Plan:
        """The steps for a batch; those last asked for are kept.

        Raises InputError, naming the layer, for what ring or window cannot hold, and for more work than one inference may take.
        """
        return self._plans(batch)

    @cached_property
    def _plans(self) -> Callable[[int], Plan]:
        def make(batch: int) -> Plan:
            check_work(self.graph, batch)
            return schedule(
                self.graph,
                self.precision,
                self.sizes,
                batch,
                self.reveal,
                quick=self.quick,
                to_client=self.to_client,
                piece=self.piece,
                late=self.late,
            )

        return lru_cache(maxsize=4)(make)

    def facts(self, images: int, relu_spec: str | None) -> dict[str, Any]:
        """What a report says of the model, under its stable names. relu_spec: where the spec came from."""
        plan, precision = self.plan(1), self.precision
        return {
            "model": self.card.name,
            "fingerprint": self.fingerprint,
            "ring_bits": precision.bits,
            "frac_bits": precision.fraction,
            "weight_frac_bits": dict(precision.weight_fraction),
            "drelu_window": list(precision.product_window),
            "compared_bits": {name: list(bits) for name, bits in precision.compared.items()},
            "relu_spec": relu_spec,
            "images": images,
            "relus": plan.relus * images,
            "drelus": plan.drelus * images,
            "expected_error": self.card.expected_error,
            "expected_images": self.card.expected_images,
        }

    def network_outputs(self, decoded: np.ndarray) -> Outputs:
        """Decoded outputs as the network itself gives them: its last resize done, vectors as (N, K).

        decoded: logits (N, K, h, w), or their argmaxes (N, 1, h, w) where only labels are revealed; these come out as int64 (N,) or (N, h, w).
        Of a network that returns several tensors: all numbers of all, see `threepc.graph.outputs.joined`; a tuple comes out.
        """
        if self.graph.returns_tensor:
            return _network_output(decoded, self.graph.output, self.reveal)
        parts = split(self.graph, self.reveals, decoded)
        return tuple(map(_network_output, parts, self.graph.outputs, self.reveals))

    def to_plain(self) -> dict[str, Any]:
        """JSON-plain, for the handshake."""
        sizes = {name: [list(s) for s in layer] for name, layer in self.sizes.items()} if self.sizes else None
        return {
            "graph": self.graph.to_json(),
            "precision": self.precision.to_plain(),
            "sizes": sizes,
            "card": self.card.to_json(),
            "reveal": self.reveal,
        } | {key: own for key, own in (*((key, list(getattr(self, key))) for key in _LAYERS), ("piece", self.piece)) if own}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> PublicModel:
        """Inverse of `to_plain` for data of a stranger, which fits together and has a plan; raises InputError naming what is wrong."""
        texts = "graph", "card", "reveal"
        if data.keys() - {*_LAYERS, "piece"} != {*texts, "precision", "sizes"} or not all(isinstance(data[key], str) for key in texts):
            raise InputError("the server's description of its model has other keys than this version of threepc expects")
        if data["sizes"] is not None and not isinstance(data["sizes"], dict):
            raise InputError("the server's relu spec is no object")
        patches = {name: patch_sizes("the server's relu spec", name, layer).tolist() for name, layer in (data["sizes"] or {}).items()}
        sizes = {name: tuple((height, width) for height, width in layer) for name, layer in patches.items()}
        graph, precision = Graph.from_json(data["graph"]), Precision.from_plain(data["precision"])
        layers = {key: _names(data, key, what) for key, what in _LAYERS.items()}
        piece = data.get("piece", 0)
        if type(piece) is not int or not 0 <= piece <= MOST_ELEMENTS or 0 < piece < LEAST_PIECE:
            raise InputError("the server's size of pieces is none")
        model = cls(graph, precision, sizes or None, ModelCard.from_json(data["card"]), data["reveal"], piece=piece, **layers)
        check_windows(model.card, graph, model.reveals)
        model.plan(1)
        return model


def _names(data: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    names = data.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"the server's list of {what} is no list of names")
    return tuple(names)


def _network_output(decoded: np.ndarray, output: Node, reveal: str) -> np.ndarray:
    single = decoded.shape[2:] == (1, 1)
    if reveal == LABEL:
        return decoded[:, 0, 0, 0].astype(np.int64) if single else decoded[:, 0].astype(np.int64)
    if "resize" in output.attrs:
        decoded = bilinear(decoded, *output.attrs["resize"])
    return decoded[:, :, 0, 0] if single else decoded


def each(outputs: Outputs) -> tuple[np.ndarray, ...]:
    """The outputs one by one, the only one too."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def concatenated(parts: Sequence[Outputs]) -> Outputs:
    """Outputs for several batches together."""
    together = tuple(map(np.concatenate, zip(*map(each, parts), strict=True)))
    return together if isinstance(parts[0], tuple) else together[0]


class ServerSide(Protocol):
    """The server's part in a job; sessions may call it from several threads."""

    def given(self) -> Mapping[str, np.ndarray]:
        """The server's own inputs of the next inference: ring words (1, C, H, W) by node."""

    def shown(self, results: list[np.ndarray]) -> None:
        """What an inference revealed to the server: (1, C, H, W), float64, in the order of the outputs."""


@dataclass(frozen=True)
class ServedModel:
    """A public model, its weights (float64, see `graph.ir.Weights`), and the server's side where it brings inputs or is shown outputs.

    Raises InputError, naming the layer, for weights of another one.
    """

    public: PublicModel
    weights: Weights
    side: ServerSide | None = None

    def __post_init__(self) -> None:
        check_weights(self.public.graph, self.weights)
        if self.side is None and self.public.has_server_side:
            raise InputError("the server has no part in this job to play: it must be given one")

    def write(self, file: IO[bytes]) -> None:
        """Write what `read` reads, to a file that can seek."""
        public = np.frombuffer(json.dumps(self.public.to_plain()).encode(), np.uint8)
        shared = {node.name for node in self.public.graph.nodes if node.kind == "conv" and holder(node) != node.name}
        arrays = {
            f"{node}\n{key}": array
            for node, part in self.weights.items()
            for key, array in part.items()
            if key != "weight" or node not in shared
        }
        np.savez(file, public, np.array(list(arrays)), *arrays.values())

    @classmethod
    def read(cls, file: IO[bytes]) -> ServedModel:
        """The model in a file, which stays open as long as its weights are wanted: they are read when they are asked for, not held."""
        file.seek(0)
        archive = np.load(file, allow_pickle=False)
        public, names, *places = archive.files
        nodes: dict[str, dict[str, str]] = {}
        for name, place in zip(archive[names].tolist(), places, strict=True):
            node, key = name.split("\n")
            nodes.setdefault(node, {})[key] = place
        model = PublicModel.from_plain(json.loads(archive[public].tobytes()))
        for name, own in nodes.items():
            own.setdefault("weight", nodes[holder(model.graph[name])]["weight"])
        weights = cast("Weights", _WeightFile(archive, nodes))  # nobody writes to them
        return cls(model, weights)


class _WeightFile(Mapping[str, dict[str, np.ndarray]]):
    """`Weights` in an archive, one layer in memory at a time. places: the name of each array in it."""

    def __init__(self, archive: Mapping[str, np.ndarray], places: dict[str, dict[str, str]]) -> None:
        self._archive, self._places = archive, places

    def __getitem__(self, node: str) -> dict[str, np.ndarray]:
        return {key: self._archive[place] for key, place in self._places[node].items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
