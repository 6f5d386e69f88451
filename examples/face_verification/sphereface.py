"""SphereFace-20 (Liu et al. 2017, arXiv 1704.08063) for faces of 112 x 96 pixels, and a network that compares two of its embeddings.

Twenty convolutions with a PReLU each and one fully connected layer, without batch norm: 512 numbers a face.
"""

import torch
from torch import nn

SIZE = (112, 96)
STAGES = ((1, 1), (2, 2), (4, 4), (8, 1))
"""Channels of each stage as a multiple of the first one's, and how many residual blocks it has."""


class Block(nn.Module):
    """Two convolutions beside a way past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolution = lambda: nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.Sequential(convolution(), nn.PReLU(channels), convolution(), nn.PReLU(channels))
        for layer in self.layers[::2]:
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to as many."""
        return x + self.layers(x)


def sphereface(channels: int = 64) -> nn.Sequential:
    """Faces (N, 3, 112, 96), -1 to 1, to embeddings (N, 8 channels); the published network has 64 channels."""
    layers: list[nn.Module] = []
    before = 3
    for times, blocks in STAGES:
        layers += [nn.Conv2d(before, times * channels, 3, stride=2, padding=1), nn.PReLU(times * channels)]
        nn.init.xavier_uniform_(layers[-2].weight)
        layers += [Block(times * channels) for _ in range(blocks)]
        before = times * channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * 7 * 6, 8 * channels))


def embeddings(network: nn.Module, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the upper and of the lower face of pairs (N, 3, 224, 96), each (N, 8 channels)."""
    return network(pairs[:, :, : SIZE[0]]), network(pairs[:, :, SIZE[0] :])


class Verification(nn.Module):
    """Whether two faces are one person's: cos(a, b) >= threshold of their embeddings a and b, without a division or a root.

    For a threshold above 0 that is max(a.b, 0)^2 >= threshold^2 (a.a) (b.b). The two sides are the network's two outputs; of these only the
    index of the larger is revealed, 1 for the same person.
    """

    def __init__(self, network: nn.Module, threshold: float) -> None:
        super().__init__()
        self.network, self.threshold = network, threshold

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        """Pairs (N, 3, 224, 96), one face above the other, to (N, 2)."""
        a, b = embeddings(self.network, pair)
        dot = torch.relu((a * b).sum(1, keepdim=True))
        norms = (a * a).sum(1, keepdim=True) * (b * b).sum(1, keepdim=True)
        return torch.cat([self.threshold**2 * norms, dot * dot], 1)


def centred(network: nn.Sequential, faces: torch.Tensor) -> nn.Sequential:
    """The network with embeddings whose mean over the faces is 0, and whose squared length there is 4 on average: cosines stay what they are.

    Lengths near 1 leave most room in a ring for the fourth powers that are compared.
    """
    with torch.no_grad():
        found = network(faces)
        last = network[-1]
        last.bias -= found.mean(0)
        scale = 2 / (found - found.mean(0)).square().sum(1).mean().sqrt()
        last.weight *= scale
        last.bias *= scale
    return network
