"""Tabulates error and size of networks on scikit-learn's digits: `python -m benchmarks.digits_front`.

Each row of `digits_front.csv` is a configuration of a multi-layer perceptron with its share of errors on a
held-out third, the mean of two trainings, and its number of weights in thousands.
"""

from __future__ import annotations

import csv
import itertools
import warnings
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("digits_front.csv")
WIDTHS: Final = (4, 8, 12, 16, 24, 32, 64, 128)
SECOND: Final = (0, 4, 8, 16, 32, 64)
RATES: Final = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EPOCHS: Final = 15


def measure(first: int, second: int, rate: float) -> tuple[float, float]:
    """Share of errors, and weights in thousands."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x / 16, y, test_size=1 / 3, random_state=0)
    layers = (first, second) if second else (first,)
    errors: list[float] = []
    weights = 0
    for seed in range(2):
        network = MLPClassifier(layers, learning_rate_init=rate, max_iter=EPOCHS, random_state=seed)
        network.fit(train_x, train_y)
        errors.append(1 - float(network.score(test_x, test_y)))
        weights = sum(matrix.size + len(matrix[0]) for matrix in network.coefs_)
    return sum(errors) / len(errors), weights / 1000


def main() -> None:
    """Train them all, in about two minutes."""
    warnings.simplefilter("ignore")
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["first", "second", "rate", "error", "size"])
        for first, second, rate in itertools.product(WIDTHS, SECOND, RATES):
            error, size = measure(first, second, rate)
            writer.writerow([first, second, rate, f"{error:.5f}", f"{size:.3f}"])


if __name__ == "__main__":
    main()
