"""No arguments at all."""

import numpy as np

LEARNING_RATE = 0.1
BATCH_SIZE = 32
EPOCHS = 5

w = np.zeros(3)
for epoch in range(EPOCHS):
    w -= LEARNING_RATE * 2 * (w - 3)
    print(f"epoch {epoch} loss {float(((w - 3) ** 2).sum()):.4f}")
