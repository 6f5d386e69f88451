"""The networks that are measured, ready to be served, and how long PyTorch takes for them in the clear."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks.machine import ROOT
from benchmarks.store import spread
from threepc.graph import relu_spec as relu_specs
from threepc.graph.importer import import_module
from threepc.model.assemble import Assembled, Settings, assemble_loaded
from threepc.model.load import LoadedModel, load_model
from threepc.plan.calibration import default_images
from threepc.protocol.steps import LinearStep

PLAIN_THREADS = (1, 2)
PLAIN_SECONDS, PLAIN_RUNS = 1.0, 30


@dataclass(frozen=True)
class Subject:
    """A network: CONFIG as threepc takes it (files relative to the checkout), the side of its square input or None for its own."""

    name: str
    title: str
    config: str
    side: int | None = None
    long: bool = False


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("resnet18_cifar", "ResNet-18, CIFAR 32x32", "configs/resnet18_cifar100.py"),
        Subject("resnet50", "ResNet-50 224x224, max-pool", "mmcls:resnet50_8xb32_in1k"),
        Subject("resnet50_avgpool", "ResNet-50 224x224, average-pool stem", "configs/resnet50_avgpool_in1k.py"),
        Subject("mobilenet_v2", "MobileNetV2 224x224 (ReLU6)", "mmcls:mobilenet-v2_8xb32_in1k"),
        Subject("mobilenet_deeplab", "MobileNetV2-DeepLabV3 512x512 (ReLU6)", "mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k", 512, True),
        Subject(
            "mobilenet_deeplab_relu", "MobileNetV2-DeepLabV3 512x512 (ReLU)", "configs/deeplabv3_mobilenetv2_relu_ade20k.py", 512, True
        ),
        Subject("resnet50_deeplab", "ResNet-50-DeepLabV3 512x512, max-pool", "mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug", 512, True),
        Subject(
            "resnet50_deeplab_avgpool",
            "ResNet-50-DeepLabV3 512x512, average-pool stem",
            "configs/deeplabv3_resnet50_avgpool_voc.py",
            512,
            True,
        ),
        Subject("resnet18", "ResNet-18 (ImageNet), max-pool", "mmcls:resnet18_8xb32_in1k"),
        Subject("digits", "ResNet-18, digits 32x32", "examples/digits/resnet18_digits.py"),
    )
}


@lru_cache(maxsize=2)
def loaded(subject: Subject) -> LoadedModel:
    """The torch module, with seeded random weights."""
    config = subject.config if ":" in subject.config else str(ROOT / subject.config)
    return load_model(config, size=None if subject.side is None else (subject.side,) * 2)


@lru_cache(maxsize=2)
def assembled(subject: Subject, ring: int, patch: tuple[int, int] | None = None) -> Assembled:
    """Ready to be served. patch: one size for all ReLUs, None for plain ReLUs. Raises InputError where the ring cannot hold the network."""
    model = loaded(subject)
    spec = None
    if patch is not None:
        spec = uniform_spec(model.module, torch.zeros(model.example_shape), patch, subject.name)
    return assemble_loaded(model, Settings(ring=ring, relu_spec=spec))


def uniform_spec(module: torch.nn.Module, example: torch.Tensor, patch: tuple[int, int], name: str) -> relu_specs.ReluSpec:
    """One patch size for every channel of every ReLU, the whole map where that is smaller."""
    graph, _ = import_module(module, example)
    return relu_specs.uniform(graph, *patch, model=name)


def at_side(subject: Subject, side: int) -> Subject:
    """The same network for another size of image."""
    return dataclasses.replace(subject, name=f"{subject.name}_{side}", side=side)


def images(model: Assembled, count: int) -> np.ndarray:
    """float32 (count, C, H, W), the same ones each time."""
    return default_images(model.public.card.preprocessing, count)


def macs(model: Assembled, batch: int = 1) -> int:
    """Multiply-adds of all convolutions."""
    return sum(map(step_macs, model.public.plan(batch).linear))


def step_macs(step: LinearStep) -> int:
    """Multiply-adds of one convolution."""
    return int(np.prod(step.protocol.shape)) * int(np.prod(step.protocol.weight_shape[1:]))


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Plaintext:
    """PyTorch in the clear for one batch: spreads of seconds by number of threads, outputs (N, K, ...) with the spec's block ReLUs.

    sensitivity: by how much of the largest output these change when every pixel changes by one unit of the fixed-point encoding.
    Block ReLUs are not continuous, so this can be far more than for plain ones; no fixed-point computation can be held to less.
    """

    seconds: dict[str, dict[str, Any]]
    outputs: np.ndarray
    sensitivity: float


def plaintext(model: Assembled, pixels: np.ndarray) -> Plaintext:
    """Time the original network, and evaluate the one with the spec."""
    batch, seconds = torch.from_numpy(pixels), {}
    with torch.inference_mode():
        for threads in PLAIN_THREADS:
            with _torch_threads(threads):
                model.imported.module(batch)
                times: list[float] = []
                while len(times) < 3 or (sum(times) < PLAIN_SECONDS and len(times) < PLAIN_RUNS):
                    began = time.perf_counter()
                    model.imported.module(batch)
                    times.append(time.perf_counter() - began)
            seconds[str(threads)] = spread(times)
        with _torch_threads(PLAIN_THREADS[-1]):
            network = model.imported.plaintext()
            signs = (torch.arange(batch.numel()).reshape(batch.shape) * 40503 % 65537 % 2) * 2 - 1
            outputs = network(batch)
            disturbed = network(batch + signs * 2.0**-model.public.precision.fraction)
    sensitivity = float((disturbed - outputs).abs().max() / outputs.abs().max())
    return Plaintext(seconds, outputs.double().numpy(), sensitivity)
