"""Patterns for printed lines: they match what the program really prints, and find its numbers."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcsweep.init.names import metric_name, mode_of, rank
from hpcsweep.init.printed import read_lines
from hpcsweep.init.sources import Source

#: What the snippets below find.
NAMES: dict[str, Any] = {
    "json": json,
    "math": __import__("math"),
    "epoch": 3,
    "epochs": 10,
    "i": 7,
    "lr": 0.001,
    "loss": 0.25,
    "val_loss": 0.5,
    "train_loss": 0.125,
    "acc": 0.75,
    "correct": 75,
    "total": 100,
    "elapsed": 12.5,
    "losses": {"train": 0.125, "val": 0.5},
    "meter": SimpleNamespace(val=0.4, avg=0.5),
    "metrics": {"val/loss": 0.5},
}


def printed(code: str) -> list[str]:
    """The lines that a snippet prints or logs."""
    out = io.StringIO()
    logger = logging.Logger("snippet")
    logger.addHandler(logging.StreamHandler(out))
    with contextlib.redirect_stdout(out):
        exec(code, {**NAMES, "logger": logger, "logging": logger, "sys": sys})
    return out.getvalue().splitlines()


def found(code: str) -> dict[str, str]:
    """What the proposed patterns find in these lines."""
    values: dict[str, str] = {}
    for line in read_lines(Source(Path("train.py"), code)):
        for text in printed(code):
            match = re.search(line.pattern, text)
            if match:
                values |= match.groupdict()
    return values


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ('print(f"Epoch {epoch}: val loss {val_loss:.3f}")', {"step": "3", "val_loss": "0.500"}),
        ('print(f"Epoch {epoch}/{epochs} loss: {loss:.4f}")', {"step": "3", "loss": "0.2500"}),
        ('print("epoch", epoch, "train loss", loss)', {"step": "3", "train_loss": "0.25"}),
        ("print(epoch, val_loss)", {"step": "3", "val_loss": "0.5"}),
        ("print(val_loss)", {"val_loss": "0.5"}),
        (
            'print("epoch %d | valid loss %5.2f | ppl %8.2f" % (epoch, val_loss, math.exp(val_loss)))',
            {"step": "3", "val_loss": "0.50", "val_ppl": "1.65"},
        ),
        (
            'print("| end of epoch {:3d} | {:5.2f}s | valid loss {:5.2f}".format(epoch, elapsed, val_loss))',
            {"step": "3", "val_loss": "0.50"},
        ),
        (
            'print("Test set: loss: {:.4f}, Accuracy: {}/{} ({:.0f}%)".format(loss, correct, total, 75.0))',
            {"test_loss": "0.2500", "test_accuracy": "75"},
        ),
        (
            'print("\\nTest:\\n loss {0:.2f} f1 {1:.2f}".format(loss, acc))',
            {"test_loss": "0.25", "test_f1": "0.75"},
        ),
        ('print("Loss {meter.val:.4f} ({meter.avg:.4f})".format(meter=meter))', {"loss": "0.4000"}),
        (
            "print(f\"step {i}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}\")",
            {"step": "7", "train_loss": "0.1250", "val_loss": "0.5000"},
        ),
        ('print({"epoch": epoch, "val_loss": val_loss})', {"step": "3", "val_loss": "0.5"}),
        ('print(json.dumps({"epoch": epoch, "val_acc": acc}))', {"step": "3", "val_acc": "0.75"}),
        ("print(dict(epoch=epoch, loss=loss))", {"step": "3", "loss": "0.25"}),
        ('print("accuracy: " + str(round(acc, 2)))', {"accuracy": "0.75"}),
        ('message = f"epoch {epoch} error {1 - acc:.2f}"\nprint(message)', {"step": "3", "error": "0.25"}),
        ('logger.info("epoch %d val_loss %.4f", epoch, val_loss)', {"step": "3", "val_loss": "0.5000"}),
        ('logging.info(f"[{epoch:03d}] acc={acc:.1%} in {elapsed:.1f}s")', {"step": "003", "acc": "75.0%"}),
        ('sys.stdout.write(f"\\repoch {epoch} loss {loss}\\n")', {"step": "3", "loss": "0.25"}),
        ('print(f"epoch {epoch}\\tlr {lr}\\tval_loss {val_loss}")', {"step": "3", "val_loss": "0.5"}),
        ('print(f"loss: {loss:.4f} - val_loss: {val_loss:.4f}")', {"loss": "0.2500", "val_loss": "0.5000"}),
        ('print(f"[{epoch}/{epochs}] (loss) {loss:>8.4f} *")', {"step": "3", "loss": "0.2500"}),
        ('print(f"Acc@1 {acc:.3f} Acc@5 {acc:.3f}")', {"acc_1": "0.750", "acc_5": "0.750"}),
    ],
)
def test_a_pattern_finds_the_numbers_in_what_is_printed(code: str, values: dict[str, str]) -> None:
    assert found(code) == values


@pytest.mark.parametrize(
    "code",
    [
        'print(f"lr {lr}, time {elapsed}")',
        'print("=" * 89)',
        'print("saving the best model")',
        'print(f"{epoch}/{epochs} done")',
        'logger.info("%d parameters", total)',
    ],
)
def test_a_line_without_a_metric_has_no_pattern(code: str) -> None:
    assert list(read_lines(Source(Path("train.py"), code))) == []


@pytest.mark.parametrize(
    ("loop", "shown", "first"),
    [
        ("for epoch in range(epochs):", "epoch", 0),
        ("for epoch in range(epochs):", "epoch + 1", 1),
        ("for epoch in range(1, epochs + 1):", "epoch", 1),
        ("for epoch in tqdm(range(0, epochs)):", "epoch", 0),
        ("for epoch in trange(epochs):", "1 + epoch", 1),
        ("start = 0\nfor epoch in range(start, epochs):", "epoch", 0),
        ("for epoch, batch in enumerate(loader):", "epoch", 0),
        ("for epoch in enumerate(loader, 1):", "epoch", 1),
        ("for epoch in itertools.count(1):", "epoch", 1),
        ("for epoch in schedule():", "epoch", None),
        ("epoch = 0\nwhile epoch < epochs:", "epoch", None),
    ],
)
def test_the_first_step_is_that_of_the_loop(loop: str, shown: str, first: int | None) -> None:
    source = Source(Path("train.py"), f'{loop}\n    print(f"epoch {{{shown}}} loss {{loss}}")\n')
    (line,) = read_lines(source)
    assert (line.first_step, line.repeated) == (first, True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Average val loss", "val_loss"),
        ("valLoss", "val_loss"),
        ("validation accuracy", "val_accuracy"),
        ("train_losses", "train_loss"),
        ("Dev F1", "val_f1"),
        ("eval/auc", "val_auc"),
        ("best acc", "best_acc"),
        ("time", ""),
        ("lr", ""),
    ],
)
def test_metrics_are_named_alike(text: str, name: str) -> None:
    assert metric_name(text) == name


def test_validation_comes_before_test_before_training_and_loss_before_accuracy() -> None:
    names = ["train_loss", "best_val_loss", "test_acc", "val_acc", "loss", "test_loss", "val_loss"]
    assert sorted(names, key=rank) == [
        "val_loss",
        "val_acc",
        "test_loss",
        "test_acc",
        "loss",
        "train_loss",
        "best_val_loss",
    ]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("val_loss", "min"), ("test_accuracy", "max"), ("val_acc_1", "max"), ("error", "min"), ("f1", "max")],
)
def test_the_mode_follows_from_the_name(name: str, mode: str) -> None:
    assert mode_of(name) == mode
