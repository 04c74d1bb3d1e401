"""A file of a newer format version is refused in words; one without a version is of version 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.parquet as pq
import pytest

from hpcsweep.core.events import Outcome, RunId, StopRequested
from hpcsweep.errors import NewerFormatError
from hpcsweep.store import checkpoints, snapshot
from hpcsweep.store.batch import (
    CodeSnapshot,
    Header,
    ManifestRun,
    Program,
    Result,
    new_results,
    read_result,
    read_task,
    write_manifest,
    write_result,
)
from hpcsweep.store.compaction import (
    PARQUET_VERSION,
    CompactableRun,
    PartIndex,
    Tables,
    WritePart,
    read_tables,
    remove_raw_files,
    write_index,
    write_tables,
)
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.git import GitState
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import checksum_at, encode_line, read_journal
from hpcsweep.store.journal.tail import JournalTail
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.provenance import Python, Record, list_records
from hpcsweep.store.requests import Request, new_requests, write_request
from hpcsweep.store.run_files import MetricsWriter, RunFile, read_run_file
from hpcsweep.store.snapshot import SnapshotSource, use_snapshot
from hpcsweep.views.tables import read_part

RUN = ManifestRun(trial=0, rung=0, bracket=0, resource=3, attempt=0, seed=1, config={})


class Kind(NamedTuple):
    """A kind of file: how the product writes one and reads it back."""

    write: Callable[[Layout], Path]
    read: Callable[[Layout, Skipped], Any]
    expected: Any
    is_skipped: bool = False


def write_a_manifest(layout: Layout) -> Path:
    batch = layout.batch("b1")
    batch.root.mkdir(parents=True)
    write_manifest(batch, Header("b1", "s", Program(workdir="/w", metric="loss"), gpus=1), [[RUN]])
    return batch.manifest


def write_a_result(layout: Layout) -> Path:
    return write_result(layout.batch("b1"), RESULT, n=0)


def write_a_part_index(layout: Layout) -> Path:
    layout.compacted.mkdir()
    write_index(layout, "000001-1", PartIndex({}, {}))
    return layout.index_part("000001-1")


def remove_part(layout: Layout) -> bool:
    remove_raw_files(layout, "000001-1")
    return layout.index_part("000001-1").exists()


def write_a_journal(layout: Layout) -> Path:
    journal = Journal.open(layout)
    journal.commit([StopRequested(1.0, "enough")])
    journal.release()
    return layout.journal / "000001.jsonl"


def write_some_tables(layout: Layout) -> Path:
    write_a_journal(layout)
    layout.compacted.mkdir()
    write_tables(layout, tables(layout))
    return layout.tables


def tables(layout: Layout) -> Tables:
    reading = read_journal(layout)
    assert reading.tail is not None
    return Tables(reading.tail.end, checksum_at(reading), "s", {}, None, (), ())


def write_a_record(layout: Layout) -> Path:
    layout.provenance.mkdir()
    path = layout.provenance / "1.json"
    path.write_bytes(msgspec.json.encode(RECORD))
    return path


def write_a_snapshot(layout: Layout) -> Path:
    layout.code.mkdir()
    path = layout.code / snapshot._RECORD
    path.write_bytes(msgspec.json.encode(SnapshotSource("/original", 1, 10)))
    return path


def write_a_checkpoint(layout: Layout) -> Path:
    with checkpoints.new_checkpoint(layout.trial(0), 3, owner="o") as folder:
        (folder / "model.pt").write_text("x")
    return layout.trial(0).checkpoint(3) / checkpoints.MANIFEST


def write_a_run_file(layout: Layout) -> Path:
    path = layout.root / "run.json"
    path.write_bytes(msgspec.json.encode(RUN_FILE))
    return path


RESULT = Result(trial=0, rung=0, attempt=0, restart=0, task=0, outcome=Outcome.COMPLETED, value=0.5)
REQUEST = Request("stop", 1.0, "ada")
RECORD = Record(
    at=1.0,
    host="n1",
    user="ada",
    cwd="/w",
    argv=(),
    python=Python("3.11", "/bin/python"),
    hpcsweep="0.2",
    cluster="local",
    packages={},
    spec_sha256="",
    files={},
    code=GitState("/w"),
)
RUN_FILE = RunFile(
    trial=0,
    rung=0,
    bracket=0,
    resource=3,
    attempt=0,
    restart=0,
    seed=1,
    config={},
    start=0,
    resume_from=None,
    checkpoint_dir="/c",
    stop_file="/s",
    trial_folder="/t",
    metrics_file="/m",
    metric="loss",
)
KINDS = {
    "manifest": Kind(write_a_manifest, lambda layout, _: read_task(layout.batch("b1"), 0)[1].runs, (RUN,)),
    "result": Kind(write_a_result, lambda layout, _: read_result(layout.batch("b1").result(0, 0, 0)), RESULT),
    "new result": Kind(
        write_a_result,
        lambda layout, skipped: [result for _, result in new_results(layout.batch("b1"), (), skipped)],
        [RESULT],
        is_skipped=True,
    ),
    "request": Kind(
        lambda layout: write_request(layout, REQUEST),
        lambda layout, skipped: [request for _, request in new_requests(layout, (), skipped)],
        [REQUEST],
        is_skipped=True,
    ),
    "part index": Kind(write_a_part_index, lambda layout, _: remove_part(layout), False),
    "provenance record": Kind(
        write_a_record,
        lambda layout, skipped: [record for _, record in list_records(layout, skipped)],
        [RECORD],
        is_skipped=True,
    ),
    "snapshot": Kind(
        write_a_snapshot,
        lambda layout, _: use_snapshot(Program(workdir="/original", metric="loss"), layout).snapshot,
        lambda layout: CodeSnapshot("/original", str(layout.code), "/original"),
    ),
    "checkpoint": Kind(
        write_a_checkpoint,
        lambda layout, _: checkpoints.newest(layout.trial(0)),
        lambda layout: checkpoints.Checkpoint(3, layout.trial(0).checkpoint(3)),
    ),
    "run file": Kind(write_a_run_file, lambda layout, _: read_run_file(f"{layout.root}/run.json"), RUN_FILE),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "a sweep"
    root.mkdir()
    return Layout(root)


def set_version(path: Path, version: int | None) -> None:
    """Change the version in the first line of the file; None removes it."""
    first, newline, rest = path.read_text().partition("\n")
    fields = json.loads(first)
    assert fields.pop("version") == 1
    if version is not None:
        fields["version"] = version
    path.write_text(json.dumps(fields) + newline + rest)


def refusal(path: Path, newest: int = 1) -> str:
    return (
        f"{path}: written by a newer hpcsweep (format version {newest + 1}, this one reads up to {newest}): "
        "upgrade hpcsweep here"
    )


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.is_skipped])
def test_a_file_of_a_newer_version_is_refused_in_words(layout: Layout, name: str) -> None:
    kind = KINDS[name]
    path = kind.write(layout)
    set_version(path, 2)
    with pytest.raises(NewerFormatError) as raised:
        kind.read(layout, Skipped())
    assert str(raised.value) == refusal(path)
    assert path.exists()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.is_skipped])
def test_one_of_many_files_of_a_newer_version_is_skipped_with_the_reason(layout: Layout, name: str) -> None:
    kind, skipped = KINDS[name], Skipped()
    path = kind.write(layout)
    set_version(path, 2)
    assert kind.read(layout, skipped) == []
    assert skipped.lines(layout.root) == [f"skipped: {path.relative_to(layout.root)}: {refusal(path)}"]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_without_a_version_loads_as_version_1(layout: Layout, name: str) -> None:
    kind, skipped = KINDS[name], Skipped()
    set_version(kind.write(layout), None)
    expected = kind.expected(layout) if callable(kind.expected) else kind.expected
    assert kind.read(layout, skipped) == expected
    assert not skipped


def test_tables_of_a_newer_version_are_ignored(layout: Layout) -> None:
    path = write_some_tables(layout)
    set_version(path, 2)
    assert read_tables(layout) is None


def test_tables_without_a_version_load_as_version_1(layout: Layout) -> None:
    path = write_some_tables(layout)
    set_version(path, None)
    assert read_tables(layout) == tables(layout)


def write_a_part(layout: Layout) -> Path:
    metrics = MetricsWriter(layout.trial(0).metrics(0, 0, 0))
    metrics.write(1, {"loss": 0.5})
    metrics.sync_and_close()
    task = WritePart("000001-1", (CompactableRun(0, 0, 0, 0),))
    assert run_compaction_task(layout, task, now=0.0).runs == (RunId(0, 0),)
    return layout.reports_part("000001-1")


def test_a_parquet_file_of_a_newer_version_is_refused_in_words(layout: Layout) -> None:
    path = write_a_part(layout)
    table = pq.read_table(path)
    assert table.schema.metadata == {PARQUET_VERSION: b"1"}
    pq.write_table(table.replace_schema_metadata({PARQUET_VERSION: b"2"}), path)
    with pytest.raises(NewerFormatError) as raised:
        read_part(path)
    assert str(raised.value) == refusal(path)


def test_a_parquet_file_without_a_version_loads_as_version_1(layout: Layout) -> None:
    path = write_a_part(layout)
    expected = read_part(path)
    pq.write_table(expected, path)
    assert pq.read_table(path).schema.metadata is None
    assert read_part(path).equals(expected, check_metadata=True)


@pytest.mark.parametrize("read", [read_journal, lambda layout: JournalTail(layout).poll()])
def test_a_journal_of_a_newer_version_is_refused_in_words(
    layout: Layout, read: Callable[[Layout], object]
) -> None:
    path = write_a_journal(layout)
    reading = read_journal(layout)
    assert reading.tail is not None
    header = msgspec.structs.replace(reading.tail.header, version=2)
    _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(encode_line(header) + b"".join(rest))
    with pytest.raises(NewerFormatError) as raised:
        read(layout)
    assert str(raised.value) == refusal(path)


def test_a_journal_header_without_a_version_loads_as_version_1(layout: Layout) -> None:
    path = write_a_journal(layout)
    reading = read_journal(layout)
    assert reading.tail is not None
    first, *rest = path.read_bytes().splitlines(keepends=True)
    fields = msgspec.to_builtins(reading.tail.header)
    del fields["version"]
    bare = encode_line(fields)
    assert len(bare) < len(first)
    path.write_bytes(bare + b"".join(rest))
    read = read_journal(layout)
    assert read.tail is not None
    assert (read.events, read.tail.header.version) == (reading.events, 1)
