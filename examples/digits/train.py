#!/usr/bin/env python
"""Trains the network of the demo: some minutes on two cores, no GPU, no download.

    .venv/bin/python examples/digits/train.py

writes, next to itself, resnet18_digits.pth (as mmcls saves it), the first held-out image of each digit to images/, and their labels
to labels.json. The same seed on the same machine with as many threads gives the same network.
"""

import json
import logging
import random
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from rich.progress import Progress

from threepc.mmlab.compat import import_mmlab, known_warnings_silenced
from threepc.mmlab.configs import read_config
from threepc.mmlab.digits import Digits, digits

import_mmlab()

from mmcls.datasets import build_dataset  # noqa: E402
from mmcls.models import build_classifier  # noqa: E402
from mmcv.runner import save_checkpoint  # noqa: E402

HERE = Path(__file__).parent


def train(seed: int, epochs: int, progress: Progress) -> tuple[torch.nn.Module, float]:
    """Train with SGD under a one-cycle schedule; returns the classifier and its accuracy on the held-out images."""
    logging.disable(logging.INFO)  # mmcv reports every parameter's initialisation
    random.seed(seed)  # mmcls draws its crops from here
    torch.manual_seed(seed)
    config = read_config(str(HERE / "resnet18_digits.py"))
    with known_warnings_silenced():
        model = build_classifier(config.model)
    model.init_weights()
    dataset = build_dataset(config.data.train)
    loader = torch.utils.data.DataLoader(dataset, config.data.samples_per_gpu, shuffle=True, drop_last=True, collate_fn=collate)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=epochs * len(loader))
    task = progress.add_task("training", total=epochs * len(loader))
    for _ in range(epochs):
        model.train()
        for images, labels in loader:
            loss = model.forward_train(images, labels)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.update(task, advance=1, description=f"training, loss {loss.item():.3f}")
    return model, accuracy(model, build_dataset(config.data.test))


def collate(samples: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of the pipeline's samples: images (N, 3, 32, 32) and labels (N,)."""
    return torch.stack([sample["img"] for sample in samples]), torch.stack([sample["gt_label"] for sample in samples])


def accuracy(model: torch.nn.Module, dataset: Digits) -> float:
    """The share of the dataset's images whose largest logit is the right one."""
    model.eval()
    images = torch.stack([dataset[i]["img"] for i in range(len(dataset))])
    with torch.no_grad():
        logits = torch.cat([model.simple_test(part, None, softmax=False, post_process=False) for part in images.split(60)])
    return float((logits.argmax(1).numpy() == dataset.get_gt_labels()).mean())


def write_images() -> None:
    """The first held-out image of each digit, as PNG, and the labels by file name."""
    images, labels = digits(held_out=True)
    (HERE / "images").mkdir(exist_ok=True)
    by_name = {}
    for digit in range(10):
        name = f"digit_{digit}.png"
        cv2.imwrite(str(HERE / "images" / name), images[np.flatnonzero(labels == digit)[0]])
        by_name[name] = digit
    (HERE / "labels.json").write_text(json.dumps(by_name, indent=2) + "\n")


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", default=15, show_default=True)
def main(seed: int, epochs: int) -> None:
    """Train, state the held-out accuracy, write checkpoint, images and labels."""
    with Progress() as progress:
        model, held_out = train(seed, epochs, progress)
    target = HERE / "resnet18_digits.pth"
    unfinished = target.with_suffix(".new.pth")
    meta = {"CLASSES": Digits.CLASSES, "seed": seed, "epochs": epochs, "held_out_accuracy": held_out}
    save_checkpoint(model, str(unfinished), meta=meta)
    unfinished.replace(target)
    write_images()
    print(f"held-out accuracy {held_out:.2%}; wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
