"""Softmax regression on scikit-learn's handwritten digits, in NumPy; knows nothing of hpcsweep."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Floats = NDArray[np.float64]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--l2", type=float, default=1e-4)
    parser.add_argument("--epochs", type=int, default=5, help="train up to this epoch")
    parser.add_argument("--resume", default="", help="folder with the weights to go on from")
    parser.add_argument("--save", default="", help="folder for the weights")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def probabilities(images: Floats, weights: Floats) -> Floats:
    """Of each class, `(n, 10)`, for images `(n, 65)` and weights `(65, 10)`."""
    scores = images @ weights
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def main() -> None:
    """Train, print the validation error after each epoch, and save the weights."""
    options = arguments()
    images, labels = load_digits(return_X_y=True)
    images = np.hstack([images / 16, np.ones((len(images), 1))])
    order = np.random.default_rng(0).permutation(len(images))
    train, validation = order[360:], order[:360]
    targets = np.eye(10)[labels]

    first, weights = 1, np.zeros((images.shape[1], 10))
    if options.resume:
        saved = np.load(Path(options.resume, "weights.npz"))
        first, weights = int(saved["epoch"]) + 1, saved["weights"]

    for epoch in range(first, options.epochs + 1):
        # One generator for each epoch: going on from a file gives the same order as never stopping.
        shuffled = np.random.default_rng([options.seed, epoch]).permutation(train)
        for begin in range(0, len(shuffled), options.batch_size):
            batch = shuffled[begin : begin + options.batch_size]
            wrong = probabilities(images[batch], weights) - targets[batch]
            weights -= options.lr * (images[batch].T @ wrong / len(batch) + options.l2 * weights)
        answers = probabilities(images[validation], weights).argmax(axis=1)
        print(f"epoch={epoch} val_error={np.mean(answers != labels[validation]):.4f}", flush=True)

    if options.save:
        np.savez(Path(options.save, "weights.npz"), epoch=options.epochs, weights=weights)


if __name__ == "__main__":
    main()
