"""MTCNN's three networks with facenet-pytorch's weights find the faces on scikit-image's astronaut, in plaintext and securely.

The pyramid of scales, the softmax and the choice among overlapping boxes are the client's, on revealed logits and boxes: facenet-pytorch's own
code, given networks that ask three parties. A network takes one size of images, so each of its sizes has a session.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import skimage
import torch

import threepc
from threepc.mmlab.compat import import_torchvision

import_torchvision()  # also where its compiled operations do not fit torch's build

from facenet_pytorch.models import mtcnn  # noqa: E402
from facenet_pytorch.models.utils import detect_face  # noqa: E402

SMALLEST_FACE = 40
THRESHOLDS = (0.6, 0.7, 0.7)
FACTOR = 0.709
"""The defaults of facenet-pytorch, but for the smallest face, in pixels."""


def suppressed(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, overlap: float) -> torch.Tensor:
    """Non-maximum suppression: the boxes that overlap no better one of their group, best first. As torchvision's compiled one."""
    areas, kept = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), []
    left = scores.argsort(descending=True, stable=True)
    while len(left):
        best, others = left[0], left[1:]
        kept.append(best)
        sides = torch.minimum(boxes[best, 2:], boxes[others, 2:]) - torch.maximum(boxes[best, :2], boxes[others, :2])
        common = sides.clamp(min=0).prod(1)
        left = others[(common / (areas[best] + areas[others] - common) <= overlap) | (groups[others] != groups[best])]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


class Secure:
    """A network of MTCNN, called as its module, that three parties evaluate; the softmax is applied to what they reveal."""

    def __init__(self, network: torch.nn.Module, stack: ExitStack) -> None:
        for name, module in network.named_children():
            if isinstance(module, torch.nn.Softmax):
                setattr(network, name, torch.nn.Identity())
        self._network, self._stack = network, stack
        self._sessions: dict[tuple[int, ...], threepc.api.SecureModel] = {}
        self.megabytes = 0.0

    def parameters(self) -> Iterator[torch.Tensor]:
        """Of which detect_face takes the type."""
        return self._network.parameters()

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the module says of images (N, 3, H, W)."""
        shape = tuple(images.shape[1:])
        if shape not in self._sessions:
            example = torch.empty(4, *shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))  # the range of all images
            self._sessions[shape] = self._stack.enter_context(threepc.local(self._network, example, transport="memory"))
        *boxes, logits = self._sessions[shape](images)
        self.megabytes += self._sessions[shape].report["bytes"]["total"] / 1e6
        return *boxes, torch.softmax(logits, 1)


def find(networks: list[object]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (faces, 5) with their probability, and landmarks (faces, 5, 2)."""
    pixels = skimage.data.astronaut()
    with torch.no_grad():
        boxes, points = detect_face.detect_face(pixels, SMALLEST_FACE, *networks, THRESHOLDS, FACTOR, torch.device("cpu"))
    return np.asarray(boxes[0], np.float64), np.asarray(points[0], np.float64)


def main() -> int:
    """Print both findings; 0 where they are the same faces."""
    detect_face.batched_nms = suppressed
    plain_boxes, plain_points = find([mtcnn.PNet(), mtcnn.RNet(), mtcnn.ONet()])
    with ExitStack() as stack:
        networks = [Secure(network.requires_grad_(False), stack) for network in (mtcnn.PNet(), mtcnn.RNet(), mtcnn.ONet())]
        boxes, points = find(networks)
    for title, found in (("plaintext", plain_boxes), ("secure", boxes)):
        for left, top, right, bottom, probability in found:
            print(f"{title:>10}: a face at {left:.1f}, {top:.1f} to {right:.1f}, {bottom:.1f}, probability {probability:.4f}")
    same = boxes.shape == plain_boxes.shape and bool(np.abs(boxes[:, :4] - plain_boxes[:, :4]).max(initial=0) < 1)
    if same:
        pixels = max(np.abs(boxes[:, :4] - plain_boxes[:, :4]).max(), np.abs(points - plain_points).max())
        print(f"The same {len(boxes)} face(s): boxes and landmarks differ by at most {pixels:.3f} pixels.")
    print(f"Bytes over all links: {sum(network.megabytes for network in networks):.0f} MB.")
    return not same


if __name__ == "__main__":
    sys.exit(main())
