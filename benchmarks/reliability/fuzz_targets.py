"""What is fuzzed: the readers of everything that a peer, a user's file or a stranger's network can send, each with valid documents to start from."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from threepc.errors import InputError
from threepc.graph import relu_spec
from threepc.graph.ir import Graph, Node
from threepc.images.card import ModelCard, Preprocessing, Sliding
from threepc.images.read import load_images, load_labels
from threepc.model.served import PublicModel
from threepc.party import deployment, keygen
from threepc.plan.precision import Precision
from threepc.transport import framing

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """seeds: valid documents. reader: given a folder for files, what reads one document. weight: share of the inputs. native: can crash."""

    seeds: Callable[[], list[bytes]]
    reader: Callable[[Path], Read]
    weight: int = 10
    native: bool = False


def _graphs() -> list[Graph]:
    conv = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1], "groups": 1}
    pool = {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1, 1, 1]}
    one = (
        Node("input", "input", (), (3, 6, 6)),
        Node("conv", "conv", ("input",), (4, 6, 6), conv),
        Node("pool", "maxpool", ("conv",), (4, 3, 3), pool | {"dilation": [1, 1]}),
        Node("relu", "relu", ("pool",), (4, 3, 3)),
        Node("depthwise", "conv", ("relu",), (4, 3, 3), conv | {"groups": 4}),
        Node("sum", "add", ("depthwise", "relu"), (4, 3, 3)),
        Node("clip", "clip", ("sum",), (4, 3, 3), {"max": 6.0}),
        Node("average", "avgpool", ("clip",), (4, 2, 2), pool | {"divisor": 9.0}),
        Node("both", "concat", ("average", "average"), (8, 2, 2)),
        Node("output", "output", ("both",), (8, 2, 2)),
    )
    flat = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    two = (
        Node("input", "input", (), (1, 4, 4)),
        Node("conv", "conv", ("input",), (2, 4, 4), conv),
        Node("relu", "relu", ("conv",), (2, 4, 4)),
        Node("flat", "reshape", ("relu",), (32, 1, 1)),
        Node("linear", "conv", ("flat",), (5, 1, 1), flat),
        Node("output", "output", ("linear",), (5, 1, 1)),
    )
    return [Graph(one), Graph(two), _imported()]


@functools.cache
def _imported() -> Graph:
    """A network with what networks of today have besides: slopes, gates, curves, moves, sizes, several outputs."""
    import torch
    from torch import nn

    from threepc.graph.importer import import_module

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.slopes = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.PReLU(4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = nn.functional.leaky_relu(self.first(x), 0.1)
            x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
            x = nn.functional.hardswish(self.gate(self.slopes(self.gate(x))).reshape(-1, 2, 2, 6, 6).transpose(1, 2).flatten(1, 2))
            wide = nn.functional.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True)
            rows = x.flatten(2)
            return wide.abs().clamp(-1, 2), torch.matmul(rows, rows.transpose(1, 2)).flatten(1)

    torch.manual_seed(0)
    return import_module(Net().eval(), torch.randn(1, 3, 6, 6))[0]


def _cards() -> list[ModelCard]:
    fitted, sliding = Preprocessing((6, 6), (127.5,) * 3, (64.0,) * 3, resize="fit"), Sliding((20, 12), (4, 4))
    return [
        ModelCard("net", fitted, classes=tuple("abcdefgh"), segmentation=True, sliding=sliding),
        ModelCard(
            "net", Preprocessing((4, 4), (0.0,), (1.0,), resize="short_edge", short_edge=5, backend="pillow"), classes=tuple("abcde")
        ),
        ModelCard("net", Preprocessing((6, 6), (127.5,) * 3, (64.0,) * 3)),
    ]


def _models() -> list[bytes]:
    first, second, third = _graphs()
    cards = _cards()
    sizes: dict[str, tuple[tuple[int, int], ...]] = {"relu": ((1, 1), (2, 2), (1, 0), (0, 1))}
    models = [
        PublicModel(first, Precision(48, 16), sizes, cards[0]),
        PublicModel(second, Precision(32, 11, {"conv": 8}), None, cards[1], "label"),
        PublicModel(third, Precision(48, 16), None, cards[2]),
    ]
    return [json.dumps(model.to_plain()).encode() for model in models]


def _read_model(folder: Path) -> Read:
    def read(data: bytes) -> object:
        document = _json(data)
        # graph and card are JSON within JSON: where the mutation hit another key they are mutated as text
        return PublicModel.from_plain(document).plan(1)

    return read


def _read_nested(key: str) -> Callable[[Path], Read]:
    """Graph or card alone, with what else the models have: refused where it fits none of them."""

    def reader(folder: Path) -> Read:
        *others, last = map(json.loads, _models())

        def read(data: bytes) -> object:
            nested = {key: data.decode(errors="replace")}
            for document in others:
                with contextlib.suppress(InputError):
                    return PublicModel.from_plain(document | nested).plan(1)
            return PublicModel.from_plain(last | nested).plan(1)

        return read

    return reader


def _json(data: bytes) -> Any:
    _, fields = framing.unpack_control(b'{"kind": "model", "fields": {"model": ' + data + b"}}")
    return fields["model"]


def _controls() -> list[bytes]:
    fields: list[tuple[str, dict[str, object]]] = [
        ("hello", {"version": 1, "role": "client", "session": "00" * 8, "purpose": "online"}),
        ("deal", {"attempt": 0, "batch": 1}),
        ("infer", {"attempt": 0, "batch": 1}),
        ("done", {"seconds": 0.1, "cpu_seconds": 0.1, "peak_rss_mb": 100.0, "layers": [0.1, 0.2], "dealt": [0, 10]}),
        ("model", json.loads(_models()[0])),
    ]
    return [framing.pack_control(kind, each) for kind, each in fields]


def _headers() -> list[bytes]:
    header = framing.Header(framing.PROTOCOL_VERSION, framing.DATA, 1, bytes(8), 0, 3, 1, 0, 2).pack()
    return [header + framing.describe([(np.uint8, (100,)), (np.uint64, (3, 4))])]


def _read_header(folder: Path) -> Read:
    def read(data: bytes) -> object:
        framing.Header.unpack(memoryview(data))
        return framing.describe_text(data[framing.HEADER_BYTES :])

    return read


def _deployments() -> list[bytes]:
    party = {"address": "tcp://192.0.2.1:7001", "listen": "tcp://0.0.0.0:7001", "public_key": "server.public"}
    document = {
        "server": party, "provider": party | {"address": "tcp://192.0.2.2:7002", "public_key": "provider.public"}, "clients": ["client.public"],
        "ring": 48, "frac_bits": 16, "drelu_window": [16, 46], "reveal": "logits", "network": "wan",
        "timeouts": {"connect": 30, "answer": 120}, "budgets": {"client": 256, "provider": 256},
    }  # fmt: skip
    return [yaml.safe_dump(document).encode(), json.dumps(document).encode()]


def _read_deployment(folder: Path) -> Read:
    keygen.generate(folder / "keys")
    path = folder / "keys" / "deployment.yaml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return deployment.load(path)

    return read


def _spec_seeds() -> list[bytes]:
    graph = _graphs()[0]
    return [relu_spec.uniform(graph, 2, 2, "net").to_json().encode()]


def _read_spec(folder: Path) -> Read:
    graph = _graphs()[0]

    def read(data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise InputError("not text") from None
        spec = relu_spec.ReluSpec.from_json(text)
        relu_spec.check(spec, graph)
        return relu_spec.show(spec, graph)

    return read


def _pictures() -> list[bytes]:
    pixels = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    return [cv2.imencode(kind, pixels)[1].tobytes() for kind in (".png", ".jpg", ".bmp", ".tiff", ".webp")]


def _arrays() -> list[bytes]:
    seeds = []
    for shape in ((3, 6, 6), (2, 3, 6, 6)):
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(shape, np.float32))
        seeds.append(buffer.getvalue())
    return seeds


def _read_image(ending: str) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        path, preprocessing = folder / f"image{ending}", Preprocessing((6, 6), (127.5,) * 3, (64.0,) * 3, resize="stretch")

        def read(data: bytes) -> object:
            path.write_bytes(data)
            return load_images([path], preprocessing)

        return read

    return reader


def _read_labels(folder: Path) -> Read:
    path = folder / "labels.json"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_labels(path, ["a.png"], _cards()[0])

    return read


def _checkpoints() -> list[bytes]:
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict(), "meta": {"CLASSES": ["a", "b"]}}, buffer)
    return [buffer.getvalue()]


def _read_checkpoint(folder: Path) -> Read:
    import torch

    from threepc.mmlab.checkpoint import load_checkpoint

    path = folder / "checkpoint.pth"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_checkpoint(torch.nn.Linear(2, 2), path)

    return read


TARGETS = {
    "frame headers": Target(_headers, _read_header, 30),
    "control messages": Target(_controls, lambda folder: framing.unpack_control, 30),
    "models of a handshake, with their plan": Target(_models, _read_model, 6, native=True),
    "graphs": Target(lambda: [g.to_json().encode() for g in _graphs()], _read_nested("graph"), 6, native=True),
    "model cards": Target(lambda: [c.to_json().encode() for c in _cards()], _read_nested("card"), 10),
    "relu specs": Target(_spec_seeds, _read_spec, 10),
    "deployment.yaml": Target(_deployments, _read_deployment, 3),
    "images": Target(_pictures, _read_image(".png"), 10, native=True),
    ".npy arrays": Target(_arrays, _read_image(".npy"), 10, native=True),
    "labels": Target(lambda: [b'{"a.png": 1}', b'{"a.png": "b"}'], _read_labels, 10),
    "checkpoints": Target(_checkpoints, _read_checkpoint, 3, native=True),
}
