"""Speed of the convolution kernels on the layers of networks, packing of the input included: rows of GMAC/s."""

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.store import Entry
from threepc.kernels.convolution import convolve, output_size, pack_weight

_CACHE_BYTES = 96 << 20  # more than the last-level cache that one core can fill


@dataclass(frozen=True)
class Layer:
    """A convolution by its public sizes: channels in and out, input map, kernel, stride, padding, all square, and how often it occurs."""

    channels_in: int
    channels_out: int
    size: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    times: int = 1

    @property
    def padding(self) -> int:
        """Of every border: as many pixels as keep the map's size at stride 1."""
        return self.kernel // 2

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        side = output_size(self.size, self.size, (self.kernel,) * 2, (self.stride,) * 2, (self.padding,) * 4)[0]
        return self.channels_out * (self.channels_in // self.groups) * self.kernel**2 * side**2

    def __str__(self) -> str:
        groups = f" /{self.groups}" if self.groups > 1 else ""
        return f"{self.channels_in}->{self.channels_out}{groups} {self.kernel}x{self.kernel} s{self.stride} @{self.size}"


def resnet50() -> list[Layer]:
    """The distinct convolutions of ResNet-50 (stride in the 3x3 convolution) at 224 x 224."""
    layers = [Layer(3, 64, 224, 7, 2)]
    before, size = 64, 56
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        after, reduced = 4 * width, size // stride
        layers += [
            Layer(before, width, size),
            Layer(width, width, size, 3, stride),
            Layer(width, after, reduced, times=blocks),
            Layer(before, after, size, 1, stride),
            Layer(after, width, reduced, times=blocks - 1),
            Layer(width, width, reduced, 3, times=blocks - 1),
        ]
        before, size = after, reduced
    return [*layers, Layer(2048, 1000, 1)]


def mobilenet_v2() -> list[Layer]:
    """The distinct convolutions of MobileNetV2 at 224 x 224, the depthwise ones among them."""
    layers, before, size = [Layer(3, 32, 224, 3, 2)], 32, 112
    settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, after, blocks, first_stride in settings:
        for stride in [first_stride] + [1] * (blocks - 1):
            width = before * expansion
            if expansion > 1:
                layers.append(Layer(before, width, size))
            layers.append(Layer(width, width, size, 3, stride, width))
            size //= stride
            layers.append(Layer(width, after, size))
            before = after
    return distinct([*layers, Layer(320, 1280, 7), Layer(1280, 1000, 1)])


def distinct(layers: list[Layer]) -> list[Layer]:
    """Each layer once, with the number of times it occurs."""
    return [
        replace(layer, times=sum(other.times for other in layers if replace(other, times=1) == layer))
        for layer in dict.fromkeys(replace(layer, times=1) for layer in layers)
    ]


NETWORKS = {"ResNet-50": resnet50, "MobileNetV2": mobilenet_v2}


def together(rows: list[Entry], depthwise: bool | None = None) -> float:
    """GMAC/s of all layers of a network, each as often as it occurs; depthwise: of these or of the others alone."""
    chosen = [row for row in rows if depthwise is None or row["depthwise"] == depthwise]
    work: float = sum(row["times"] * row["milliseconds"] * row["gmac_per_second"] for row in chosen)
    seconds: float = sum(row["times"] * row["milliseconds"] for row in chosen)
    return work / seconds


def measure(layers: list[Layer], bits: int, images: int = 1, threads: int = 1, seconds: float = 0.1) -> list[Entry]:
    """Best time of each layer in the ring of 2^bits: rows of layer, times, milliseconds, GMAC/s and GB/s of weights, input and output.

    Every layer runs at least three times and for `seconds`. Weights that fill a cache come from memory each time, as in an inference.
    """
    dtype = np.dtype(np.uint64 if bits > 32 else np.uint32)
    rows = []
    for layer in layers:
        x = np.arange(images * layer.channels_in * layer.size**2, dtype=dtype) * dtype.type(2654435761)
        x = x.reshape(images, -1, layer.size, layer.size)
        weight = np.arange(layer.channels_out * (layer.channels_in // layer.groups) * layer.kernel**2, dtype=dtype) * dtype.type(40503)
        packed = pack_weight(weight.reshape(layer.channels_out, -1, layer.kernel, layer.kernel), layer.groups, bits)
        run = partial(convolve, x, stride=(layer.stride,) * 2, padding=(layer.padding,) * 4, threads=threads)
        out = run(packed)
        copies = [packed] + [replace(packed, panels=packed.panels.copy()) for _ in range(min(8, _CACHE_BYTES // packed.panels.nbytes))]
        times: list[float] = []
        while len(times) < 3 or sum(times) < seconds:
            begin = time.perf_counter()
            run(copies[len(times) % len(copies)], out=out)
            times.append(time.perf_counter() - begin)
        best = min(times)
        rows.append(
            {
                "layer": str(layer),
                "times": layer.times,
                "depthwise": layer.groups > 1,
                "milliseconds": best * 1e3,
                "gmac_per_second": images * layer.macs / best / 1e9,
                "gigabytes_per_second": (x.nbytes + packed.panels.nbytes + out.nbytes) / best / 1e9,
            }
        )
    return rows
