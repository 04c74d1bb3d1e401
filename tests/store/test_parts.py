"""Parts: raw files go only once all of them is elsewhere, and whatever came later stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcsweep.store.compaction import (
    PartIndex,
    existing_parts,
    pending_cleanup,
    read_archived,
    remove_orphans,
    remove_raw_files,
    write_batches,
    write_index,
)
from hpcsweep.store.layout import Layout

PART = "000003-1"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Two batches and the reports of a trial, the second of which has a checkpoint."""
    layout = Layout(tmp_path)
    layout.compacted.mkdir()
    for batch in ("a", "b"):
        for name in ("manifest.jsonl", "results/0.0.0.json", "logs/0.log"):
            put(layout.batch(batch).root / name, f"{batch} {name}")
    put(layout.trial(0).metrics(0, 0, 0), "first")
    put(layout.trial(0).metrics(0, 1, 0), "second")
    put(layout.trial(1).metrics(0, 0, 0), "other")
    put(layout.trial(1).checkpoint(1) / "state", "kept")
    layout.trial(0).checkpoints.mkdir()
    return layout


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def taken(layout: Layout) -> None:
    """All of it."""
    batches = write_batches(layout, PART, ["a", "b"])
    trials = {
        trial: {path.name: path.stat().st_size for path in layout.trial(trial).root.glob("metrics-*")}
        for trial in (0, 1)
    }
    write_index(layout, PART, PartIndex(trials, batches))


def files(layout: Layout) -> list[str]:
    """What is left of the raw files, folders that are empty included."""
    places = (layout.batches, layout.trials / "0000")
    return sorted(str(path.relative_to(layout.root)) for place in places for path in place.rglob("*"))


def test_a_part_has_whole_batch_folders_and_then_the_raw_files_go(layout: Layout) -> None:
    taken(layout)
    assert pending_cleanup(layout) == [PART]
    remove_raw_files(layout, PART)
    assert read_archived(layout, PART, "b/results/0.0.0.json") == b"b results/0.0.0.json"
    assert read_archived(layout, PART, "b/logs/1.log") is None
    assert files(layout) == [
        "trials/0000/1",
        "trials/0000/1/checkpoints",
        "trials/0000/1/checkpoints/step-1",
        "trials/0000/1/checkpoints/step-1/state",
    ]
    assert (pending_cleanup(layout), existing_parts(layout)) == ([], {PART})
    remove_raw_files(layout, PART)


def test_files_that_appeared_or_grew_after_they_were_read_stay(layout: Layout) -> None:
    taken(layout)
    put(layout.batch("a").result(0, 1, 0), "late")
    put(layout.batch("b").log(0), "b logs/0.log and more")
    put(layout.trial(0).metrics(0, 0, 0), "first and more")
    put(layout.trial(0).metrics(0, 2, 0), "late")
    before = [path for path in files(layout) if "batches" in path]
    remove_raw_files(layout, PART)
    assert [path for path in files(layout) if "batches" in path] == before
    assert sorted(path.name for path in layout.trial(0).root.glob("m*")) == [
        "metrics-0.0.0.jsonl",
        "metrics-0.2.0.jsonl",
    ]
    assert pending_cleanup(layout) == []


def test_a_link_in_a_batch_folder_keeps_the_folder(layout: Layout) -> None:
    os.symlink("/etc/hosts", layout.batch("a").root / "hosts")
    taken(layout)
    remove_raw_files(layout, PART)
    assert sorted(path.name for path in layout.batches.iterdir()) == ["a"]
    assert read_archived(layout, PART, "a/hosts") is None


def test_an_interrupted_removal_is_finished(layout: Layout) -> None:
    taken(layout)
    layout.batch("a").root.rename(layout.batches / ".gone-a")
    (layout.batches / ".gone-a/manifest.jsonl").unlink()
    layout.trial(0).metrics(0, 0, 0).unlink()
    remove_raw_files(layout, PART)
    assert not any(layout.batches.iterdir())
    assert not layout.trial(0).root.exists()


def test_a_folder_that_cannot_be_removed_is_retried_by_the_next_session(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(layout)
    with monkeypatch.context() as patch:  # as where another node has a file of it open
        patch.setattr("hpcsweep.store.compaction.shutil.rmtree", lambda *_, **__: None)
        remove_raw_files(layout, PART)
    assert pending_cleanup(layout) == [PART]
    assert read_archived(layout, PART, "a/logs/0.log") == b"a logs/0.log"
    remove_raw_files(layout, PART)
    assert (pending_cleanup(layout), list(layout.batches.iterdir())) == ([], [])


def test_only_parts_that_no_driver_can_record_any_more_are_removed(layout: Layout) -> None:
    names = {
        "metrics-000002-1.parquet": False,
        "taken-000002-1.json": False,
        "metrics-000002-2.parquet": True,  # told
        ".metrics-000002-2.parquet.77.tmp": False,
        "batches-000003-1.zip": False,
        ".batches-000003-2.zip.78.tmp": False,
        "metrics-000004-1.parquet": True,  # of a newer driver
        "tables.json": True,
        "notes.txt": True,
    }
    for name in names:
        put(layout.compacted / name, "")
    remove_orphans(layout, recorded={"000002-2"}, upto=3)
    left = {path.name for path in layout.compacted.iterdir()}
    assert left == {name for name, stays in names.items() if stays}
