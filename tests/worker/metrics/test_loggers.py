"""Metrics in the files of TensorBoard, W&B and MLflow, which the real packages have made."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .following import Following, Found

FIXTURES = Path(__file__).parents[2] / "fixtures/metrics"
LOSS = [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
ACC = [(1, 0.0), (2, 0.5), (3, 1.0)]
BOTH = {"error": "val/loss", "acc": "acc"}


def of(found: Found, name: str) -> list[tuple[int, float]]:
    return [(step, metrics[name]) for step, metrics in found if name in metrics]


@pytest.mark.parametrize(
    ("path", "file", "step", "values"),
    [
        ("tensorboard", "tensorboard", "epoch", BOTH),
        ("tensorboard", "tensorboard/events*", "epoch", BOTH),
        ("tensors", "*/events.out.tfevents.*", "", BOTH),
        ("wandb", "wandb", "epoch", {**BOTH, "acc": "metrics.acc"}),
        ("wandb", "wandb/offline-run-*/*.wandb", "epoch", {**BOTH, "acc": "metrics/acc"}),
        ("wandb", ".", "epoch", {**BOTH, "acc": "metrics.acc"}),
        ("mlruns", "mlruns", "", BOTH),
        ("mlruns", "mlruns", "rows", BOTH),
        ("mlruns", ".", "", BOTH),
        ("mlflow.db", "mlflow.db", "", BOTH),
        ("mlflow.db", "mlruns/", "", BOTH),
        ("mlflow.db", ".", "", BOTH),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_the_files_of_loggers_are_read(
    tmp_path: Path, path: str, file: str, step: str, values: dict[str, str], begun: bool
) -> None:
    kind = {"tensors": "tensorboard", "mlruns": "mlflow", "mlflow.db": "mlflow"}.get(path, path)

    def appear() -> None:
        if (FIXTURES / path).is_dir():
            shutil.copytree(FIXTURES / path, tmp_path / path)
        else:
            shutil.copy(FIXTURES / path, tmp_path / path)

    if begun:
        appear()
    followed = Following(tmp_path, file, kind=kind, step=step, values=values)
    if not begun:
        appear()
    found = followed.new() + followed.rest()
    assert (of(found, "error"), of(found, "acc")) == (([], []) if begun else (LOSS, ACC))


def test_steps_of_their_own_are_the_default_and_all_numbers_are_metrics(tmp_path: Path) -> None:
    followed = {
        "tensorboard": Following(tmp_path, "tensorboard", kind="tensorboard"),
        "wandb": Following(tmp_path, "wandb"),
        "mlruns": Following(tmp_path, "mlruns"),
    }
    for path in followed:
        shutil.copytree(FIXTURES / path, tmp_path / path)
    found = {path: each.rest() for path, each in followed.items()}
    assert found["tensorboard"] == [
        (10, {"val/loss": 1.0, "acc": 0.0, "epoch": 1.0}),
        (20, {"val/loss": 0.5, "acc": 0.5, "epoch": 2.0}),
        (30, {"val/loss": pytest.approx(1 / 3), "acc": 1.0, "epoch": 3.0}),
    ]
    assert of(found["wandb"], "val/loss") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert [(step, math.isnan(value)) for step, value in of(found["wandb"], "nan")] == [(3, True)]
    assert [(step, math.isnan(value)) for step, value in of(found["mlruns"], "nan")] == [(3, True)]


@pytest.mark.parametrize("begun", [False, True])
def test_the_summary_of_wandb_is_the_last_resort_for_what_stands_nowhere_else(
    tmp_path: Path, begun: bool
) -> None:
    shutil.copytree(FIXTURES / "wandb", tmp_path / "made")
    (run,) = (tmp_path / "made").glob("offline-run-*")
    (run / "files").mkdir(exist_ok=True)
    summary = {"val/loss": 9.0, "best": 0.25, "note": "x", "_step": 3, "_wandb": {"runtime": 4}}
    (run / "files" / "wandb-summary.json").write_text(json.dumps(summary))
    if begun:
        (tmp_path / "made").rename(tmp_path / "wandb")
    followed = Following(tmp_path, "wandb", values={"error": "best", "loss": "val/loss"})
    if not begun:
        (tmp_path / "made").rename(tmp_path / "wandb")
    assert of(followed.new(), "error") == []
    found = followed.rest()
    assert of(found, "error") == ([] if begun else [(9, 0.25)])
    assert (9, 9.0) not in of(found, "loss")


@pytest.mark.parametrize("piece", [1, 100])
@pytest.mark.parametrize(("path", "step"), [("tensorboard", "epoch"), ("wandb", "epoch")])
def test_a_record_that_is_not_whole_yet_waits(tmp_path: Path, path: str, step: str, piece: int) -> None:
    (source,) = (each for each in (FIXTURES / path).rglob("*") if each.is_file())
    data, copy = source.read_bytes(), tmp_path / source.name
    followed = Following(tmp_path, source.name, kind=path, step=step, values={"error": "val/loss"})
    found: Found = []
    with copy.open("wb", buffering=0) as file:
        for begin in range(0, 3000, piece):
            file.write(data[begin : begin + piece])
            found += followed.new()
        file.write(data[3000:])
    found += followed.rest()
    assert of(found, "error") == LOSS


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("e.tfevents.1", b"\xff" * 40),
        ("e.tfevents.1", struct.pack("<QI", 3, 0) + b"\x08\xff\xff" + b"\0" * 4),
        ("x.wandb", b"no such file"),
        ("x.wandb", b":W&B\xe1\xbe\x00" + b"\xff" * 40),
        ("mlflow.db", b"no database" * 100),
        ("m.json", b"{"),
        ("m.json", b"[" * 200_000),
        ("trainer_state.json", b"{}"),
    ],
)
def test_a_damaged_file_is_told_and_ends_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    followed = Following(tmp_path, name)
    (tmp_path / name).write_bytes(data)
    assert followed.new() + followed.rest() == []
    assert followed.metrics.seen("loss").startswith(f"{tmp_path / name} ")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    followed.rest()


def test_a_database_without_tables_yet_is_read_once_it_has_them(tmp_path: Path) -> None:
    followed = Following(tmp_path, "mlflow.db", values={"error": "val/loss"})
    database = sqlite3.connect(tmp_path / "mlflow.db")
    assert followed.new() == []
    database.execute("CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan)")
    database.execute("INSERT INTO metrics VALUES ('val/loss', 0.5, 0, 'x', 1, 0)")
    database.commit()
    assert followed.new() == [(1, {"error": 0.5})]
    database.execute("INSERT INTO metrics VALUES ('val/loss', 0.25, 0, 'x', 2, 0)")
    database.commit()
    database.close()
    assert followed.rest() == [(2, {"error": 0.25})]


@pytest.mark.parametrize("path", ["tensorboard", "tensors", "wandb"])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_bytes_of_a_log_make_its_reader_fail(path: str, data: st.DataObject) -> None:
    (source,) = (each for each in (FIXTURES / path).rglob("*") if each.is_file())
    damaged = bytearray(source.read_bytes()[:3000])
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        followed = Following(Path(name), source.name, kind="wandb" if path == "wandb" else "tensorboard")
        (Path(name) / source.name).write_bytes(damaged)
        followed.new()
        followed.rest()
