"""A network on scikit-learn's handwritten digits that is to be both right and small: two objectives.

Plain numpy, no download: a layer of rectified units between the 64 pixels and the 10 digits, trained by
stochastic gradient descent with momentum. `size` is the number of weights that the network multiplies by.

By hand, without any sweep: `python digits_front.py` trains one configuration for nine epochs.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpcsweep import Trial, current_trial

Floats: TypeAlias = NDArray[np.float64]

#: The split is the same for all trials: they are compared on the same images.
SPLIT_SEED = 20_240_917
VALIDATION = 360


def load_digits() -> tuple[Floats, NDArray[np.int64]]:
    """Images `(1797, 64)` in 0..1 and labels `(1797,)`, read straight from scikit-learn's package."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ImportError("the digits come with scikit-learn: pip install scikit-learn")
    with gzip.open(Path(package.origin).parent / "datasets/data/digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :64] / 16, table[:, 64].astype(np.int64)


class Network:
    """64 pixels, `width` rectified units, 10 scores; each image is first shrunk to `pixels` by `pixels`."""

    def __init__(self, width: int, pixels: int, rng: np.random.Generator) -> None:
        self.pixels = pixels
        sizes = (pixels * pixels, width, 10)
        self.weights = [rng.normal(0, np.sqrt(2 / m), (m, n)) for m, n in pairwise(sizes)]
        self.moments = [np.zeros_like(weights) for weights in self.weights]

    @property
    def size(self) -> int:
        """Weights that are multiplied for each image."""
        return sum(weights.size for weights in self.weights)

    def shrunk(self, images: Floats) -> Floats:
        """Means over squares of pixels, `(n, pixels * pixels)`."""
        side = 8 // self.pixels
        squares = images.reshape(-1, self.pixels, side, self.pixels, side)
        means: Floats = squares.mean(axis=(2, 4)).reshape(len(images), -1)
        return means

    def step(self, images: Floats, labels: NDArray[np.int64], *, lr: float, momentum: float) -> None:
        """One step against the gradient of the cross-entropy."""
        hidden = np.maximum(images @ self.weights[0], 0)
        scores = hidden @ self.weights[1]
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(labels)), labels] -= 1
        shares /= len(labels)
        back = (shares @ self.weights[1].T) * (hidden > 0)
        for weights, moment, gradient in zip(
            self.weights, self.moments, (images.T @ back, hidden.T @ shares), strict=True
        ):
            moment *= momentum
            moment -= lr * gradient
            weights += moment

    def error(self, images: Floats, labels: NDArray[np.int64]) -> float:
        """Share of wrong answers."""
        scores = np.maximum(images @ self.weights[0], 0) @ self.weights[1]
        return float((scores.argmax(axis=1) != labels).mean())


def train(trial: Trial) -> None:
    """Train up to `trial.resource` epochs; reports `val_error` and `size` after each."""
    images, labels = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    held_out, own = order[:VALIDATION], order[VALIDATION:]
    config = trial.config
    network = Network(config["width"], config["pixels"], np.random.default_rng(trial.seed))
    if trial.resume_from is not None:
        with np.load(trial.resume_from / "state.npz") as saved:
            network.weights, network.moments = ([saved[f"{name}{n}"] for n in (0, 1)] for name in "wm")
    shrunk = network.shrunk(images)
    for epoch in trial.steps():
        shuffled = np.random.default_rng([trial.seed, epoch]).permutation(own)  # the same after a restart
        for batch in np.array_split(shuffled, len(own) // 32):
            network.step(shrunk[batch], labels[batch], lr=config["lr"], momentum=config["momentum"])
        trial.report(epoch, val_error=network.error(shrunk[held_out], labels[held_out]), size=network.size)
        with trial.checkpoint(epoch) as folder:
            (w0, w1), (m0, m1) = network.weights, network.moments
            np.savez(folder / "state.npz", w0=w0, w1=w1, m0=m0, m1=m1)


if __name__ == "__main__":
    train(current_trial(lr=0.1, momentum=0.9, width=32, pixels=8, resource=9))
