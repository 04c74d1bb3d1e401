"""Reads the environment."""

import os

LR = float(os.environ.get("LR", "0.1"))
DROPOUT = float(os.getenv("DROPOUT", 0.5))
EPOCHS = int(os.environ.get("EPOCHS", 10))

for epoch in range(1, EPOCHS + 1):
    print(
        f"Epoch {epoch:02d} - loss: {abs(LR - 0.2) + 1 / epoch:.4f} - val_loss: {abs(LR - 0.2) + 1.2 / epoch + DROPOUT:.4f}"
    )
