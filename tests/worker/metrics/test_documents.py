"""Metrics in JSON documents that are written again as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .following import Following, Found

DOCUMENTS: dict[str, tuple[Any, dict[str, Any], Found]] = {
    "a list of objects: a row for each": (
        [{"loss": 0.5}, {"loss": 0.25, "acc": 1}],
        {},
        [(1, {"loss": 0.5}), (2, {"loss": 0.25}), (1, {"acc": 1})],
    ),
    "with a step": ([{"epoch": 3, "loss": 0.5}], {"step": "epoch"}, [(3, {"loss": 0.5})]),
    "an object of lists, as Keras has its history": (
        {"loss": [0.5, 0.25], "val": {"loss": [2, 1]}, "params": {"lr": 0.1}},
        {"values": {"loss": "loss", "val/loss": "val/loss"}},
        [(1, {"loss": 0.5, "val/loss": 2}), (2, {"loss": 0.25, "val/loss": 1})],
    ),
    "numbers without a step are the result, at the resource": (
        {"test_score": 0.9, "fit_time": 3},
        {"values": {"score": "test_score"}},
        [(9, {"score": 0.9})],
    ),
    "numbers with a step": ({"step": 4, "loss": 0.5}, {"step": "step"}, [(4, {"loss": 0.5})]),
    "the mean of cross-validation": (
        {"test_score": [0.5, 0.75, 1.0]},
        {"values": {"score": "mean(test_score)", "worst": "min(test_score)"}},
        [(9, {"score": 0.75, "worst": 0.5})],
    ),
    "hostile names": (
        {"a\nb": 1, 'q"\u00fc': 2, "": 3, "x.y": 4},
        {"values": {"m/1": "a\nb", "m.2": 'q"\u00fc', "m3": "x.y"}},
        [(9, {"m/1": 1, "m.2": 2, "m3": 4})],
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_read_as_programs_dump_them(tmp_path: Path, name: str) -> None:
    document, options, expected = DOCUMENTS[name]
    followed = Following(tmp_path, "m.json", **options)
    (tmp_path / "m.json").write_text(json.dumps(document))
    assert followed.new() + followed.rest() == expected


def test_a_growing_list_gives_each_row_once_and_a_torn_one_waits(tmp_path: Path) -> None:
    path, rows = tmp_path / "m.json", [{"loss": 1 / step} for step in range(1, 5)]
    followed = Following(tmp_path, "m.json")
    path.write_text(json.dumps(rows[:2]))
    assert [step for step, _ in followed.new()] == [1, 2]
    path.write_text(json.dumps(rows[:3])[:-5])
    assert followed.new() == []
    path.write_text(json.dumps(rows[:3]))
    assert [step for step, _ in followed.new()] == [3]
    path.write_text(json.dumps(rows))
    assert [step for step, _ in followed.rest()] == [4]


def test_a_result_counts_only_when_the_program_ended_by_itself_and_only_its_own(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"loss": 9}')
    assert Following(tmp_path, "m.json").rest() == []  # another attempt's
    followed = Following(tmp_path, "m.json")
    path.write_text('{"loss": 0.5}')
    assert followed.rest(whole=False) == []
    path.write_text('{"loss": 0.25}')
    assert followed.rest() == [(9, {"loss": 0.25})]


def state(*epochs: int) -> str:
    """What Hugging Face's Trainer writes after these epochs of 8 steps."""
    history: list[dict[str, float]] = []
    for epoch in epochs:
        history += [
            {"epoch": epoch - 0.5, "loss": 2.0 / epoch, "step": 8 * epoch - 4},
            {"epoch": float(epoch), "eval_loss": 1.0 / epoch, "step": 8 * epoch},
        ]
    return json.dumps({"best_metric": None, "global_step": 8 * len(epochs), "log_history": history})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("file", ["out/trainer_state.json", "out"])
def test_the_trainers_state_is_found_in_the_folder_and_in_its_checkpoints(tmp_path: Path, file: str) -> None:
    followed = Following(tmp_path, file, kind="trainer_state", step="epoch", values={"val/loss": "eval_loss"})
    write(tmp_path / "out/checkpoint-8/trainer_state.json", state(1))
    assert followed.new() == [(1, {"val/loss": 1.0})]
    write(tmp_path / "out/checkpoint-16/trainer_state.json", state(1, 2))
    write(tmp_path / "out/trainer_state.json", state(1, 2, 4))
    assert followed.rest() == [(2, {"val/loss": 0.5}), (4, {"val/loss": 0.25})]


def test_a_resumed_trainer_that_writes_the_same_checkpoint_again_has_trained_it(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-8/trainer_state.json", state(1))
    write(tmp_path / "checkpoint-16/trainer_state.json", state(1, 2))
    followed = Following(tmp_path, "trainer_state.json", step="epoch", start=1)
    assert followed.new() == []
    write(tmp_path / "checkpoint-16/trainer_state.json", state(1, 2) + " ")
    assert followed.rest() == [(2, {"eval_loss": 0.5})]


def test_a_history_that_a_program_goes_on_with_by_itself_is_not_trained_again(tmp_path: Path) -> None:
    write(tmp_path / "trainer_state.json", state(1, 2))
    followed = Following(tmp_path, "trainer_state.json", step="epoch")  # no checkpoint that we know of
    write(tmp_path / "trainer_state.json", state(1, 2, 4))
    assert followed.rest() == [(4, {"eval_loss": 0.25})]
    followed = Following(tmp_path, "trainer_state.json", step="epoch")
    write(tmp_path / "trainer_state.json", state(1, 2, 4) + " ")  # and is killed before it has trained
    assert followed.rest(whole=False) == []


@pytest.mark.parametrize("step", ["epoch", ""])
def test_a_program_that_begins_its_history_anew_has_trained_it(tmp_path: Path, step: str) -> None:
    def rows(count: int) -> str:
        return json.dumps([{"epoch": n, "loss": 1 / n} for n in range(1, count + 1)])

    write(tmp_path / "m.json", rows(3))
    slow, fast = (Following(tmp_path, "m.json", step=step, values={"loss": "loss"}) for _ in range(2))
    write(tmp_path / "m.json", rows(1))
    assert slow.new() == [(1, {"loss": 1.0})]
    write(tmp_path / "m.json", rows(3) + " ")
    expected = [(1, {"loss": 1.0}), (2, {"loss": 1 / 2}), (3, {"loss": 1 / 3})]
    assert slow.rest() == expected[1:]
    assert fast.rest() == expected


def test_rows_of_a_history_are_counted_although_they_are_old(tmp_path: Path) -> None:
    write(tmp_path / "m.json", '[{"loss": 3}]')
    followed = Following(tmp_path, "m.json")
    write(tmp_path / "m.json", '[{"loss": 3}, {"loss": 2}]')
    assert followed.rest() == [(2, {"loss": 2})]
