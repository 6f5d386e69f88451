"""Two private matrix products: a client's data with a server's weights, and two matrices that both parties' owners keep hidden, side by side.

python examples/private_tensors/products.py
"""

import time

import numpy as np

from threepc import tensors

ROWS, DEPTH, COLUMNS = 64, 128, 32


def job(p: tensors.Job) -> None:
    """The client is shown its data's product with the weights, the server the product of two data owners' matrices."""
    data = p.input("data", (ROWS, DEPTH), owner="client", limit=10)
    weights = p.input("weights", (DEPTH, COLUMNS), owner="server", limit=10)
    p.reveal(data @ weights, to="client", name="scores")
    left = p.input("left", (ROWS, DEPTH), owner="a bank", limit=10)
    right = p.input("right", (DEPTH, COLUMNS), owner="a shop", limit=10)
    p.reveal(left @ right, to="server", name="joined")


POLICY = {"scores": "client", "joined": "server"}


def main() -> tuple[float, float]:
    """Run both and print what came out; the largest errors of the two."""
    rng = np.random.default_rng(0)
    data, left = rng.standard_normal((2, ROWS, DEPTH))
    weights, right = rng.standard_normal((2, DEPTH, COLUMNS))
    with tensors.local(tensors.trace(job), POLICY) as parties:
        began = time.perf_counter()
        results = parties.run(client={"data": data}, server={"weights": weights}, owners={"left": left, "right": right})
        seconds = time.perf_counter() - began
    errors = np.abs(results.client["scores"] - data @ weights).max(), np.abs(results.server["joined"] - left @ right).max()
    print(
        f"both products of {ROWS}x{DEPTH} and {DEPTH}x{COLUMNS} in {1000 * seconds:.0f} ms; largest errors {errors[0]:.1g}, {errors[1]:.1g}"
    )
    return float(errors[0]), float(errors[1])


if __name__ == "__main__":
    main()
