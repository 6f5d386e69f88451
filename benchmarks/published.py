"""What SecureNN and Porthos would send for a network, by the formulas that their authors published.

l = 64; log p = 8, since both programs hold an element of Z_67, 6.07 bits, in a byte.

SecureNN (Wagh, Gupta, Chandran, PoPETs 2019, tables of the building blocks): a ReLU 8 l log p + 24 l bits, the largest of n values
(n - 1)(8 l log p + 29 l) bits; a product of m x n by n x v matrices, masks from a shared generator, (2mn + 2nv + mv) l bits.
Porthos (Kumar et al., CrypTFlow, IEEE S&P 2020): a ReLU 6 l log p + 19 l bits, the largest of n values (n - 1)(6 l log p + 24 l) bits;
a convolution sends its image and not the unfolded matrix: (2 image + 2 weights + output) l bits. CrypTFlow reports 6.9 GB for ResNet-50.
A survey with both ReLU formulas and rounds: KULeuven-COSIC/sok-ppml-mpc-frameworks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threepc.graph.ir import Graph

WORD_BITS, PRIME_BITS = 64, 8


@dataclass(frozen=True)
class System:
    """Bits of a comparison, once for ReLU and once in a maximum, as multiples of l log p and of l; whether convolutions are unfolded."""

    name: str
    comparison: int
    relu: int
    maximum: int
    unfolded: bool
    rounds: str

    def relu_bytes(self, count: int = 1) -> int:
        """Of `count` ReLUs."""
        return count * WORD_BITS * (self.comparison * PRIME_BITS + self.relu) // 8

    def maximum_bytes(self, count: int = 1) -> int:
        """Of `count` comparisons inside maxima."""
        return count * WORD_BITS * (self.comparison * PRIME_BITS + self.maximum) // 8

    def convolution_bytes(self, image: int, columns: int, weights: int, output: int) -> int:
        """image, weights, output: elements; columns: elements of the unfolded image."""
        return (2 * (columns if self.unfolded else image) + 2 * weights + output) * WORD_BITS // 8


SYSTEMS = (System("SecureNN", 8, 24, 29, True, "10 rounds a ReLU"), System("Porthos", 6, 19, 24, False, "7 rounds a ReLU"))


def network_bytes(system: System, graph: Graph, batch: int = 1) -> dict[str, int]:
    """Bytes over all links for one inference: by kind of layer, and the total. A clip (ReLU6) counts as two ReLUs."""
    shapes = {node.name: node.shape for node in graph.nodes}
    parts = {"relu": 0, "maxpool": 0, "conv": 0}
    for node in graph.nodes:
        output = batch * int(np.prod(node.shape))
        if node.kind in ("relu", "clip"):
            parts["relu"] += system.relu_bytes(output * (2 if node.kind == "clip" else 1))
        elif node.kind == "maxpool":
            parts["maxpool"] += system.maximum_bytes(output * (int(np.prod(node.attrs["kernel"])) - 1))
        elif node.kind == "conv":
            source, groups = shapes[node.inputs[0]], node.attrs["groups"]
            depth = source[0] // groups * int(np.prod(node.attrs["kernel"]))
            columns = batch * groups * depth * node.shape[1] * node.shape[2]
            parts["conv"] += system.convolution_bytes(batch * int(np.prod(source)), columns, node.shape[0] * depth, output)
    return parts | {"total": sum(parts.values())}
