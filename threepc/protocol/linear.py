"""Linear layers with server-known weights: z = W * (u + d) + bias without a message, * any bilinear map.

Setup, once per model: S sends C m_W = W + L_W, where S and P draw L_W from a key of their own for these weights in this ring and precision.
Then z_C = m_W * d (C, offline), z_P = L_W * d (P, offline), z_S = W * u + bias (S, online), and z_C + z_S - z_P = z.
Semi-honest, one corruption. Security: L_W is a one-time pad of the weights that C cannot draw; every party does one convolution on what it
holds. Layers that use the same weights, as those of one module called twice, use the same m_W and L_W: a second convolution with them, like
that of a second image, tells nobody more, and that they are the same is part of the public graph. Delphi (Mishra et al., USENIX Security
2020) with the provider in place of homomorphic encryption; ASTRA (Chaudhari et al., CCSW 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from threepc.kernels.convolution import PackedWeight, convolve, pack_weight
from threepc.kernels.packing import pack, packed_bytes, padded, unpack
from threepc.prf import Keystream, Purpose
from threepc.protocol.cost import Cost
from threepc.protocol.rows import Rows, rows_of
from threepc.ring import word_of


@dataclass(frozen=True)
class Linear:
    """A convolution of (N, C, H, W) to `shape` (N, O, OH, OW) with weights of `weight_shape` (O, C / groups, kh, kw).

    weights_op: of an earlier layer whose weights these are, None for weights of its own. Nothing is set up for the former.
    """

    op: int
    shape: tuple[int, int, int, int]
    weight_shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    bits: int
    weights_op: int | None = None

    @property
    def held(self) -> int:
        """The op under which the roles hold the weights."""
        return self.op if self.weights_op is None else self.weights_op

    @property
    def _weights(self) -> int:
        return math.prod(self.weight_shape)

    @property
    def mask_bytes(self) -> int:
        """S to C, setup: the masked weights."""
        return packed_bytes(self._weights, self.bits)

    @cached_property
    def cost(self) -> Cost:
        """Nothing but the masked weights travels, and these once."""
        return Cost() if self.weights_op is not None else Cost(setup={"server->client": self.mask_bytes})

    def _mask(self, key: Keystream) -> np.ndarray:
        return key.stream(0, self.op, Purpose.WEIGHT).fill(np.empty(padded(self._weights), word_of(self.bits)))

    def _pack(self, words: np.ndarray) -> PackedWeight:
        return pack_weight(words[: self._weights].reshape(self.weight_shape), self.groups, self.bits)

    def mask_weights(self, key: Keystream, weight: np.ndarray) -> np.ndarray:
        """S, setup: the message m_W. weight: ring words of weight_shape."""
        masked, message = self._mask(key), np.empty(self.mask_bytes, np.uint8)
        masked[: self._weights] += weight.reshape(-1)
        pack(masked, masked.size, self.bits, message)
        return message

    def server_weights(self, weight: np.ndarray) -> PackedWeight:
        """S, setup: the weights as the kernels take them."""
        return self._pack(weight.reshape(-1))

    def provider_weights(self, key: Keystream) -> PackedWeight:
        """P, setup: L_W."""
        return self._pack(self._mask(key))

    def client_weights(self, message: np.ndarray) -> PackedWeight:
        """C, setup: m_W from S's message."""
        words = np.empty(padded(self._weights), word_of(self.bits))
        unpack(message, words.size, self.bits, words)
        return self._pack(words)

    @property
    def takes_rows(self) -> bool:
        """Whether every window of the kernel reads some of the map's rows, and not padding alone."""
        return max(self.padding[0], self.padding[2]) < self._reach

    @property
    def _reach(self) -> int:
        return self.dilation[0] * (self.weight_shape[2] - 1) + 1

    def apply_by_rows(self, weights: PackedWeight, x: Rows, height: int, bias: np.ndarray | None, threads: int) -> Rows:
        """As `apply`, of a map of so many rows that come one after the other."""
        top, left, _, right = self.padding

        def fill(words: np.ndarray, begin: int, end: int) -> int:
            first = begin * self.stride[0] - top
            last = (end - 1) * self.stride[0] - top + self._reach
            rows = rows_of(x, max(first, 0), min(last, height))
            padding = max(-first, 0), left, max(last - height, 0), right
            words[:, :, begin:end] = convolve(
                rows, weights, stride=self.stride, padding=padding, dilation=self.dilation, bias=bias, threads=threads
            )
            return end

        return Rows(self.shape, weights.panels.dtype, fill)

    def apply(self, weights: PackedWeight, x: np.ndarray, bias: np.ndarray | None, threads: int) -> np.ndarray:
        """Any party: its weights * its summand (N, C, H, W), plus at S the bias (O,) at the product's scale."""
        return convolve(x, weights, stride=self.stride, padding=self.padding, dilation=self.dilation, bias=bias, threads=threads)
