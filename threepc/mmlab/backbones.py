"""ResNets with average pooling in the stem, where the originals have max-pooling.

A 3x3 max-pool costs eight secure comparisons a pixel, an average nothing but local arithmetic; the paper's recipes therefore train
with averages. Parameters have the same names and shapes as the originals', so their checkpoints load. Configs reach these by
`custom_imports = dict(imports=["threepc.mmlab.backbones"])` and `type="ResNetAvgPool"` or `type="ResNetV1cAvgPool"`.
"""

from torch import nn

from threepc.mmlab.compat import import_mmlab

import_mmlab()

from mmcls.models.backbones import ResNet as ClsResNet  # noqa: E402 - only importable once the placeholders are in place
from mmcls.models.builder import BACKBONES as CLS_BACKBONES  # noqa: E402
from mmseg.models.backbones import ResNet as SegResNet  # noqa: E402
from mmseg.models.backbones import ResNetV1c as SegResNetV1c  # noqa: E402
from mmseg.models.builder import BACKBONES as SEG_BACKBONES  # noqa: E402


class AvgPoolStem:
    """Mixed into a ResNet: its stem ends in a 3x3 average pool of stride 2 whose padding counts, a sum divided by nine everywhere."""

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)  # type: ignore[misc]  # the ResNet it is mixed into has it
        self.maxpool = nn.AvgPool2d(kernel_size=3, stride=2, padding=1)


@CLS_BACKBONES.register_module(name="ResNetAvgPool")
class ClsResNetAvgPool(AvgPoolStem, ClsResNet):
    """mmcls' ResNet with an average pool in the stem."""


@SEG_BACKBONES.register_module(name="ResNetAvgPool")
class SegResNetAvgPool(AvgPoolStem, SegResNet):
    """mmsegmentation's ResNet with an average pool in the stem."""


@SEG_BACKBONES.register_module(name="ResNetV1cAvgPool")
class SegResNetV1cAvgPool(AvgPoolStem, SegResNetV1c):
    """mmsegmentation's ResNetV1c (three 3x3 convolutions first) with an average pool in the stem."""
