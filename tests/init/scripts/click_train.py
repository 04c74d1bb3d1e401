"""Options of click, a checkpoint file of its own, and resuming."""

import json
from pathlib import Path

import click


@click.group()
def cli():
    """Train and evaluate."""


@cli.command()
@click.option("--learning-rate", "-l", type=float, default=0.01, show_default=True)
@click.option("--batch-size", default=32)
@click.option("--optimizer", type=click.Choice(["sgd", "adam", "rmsprop"]), default="adam")
@click.option("--augment/--no-augment", default=False, help="Flip images.")
@click.option("--epochs", type=int, default=20)
@click.option("--checkpoint-dir", type=click.Path(path_type=Path), default=Path("checkpoints"))
@click.option("--resume", type=click.Path(exists=True, path_type=Path), default=None, help="A checkpoint.")
@click.option("--num-workers", default=2)
def train(learning_rate, batch_size, optimizer, augment, epochs, checkpoint_dir, resume, num_workers):
    """Train a model."""
    start_epoch = 0
    if resume is not None:
        start_epoch = json.loads(resume.read_text())["epoch"]
        click.echo(f"resuming after epoch {start_epoch}")
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    for epoch in range(start_epoch, epochs):
        loss = abs(learning_rate - 0.03) + 1 / (epoch + 1)
        val_accuracy = 1 / (1 + loss + 0.1 * augment)
        click.echo(f"[{epoch + 1}/{epochs}] train_loss={loss:.4f} val_accuracy={val_accuracy:.4f}")
        path = checkpoint_dir / "last.json"
        path.write_text(json.dumps({"epoch": epoch + 1, "optimizer": optimizer}))


@cli.command()
@click.argument("checkpoint")
def evaluate(checkpoint):
    """Evaluate a model."""


if __name__ == "__main__":
    cli()
