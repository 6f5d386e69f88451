"""The paper's DeepLabV3 on MobileNetV2 for ADE20K: ReLU in place of ReLU6, which takes one decision instead of two."""

from threepc.mmlab.configs import packaged

_base_ = packaged("mmseg:deeplabv3_m-v2-d8_512x512_160k_ade20k")

model = dict(backbone=dict(act_cfg=dict(type="ReLU")))
