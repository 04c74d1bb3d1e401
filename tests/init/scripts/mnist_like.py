"""Image classification with batches, in the manner of the well-known first example."""

from __future__ import print_function

import argparse
import os

import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def train(args, weights, x, y, epoch, lr):
    order = np.random.permutation(len(x))
    for batch_idx, start in enumerate(range(0, len(x), args.batch_size)):
        rows = order[start : start + args.batch_size]
        error = x[rows] @ weights - y[rows]
        weights -= lr * x[rows].T @ error / len(rows)
        if batch_idx % args.log_interval == 0:
            print(
                "Train Epoch: {} [{}/{} ({:.0f}%)]\tLoss: {:.6f}".format(
                    epoch, start, len(x), 100.0 * start / len(x), float((error**2).mean())
                )
            )


def test(weights, x, y):
    error = x @ weights - y
    test_loss = float((error**2).mean())
    correct = int((abs(error) < 0.5).sum())

    print(
        "\nTest set: Average loss: {:.4f}, Accuracy: {}/{} ({:.0f}%)\n".format(
            test_loss, correct, len(x), 100.0 * correct / len(x)
        )
    )


def main():
    parser = argparse.ArgumentParser(description="Digits")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="input batch size for training (default: 64)"
    )
    parser.add_argument("--test-batch-size", type=int, default=1000, metavar="N")
    parser.add_argument("--epochs", type=int, default=14, metavar="N")
    parser.add_argument("--lr", type=float, default=1.0, metavar="LR", help="learning rate (default: 1.0)")
    parser.add_argument("--gamma", type=float, default=0.7, metavar="M", help="Learning rate step gamma")
    parser.add_argument("--no-accel", action="store_true", help="disables accelerator")
    parser.add_argument("--dry-run", action="store_true", help="quickly check a single pass")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="random seed (default: 1)")
    parser.add_argument("--log-interval", type=int, default=10, metavar="N")
    parser.add_argument("--save-model", action="store_true", help="For saving the current model")
    args = parser.parse_args()

    np.random.seed(args.seed)
    x = np.random.randn(256, 4)
    y = x @ np.arange(4.0)
    weights, lr = np.zeros(4), args.lr / 10
    for epoch in range(1, args.epochs + 1):
        train(args, weights, x, y, epoch, lr)
        test(weights, x, y)
        lr *= args.gamma
    if args.save_model:
        np.save("mnist_cnn", weights)


if __name__ == "__main__":
    main()
