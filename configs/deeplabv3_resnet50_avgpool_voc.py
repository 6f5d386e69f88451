"""The paper's DeepLabV3 on ResNet-50 for Pascal VOC 2012: average instead of max-pooling in the stem."""

from threepc.mmlab.configs import packaged

_base_ = packaged("mmseg:deeplabv3_r50-d8_512x512_20k_voc12aug")
custom_imports = dict(imports=["threepc.mmlab.backbones"])

model = dict(backbone=dict(type="ResNetV1cAvgPool"))
