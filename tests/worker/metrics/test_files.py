"""Which files are followed, and what is told of a metric that never came."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcsweep.worker.metrics.files import guess_kind

from .following import Following


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("{output_dir}/metrics.csv", "csv"),
        ("m.TSV", "csv"),
        ("lightning_logs/version_*/metrics.csv", "csv"),
        ("log.jsonl", "jsonl"),
        ("log.ndjson", "jsonl"),
        ("results.json", "json"),
        ("out/trainer_state.json", "trainer_state"),
        ("runs/*/events.out.tfevents.*", "tensorboard"),
        ("{output_dir}/wandb", "wandb"),
        ("wandb/offline-run-*/*.wandb", "wandb"),
        ("mlruns/", "mlflow"),
        ("{output_dir}/mlflow.db", "mlflow"),
        ("log.txt", None),
        ("runs", None),
    ],
)
def test_the_kind_of_a_file_follows_from_its_name(file: str, kind: str | None) -> None:
    assert guess_kind(file) == kind


def test_a_pattern_finds_what_appears_after_the_attempt_began(tmp_path: Path) -> None:
    (tmp_path / "logs/version_0").mkdir(parents=True)
    (tmp_path / "logs/version_0/metrics.csv").write_text("loss\n9\n")
    followed = Following(tmp_path, "logs/version_*/metrics.csv")
    assert followed.new() == []
    (tmp_path / "logs/version_1").mkdir()
    (tmp_path / "logs/version_1/metrics.csv").write_text("loss\n0.5\n")
    assert followed.new() == [(1, {"loss": 0.5})]
    assert followed.rest() == []


def test_values_of_placeholders_and_the_folder_are_no_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1]*"
    (folder / "a*b").mkdir(parents=True)
    (folder / "axb").mkdir()
    followed = Following(folder, "{name}/m {{1}}.csv", placeholders={"name": "a*b"})
    for name in ("a*b", "axb"):
        (folder / name / "m {1}.csv").write_text(f"{name}\n1\n")
    assert followed.rest() == [(1, {"a*b": 1})]


def test_an_absolute_path_needs_no_working_directory(tmp_path: Path) -> None:
    followed = Following(Path("/nowhere"), "{output_dir}/m.csv", placeholders={"output_dir": str(tmp_path)})
    (tmp_path / "m.csv").write_text("loss\n1\n")
    assert followed.rest() == [(1, {"loss": 1})]


@pytest.mark.parametrize(
    ("file", "text", "step", "seen"),
    [
        ("m.csv", None, "", "there is no file {0}/m.csv"),
        ("*/m.csv", None, "", "nothing matches {0}/*/m.csv"),
        ("m.csv", "", "", "{0}/m.csv has no columns yet"),
        (
            "m.csv",
            "epoch,val_loss\n1,2\n",
            "",
            "the columns of {0}/m.csv are 'epoch', 'val_loss'; did you mean 'val_loss'?",
        ),
        ("m.csv", "a\n1\n", "", "the columns of {0}/m.csv are 'a'"),
        (
            "m.json",
            '{{"valid": {{"loss": 1}}}}',
            "",
            "the keys of {0}/m.json are 'valid.loss'; did you mean 'valid.loss'?",
        ),
        (
            "m.csv",
            "val/loss\n1\n",
            "epoch",
            "the columns of {0}/m.csv are 'val/loss', without the step 'epoch'",
        ),
        (
            "m.csv",
            "epoch,val/loss\n0.5,1\n",
            "epoch",
            (
                "the columns of {0}/m.csv are 'epoch', 'val/loss'; its step 'epoch' was '0.5', "
                "which is no whole number from 0 on; `step: rows` counts rows"
            ),
        ),
    ],
)
def test_a_metric_that_never_came_is_told_with_what_was_seen(
    tmp_path: Path, file: str, text: str | None, step: str, seen: str
) -> None:
    followed = Following(tmp_path, file, step=step, values={"error": "val/loss"})
    if text is not None:
        (tmp_path / file).write_text(text.format())
    followed.rest()
    assert followed.metrics.seen("error") == seen.format(tmp_path)


def test_a_file_of_before_and_one_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("loss\n1\n")
    followed = Following(tmp_path, "m.csv")
    assert followed.rest() == []
    assert followed.metrics.seen("loss") == f"{tmp_path}/m.csv has not changed since this attempt began"
    os.unlink(tmp_path / "m.csv")
    os.mkfifo(tmp_path / "m.csv")
    assert followed.rest() == []
    assert followed.metrics.seen("loss").startswith(f"{tmp_path}/m.csv ")
