"""Positions of sys.argv."""

import sys

lr = float(sys.argv[1])
batch_size = int(sys.argv[2])
n_epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 9

w = 0.0
for epoch in range(n_epochs):
    w -= lr * 2 * (w - 3)
    print("epoch %d: train loss %.4f, validation loss %.4f" % (epoch, (w - 3) ** 2, (w - 3.1) ** 2))
