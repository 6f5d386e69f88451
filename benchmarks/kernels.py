"""Speed of the convolution kernels on the layers of networks, packing of the input included: rows of GMAC/s."""
import time
from dataclasses import dataclass, replace

import numpy as np

from threepc.kernels.convolution import convolve, output_size, pack_weight

_CACHE_BYTES = 96 << 20                                         # more than the last-level cache that one core can fill


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


def mobilenet_depthwise() -> list[Layer]:
    """The distinct depthwise convolutions of MobileNetV2 at 224 x 224."""
    sizes = ((32, 112, 1, 1), (96, 112, 2, 1), (144, 56, 1, 1), (144, 56, 2, 1), (192, 28, 1, 2), (192, 28, 2, 1), (384, 14, 1, 4),
             (576, 14, 1, 2), (576, 14, 2, 1), (960, 7, 1, 3))
    return [Layer(channels, channels, size, 3, stride, channels, times) for channels, size, stride, times in sizes]


def measure(layers: list[Layer], bits: int, images: int = 1, threads: int = 1, seconds: float = 0.1) -> list[dict]:
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
        options = {"stride": (layer.stride,) * 2, "padding": (layer.padding,) * 4, "threads": threads}
        out = convolve(x, packed, **options)
        copies = [packed] + [replace(packed, panels=packed.panels.copy()) for _ in range(min(8, _CACHE_BYTES // packed.panels.nbytes))]
        times = []
        while len(times) < 3 or sum(times) < seconds:
            begin = time.perf_counter()
            convolve(x, copies[len(times) % len(copies)], out=out, **options)
            times.append(time.perf_counter() - begin)
        best = min(times)
        rows.append({
            "layer": str(layer),
            "times": layer.times,
            "milliseconds": best * 1e3,
            "gmac_per_second": images * layer.macs / best / 1e9,
            "gigabytes_per_second": (x.nbytes + packed.panels.nbytes + out.nbytes) / best / 1e9,
        })
    return rows
