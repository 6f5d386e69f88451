"""Federated averaging: five hospitals train a logistic regression, and of their gradients nobody ever sees more than the mean.

The weights are known to all five. In every step each hospital computes the gradient on its own patients and shares it out; the mean is revealed
to the coordinator, who is the client, and nothing else to anybody. Needs scikit-learn for its breast cancer data.

    python examples/private_tensors/federated.py [STEPS]
"""

import sys
import time

import numpy as np
from sklearn.datasets import load_breast_cancer

from threepc import tensors

HOSPITALS = [f"hospital {number}" for number in range(1, 6)]
RATE = 0.5


def patients() -> tuple[list[tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]:
    """(features, labels) of each hospital's patients, and of those held out; the last feature is 1."""
    features, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    features = (features - features.mean(0)) / features.std(0)
    features = np.concatenate([features, np.ones((len(labels), 1))], axis=1)[order]
    labels = labels[order]
    parts = list(zip(np.array_split(features[:400], len(HOSPITALS)), np.array_split(labels[:400], len(HOSPITALS)), strict=True))
    return parts, (features[400:], labels[400:])


def gradient(weights: np.ndarray, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the logistic loss, averaged over a hospital's patients."""
    predicted = 1 / (1 + np.exp(-features @ weights))
    mean: np.ndarray = features.T @ (predicted - labels) / len(labels)
    return mean


def accuracy(weights: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """Share of right decisions."""
    return float(np.mean((features @ weights > 0) == labels))


def main(steps: int = 2000) -> tuple[float, float, float]:
    """Train both ways and print how they did; the accuracies, and the largest difference of the weights."""
    parts, held_out = patients()
    size = held_out[0].shape[1]

    def job(p: tensors.Job) -> None:
        gradients = [p.input(name, (size,), owner=name, limit=100) for name in HOSPITALS]
        p.reveal(sum(gradients[1:], gradients[0]) / len(HOSPITALS), to="client", name="mean")

    private, plain = np.zeros(size), np.zeros(size)
    with tensors.local(tensors.trace(job), {"mean": "client"}) as parties:
        began = time.perf_counter()
        for _ in range(steps):
            own = {name: gradient(private, *part) for name, part in zip(HOSPITALS, parts, strict=True)}
            private -= RATE * parties.run(owners=own).client["mean"]
        seconds = time.perf_counter() - began
    for _ in range(steps):
        plain -= RATE * np.mean([gradient(plain, *part) for part in parts], axis=0)
    scores, difference = (accuracy(private, *held_out), accuracy(plain, *held_out)), np.abs(private - plain).max()
    print(f"{steps:,} steps of {len(HOSPITALS)} hospitals in {seconds:.1f} s, {1000 * seconds / steps:.1f} ms each")
    print(f"accuracy {scores[0]:.1%}, in the clear {scores[1]:.1%}; the weights differ by {difference:.1g} at most")
    return *scores, float(difference)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
