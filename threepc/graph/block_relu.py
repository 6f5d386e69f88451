"""The trainable block ReLU, and how a relu spec is put into any torch module.

One decision serves a patch: b = [sum of its pixels >= 0], and every pixel of the patch leaves as b * x. Gradients flow
through x alone; the decision is not differentiated (Gorski et al. 2023). A block ReLU has neither parameters nor buffers, so
a checkpoint's keys stay those of the plain network.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from threepc.errors import InputError
from threepc.graph.modes import evaluating
from threepc.graph.relu_spec import IDENTITY, PLAIN, ZERO, ReluSpec


def patch_decisions(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[sum of the patch >= 0] at every pixel: x of shape (N, C, H, W), bool of the same shape. Sums are in float32 or wider."""
    if (height, width) == PLAIN:
        return x >= 0
    wide = x if x.dtype == torch.float64 else x.float()
    sums = functional.avg_pool2d(wide, (height, width), ceil_mode=True, divisor_override=1)
    rows = torch.arange(x.shape[2], device=x.device) // height
    columns = torch.arange(x.shape[3], device=x.device) // width
    return (sums >= 0).index_select(2, rows).index_select(3, columns)


class BlockReLU(nn.Module):
    """Block ReLU with a patch size per channel; with `maximum` (6.0 for ReLU6) the block form of clipping to [0, maximum].

    `patches`: integers of shape (C, 2), [height, width] of each channel; [1, 1] plain, [1, 0] zero, [0, 1] identity. Input
    (N, C, H, W) or (N, C), output the same shape and dtype: b * x, or b0 * x - b1 * (x - maximum) where b1 decides on
    x - maximum over the same patch.
    """

    def __init__(self, patches: np.ndarray, maximum: float | None = None) -> None:
        super().__init__()
        patches = np.asarray(patches)
        sizes, group = np.unique(patches, axis=0, return_inverse=True)
        order = np.argsort(group.reshape(-1), kind="stable")
        self.channels = len(patches)
        self.maximum = maximum
        counts = np.bincount(group.reshape(-1), minlength=len(sizes)).tolist()
        self.groups = [(height, width, count) for (height, width), count in zip(sizes.tolist(), counts, strict=True)]
        # Not buffers: mmcv saves even those marked as not persistent, and a checkpoint's keys are to stay the plain network's.
        self.order, self.inverse = torch.from_numpy(order), torch.from_numpy(np.argsort(order))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self.order, self.inverse = fn(self.order), fn(self.inverse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return self

    def extra_repr(self) -> str:
        """What torch prints of it."""
        return f"{self.channels} channels, {len(self.groups)} patch sizes" + ("" if self.maximum is None else f", max={self.maximum}")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, C, H, W) or (N, C) to the same shape and dtype."""
        image = x if x.dim() == 4 else x[:, :, None, None]
        if image.shape[1] != self.channels:
            raise InputError(f"a block ReLU for {self.channels} channels was given {image.shape[1]}")
        if self.maximum is None:
            out = image * self._decide(image)
        else:
            above = image - self.maximum
            out = image * self._decide(image) - above * self._decide(above, identity=False)
        return out.reshape(x.shape)

    def _decide(self, x: torch.Tensor, identity: bool = True) -> torch.Tensor:
        # One pooling for each patch size: channels are brought together by size, and back afterwards.
        x = x.detach()
        if len(self.groups) == 1:
            return _decide_one(x, *self.groups[0][:2], identity)
        parts = torch.split(x.index_select(1, self.order.to(x.device)), [count for _, _, count in self.groups], dim=1)
        decided = [_decide_one(part, height, width, identity) for part, (height, width, _) in zip(parts, self.groups, strict=True)]
        return torch.cat(decided, dim=1).index_select(1, self.inverse.to(x.device))


def _decide_one(x: torch.Tensor, height: int, width: int, identity: bool) -> torch.Tensor:
    # The identity of a clip keeps x and subtracts nothing: its second decision is no.
    if (height, width) in (ZERO, IDENTITY):
        return torch.full_like(x, identity and (height, width) == IDENTITY, dtype=torch.bool)
    return patch_decisions(x, height, width)


class CalledInTurn(nn.Module):
    """Stands for one ReLU object that a forward pass calls several times: the k-th call goes to the k-th block ReLU.

    `restart` belongs in a forward pre-hook of a module that a pass enters once, so that a pass which broke off does not
    shift the next one.
    """

    def __init__(self, stages: list[BlockReLU]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.calls = 0

    def restart(self, *_: Any) -> None:
        """The next call is the first of a pass."""
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The next block ReLU's result."""
        stage = self.stages[self.calls]
        self.calls = (self.calls + 1) % len(self.stages)
        result: torch.Tensor = stage(x)
        return result


Forward = Callable[[nn.Module, torch.Tensor], Any]


@dataclass
class _Trace:
    """What one forward pass called: for each ReLU module the channels and the enclosing modules of each call, in order."""

    calls: dict[nn.Module, list[tuple[int, tuple[nn.Module, ...]]]] = field(default_factory=lambda: defaultdict(list))
    entries: Counter[nn.Module] = field(default_factory=Counter)


def _call(model: nn.Module, example: torch.Tensor) -> Any:
    return model(example)


def apply_spec(model: nn.Module, spec: ReluSpec, example: torch.Tensor, forward: Forward = _call) -> nn.Module:
    """Put block ReLUs into `model`, in place, by the names of the spec; returns `model`.

    Names are those of the Graph: the module's dotted path, with "/1", "/2", ... in call order where one module is called
    several times. `forward(model, example)` runs one inference on `example` (N, C, H, W) to see those calls; it runs in
    evaluation mode without gradients, and the model's mode is restored. Raises InputError naming the layer where the spec
    and the network's ReLU modules differ; a ReLU called as a function (torch.relu) cannot be replaced and is reported so.
    """
    trace = _trace(model, example, forward)
    names: dict[nn.Module, list[str]] = {}
    channels: dict[str, int] = {}
    paths = {module: path for path, module in model.named_modules()}
    for module, calls in trace.calls.items():
        path = paths[module]
        names[module] = [path] if len(calls) == 1 else [f"{path}/{index + 1}" for index in range(len(calls))]
        channels |= {name: count for name, (count, _) in zip(names[module], calls, strict=True)}
    _check_names(spec, channels)
    for module, calls in trace.calls.items():
        maximum = float(module.max_val) if isinstance(module, nn.Hardtanh) else None
        blocks = [BlockReLU(spec.layers[name], maximum).to(example.device) for name in names[module]]
        if len(blocks) == 1:
            _replace(model, module, blocks[0])
        else:
            in_turn = CalledInTurn(blocks)
            _common_ancestor(calls, trace.entries).register_forward_pre_hook(in_turn.restart)
            _replace(model, module, in_turn)
    return model


def _trace(model: nn.Module, example: torch.Tensor, forward: Forward) -> _Trace:
    trace, stack = _Trace(), list[nn.Module]()

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.ReLU) or (isinstance(module, nn.Hardtanh) and module.min_val == 0):
            trace.calls[module].append((inputs[0].shape[1], tuple(stack)))
        trace.entries[module] += 1
        stack.append(module)

    def leave(*_: Any) -> None:
        stack.pop()

    hooks = [hook for module in model.modules() for hook in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))]
    try:
        with evaluating(model):
            forward(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    return trace


def _check_names(spec: ReluSpec, channels: dict[str, int]) -> None:
    for name, patches in spec.layers.items():
        if name not in channels:
            raise InputError(
                f"{spec.source}: the network calls no ReLU module '{name}': a spec for another model, or a ReLU called as a "
                "function (torch.relu, functional.relu), which has to become an nn.ReLU of the module first"
            )
        if len(patches) != channels[name]:
            raise InputError(f"{spec.source}: layer {name!r} has {len(patches)} patch sizes, the network's has {channels[name]} channels")
    if missing := [name for name in channels if name not in spec.layers]:
        raise InputError(f"{spec.source}: the ReLU '{missing[0]}' of this network is missing (spec made for '{spec.model}')")


def _common_ancestor(calls: list[tuple[int, tuple[nn.Module, ...]]], entries: Counter[nn.Module]) -> nn.Module:
    # The innermost module around all calls that one forward pass enters once. The model itself may be called by its parts
    # (MMLab's training calls extract_feat), which is why not simply the model: this is as close to the calls as it gets.
    levels = zip(*(stack for _, stack in calls), strict=False)  # calls may lie at different depths
    common = [level[0] for level in levels if all(module is level[0] for module in level)]
    innermost: nn.Module = next(module for module in reversed(common) if entries[module] == 1)
    return innermost


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for child, module in parent.named_children():
            if module is old:
                setattr(parent, child, new)
