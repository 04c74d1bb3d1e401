"""A signature of typer."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer()


class Activation(str, Enum):
    relu = "relu"
    gelu = "gelu"


@app.command()
def main(
    lr: float = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 0.0,
    hidden_size: int = typer.Option(128, help="Width."),
    activation: Activation = Activation.relu,
    batch_norm: bool = True,
    epochs: int = 10,
    output_dir: Path = Path("runs"),
    seed: Optional[int] = None,
):
    for epoch in range(1, epochs + 1):
        error = (lr - 0.01) ** 2 + weight_decay + 1 / epoch + 10 / hidden_size - 0.01 * batch_norm
        print("Epoch", epoch, "validation error:", error)


if __name__ == "__main__":
    app()
