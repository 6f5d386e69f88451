"""How much work a stranger's model may make, so that nothing is computed for more. What may be allocated for it, its plan limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from threepc.choices import LABEL
from threepc.errors import InputError
from threepc.graph.ir import Graph, Node
from threepc.images.card import ModelCard

MOST_PRODUCTS = 1 << 44
"""Of one inference, over the batch: multiplications of convolutions, additions of averages. Half an hour at 10^10 a second; ResNet-50 takes 2^32 an image."""
MOST_COPIED = 1 << 26
"""Words of a padded channel, which a depthwise convolution copies, with the cells that its stride passes over."""

MOST_LOGITS = 1 << 29
"""Of all windows of one image together, which are held until they are averaged."""


def check_windows(card: ModelCard, graph: Graph, reveals: Sequence[str]) -> None:
    """Raises InputError where windows are to slide over images of a network whose outputs cannot be averaged, or would be too many."""
    if card.sliding is None:
        return
    if not graph.returns_tensor or graph.output.shape[1:] == (1, 1):
        raise InputError(f"{card.name}: windows slide over the images of a network that returns one map of logits, and of no other")
    if LABEL in reveals:
        raise InputError(
            f"{card.name}: windows slide over the image, and their logits are averaged before the largest is taken, which labels alone do"
            " not allow: reveal logits, or say with --size HxW at which size one input shows the whole image"
        )
    height, width = graph.output.attrs.get("resize", [])[:2] or graph.output.shape[1:]
    numbers = card.sliding.most(card.preprocessing.size) * graph.output.shape[0] * height * width
    if numbers > MOST_LOGITS:
        raise InputError(f"{card.name}: the windows of one image have {numbers:,} logits; at most {MOST_LOGITS:,} are possible")


def check_work(graph: Graph, batch: int) -> None:
    """Raises InputError, naming the layer, where `batch` images at once take more than these."""
    products = 0
    for node in graph.nodes:
        if node.kind not in ("conv", "avgpool", "matmul"):
            continue
        first = graph[node.inputs[0]].shape
        channels = first[0] // node.attrs["groups"] if node.kind == "conv" else first[2] if node.kind == "matmul" else 1
        products += batch * math.prod(node.shape) * channels * math.prod(node.attrs.get("kernel", ()))
        if products > MOST_PRODUCTS:
            most = f"at most {MOST_PRODUCTS:,} are possible"
            raise InputError(f"{node.name}: up to here {products:,} multiplications for {batch} images at once; {most}")
        if node.kind == "conv" and channels == 1 and _copied(node) > MOST_COPIED:
            raise InputError(
                f"{node.name}: stride, kernel and dilation reach over {_copied(node):,} cells; at most {MOST_COPIED:,} are possible"
            )


def _copied(node: Node) -> int:
    axes = zip(node.shape[1:], *(node.attrs[key] for key in ("stride", "kernel", "dilation")), strict=True)
    return math.prod(stride * (out + dilation * (kernel - 1) // stride) for out, stride, kernel, dilation in axes)
