"""The paper's ResNet-18 for CIFAR-100, which has no max-pooling to replace: mmcls' ResNet-50 recipe for that dataset at depth 18."""

from threepc.mmlab.configs import packaged

_base_ = packaged("mmcls:resnet50_8xb16_cifar100")

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
