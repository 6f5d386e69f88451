"""Finetuning of the digits network with block ReLUs: a fiftieth of CIFAR-10's schedule, from a trained checkpoint."""

_base_ = "../digits/resnet18_digits.py"

optimizer = dict(lr=0.02, weight_decay=5e-4, nesterov=True)
lr_config = dict(_delete_=True, policy="CosineAnnealing", min_lr=0)
runner = dict(max_epochs=10)
checkpoint_config = dict(interval=10)
evaluation = dict(interval=5, metric="accuracy", metric_options={"topk": (1,)})
log_config = dict(interval=11)
