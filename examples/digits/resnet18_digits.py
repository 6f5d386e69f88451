"""A narrow ResNet-18 for scikit-learn's handwritten digits: mmcls' CIFAR-10 recipe with a quarter of its channels.

train.py makes resnet18_digits.pth from it.
"""

from threepc.mmlab.configs import packaged

_base_ = packaged("mmcls:resnet18_8xb16_cifar10")
custom_imports = dict(imports=["threepc.mmlab.digits"])

model = dict(backbone=dict(stem_channels=16, base_channels=16), head=dict(in_channels=128, num_classes=10, topk=(1,)))

img_norm_cfg = dict(mean=[78.0, 78.0, 78.0], std=[96.0, 96.0, 96.0], to_rgb=False)
train_pipeline = [
    dict(type="RandomCrop", size=32, padding=4),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="ImageToTensor", keys=["img"]),
    dict(type="ToTensor", keys=["gt_label"]),
    dict(type="Collect", keys=["img", "gt_label"]),
]
test_pipeline = [
    dict(type="CenterCrop", crop_size=32),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="ImageToTensor", keys=["img"]),
    dict(type="Collect", keys=["img"]),
]
data = dict(
    _delete_=True,
    samples_per_gpu=64,
    workers_per_gpu=0,
    train=dict(type="Digits", pipeline=train_pipeline),
    val=dict(type="Digits", pipeline=test_pipeline, test_mode=True),
    test=dict(type="Digits", pipeline=test_pipeline, test_mode=True),
)
