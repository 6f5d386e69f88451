"""The paper's ResNet-50 for ImageNet: average instead of max-pooling in the stem.

Its training starts from mmcls' own checkpoint of resnet50_8xb32_in1k, which fits.
"""

from threepc.mmlab.configs import packaged

_base_ = packaged("mmcls:resnet50_8xb32_in1k")
custom_imports = dict(imports=["threepc.mmlab.backbones"])

model = dict(backbone=dict(type="ResNetAvgPool"))
