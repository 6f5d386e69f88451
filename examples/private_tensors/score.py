"""The score of a linear model whose model, data and target are all hidden, of three different owners: only the accuracy comes out.

The client owns the patients, the server the model, and a registry, which is none of the parties, the diagnoses. Needs scikit-learn for its
breast cancer data.

    python examples/private_tensors/score.py
"""

import time

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from threepc import tensors

POLICY = {"accuracy": "client"}


def main() -> tuple[float, float]:
    """Print the accuracy as the three parties find it and as it is."""
    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    model = LogisticRegression(max_iter=1000).fit(features[::2], labels[::2])
    patients, diagnoses = features[1::2], labels[1::2]

    def job(p: tensors.Job) -> None:
        data = p.input("patients", patients.shape, owner="client", limit=100)
        target = p.input("diagnoses", diagnoses.shape, owner="registry", limit=1)
        weights, bias = p.input("weights", (patients.shape[1],), owner="server"), p.input("bias", (), owner="server")
        decided = data @ weights + bias > 0
        wrong = (decided - target) ** 2
        p.reveal(1 - wrong.mean(), to="client", name="accuracy")

    with tensors.local(tensors.trace(job), POLICY) as parties:
        began = time.perf_counter()
        server = {"weights": model.coef_[0], "bias": model.intercept_[0]}
        results = parties.run(client={"patients": patients}, server=server, owners={"diagnoses": diagnoses})
        seconds = time.perf_counter() - began
    found, wanted = float(results.client["accuracy"]), float(model.score(patients, diagnoses))
    print(f"accuracy {found:.4f} of a hidden model on {len(diagnoses)} hidden patients in {1000 * seconds:.0f} ms; it is {wanted:.4f}")
    return found, wanted


if __name__ == "__main__":
    main()
