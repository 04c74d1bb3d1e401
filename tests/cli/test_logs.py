"""`logs`: which file belongs to which attempt, and what is printed of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import LogReader, attempt_logs
from tests.compacted import compact

A, B, C = RunId(0, 0), RunId(1, 0), RunId(0, 1)
HAPPENED: list[AnyEvent] = [
    SweepStarted("cafe01", "s", 0.0, {"objective": {"metric": "loss", "mode": "min"}}),
    TrialCreated(0, {"x": 0.5}, 0, 1),
    TrialCreated(1, {"x": 0.7}, 0, 1),
    TrialCreated(2, {"x": 0.9}, 0, 1),
    BatchPlanned("never", 0.0, ((A,), (B,)), gpus=0, throttle=2),
    BatchAbandoned("never", "refused"),
    BatchPlanned("b1", 0.0, ((A, B),), gpus=0, throttle=1),
    BatchSubmitted("b1", "7", 0.0),
    RunInterrupted(0, 0, Interruption.PREEMPTED, batch="b1"),
    RunFinished(1, 0, Outcome.COMPLETED, 0.3, 1, batch="b1"),
    BatchPlanned("b2", 0.0, ((A,),), gpus=0, throttle=1),
    BatchSubmitted("b2", "8", 0.0),
    RunFinished(0, 0, Outcome.COMPLETED, 0.2, 1, attempt=1, batch="b2"),
    TrialPromoted(0, 1, 3),
    BatchPlanned("b3", 0.0, ((C,),), gpus=0, throttle=1),
    BatchSubmitted("b3", "9", 0.0),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = Layout(tmp_path)
    journal = Journal.open(layout)
    journal.commit(HAPPENED)
    journal.release()
    logs = {("b1", 0): b"one\ntwo\n", ("b1", 1): b"of trial 1\n", ("b2", None): b"three\nfo\xffur"}
    for (batch, n), text in logs.items():
        path = layout.batch(batch).log(0, n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["logs", *words])


def test_each_attempt_is_printed_under_its_name_oldest_first(folder: Path) -> None:
    batches = folder / "batches"
    assert run(str(folder), "0").stdout_bytes == (
        f"==> trial 0 rung 0 attempt 0: {batches}/b1/logs/0.0.log <==\n".encode()
        + b"one\ntwo\n"
        + f"==> trial 0 rung 0 attempt 1: {batches}/b2/logs/0.log <==\n".encode()
        + b"three\nfo\xffur\n"
        + f"==> trial 0 rung 1 attempt 0: {batches}/b3/logs/0.log <==\n".encode()
        + b"nothing was printed yet\n"
    )


def test_the_log_of_a_rank_is_printed_with_its_number(folder: Path) -> None:
    log = folder / "batches/b1/logs/0.0.rank-1.log"
    log.write_bytes(b"of rank 1\n")
    out = run(str(folder), "0", "--rank", "1").stdout
    assert out.startswith(f"==> trial 0 rung 0 attempt 0 rank 1: {log} <==\nof rank 1\n")


def test_logs_of_batches_that_are_compacted_are_printed_from_their_part(folder: Path) -> None:
    before = run(str(folder), "0").stdout
    journal = Journal.open(Layout(folder))
    journal.commit([BatchClosed("b1"), BatchClosed("b2")])
    journal.release()
    compact(folder)
    assert not (folder / "batches/b1").exists()
    part = folder / "compacted/batches-000003-1.zip"
    after = run(str(folder), "0").stdout
    for batch in ("b1", "b2"):
        before = before.replace(str(folder / "batches" / batch), str(part / batch))
    assert after == before


def test_a_log_that_is_compacted_just_now_is_found(folder: Path) -> None:
    layout = Layout(folder)
    journal = Journal.open(layout)
    journal.commit([BatchClosed("b1")])
    logs = LogReader(layout, journal.events)
    one = attempt_logs(journal.events, layout, 0)[0]
    journal.release()
    assert logs.read(one) == (one.path, b"one\ntwo\n")
    compact(folder)
    assert logs.read(one) == (folder / "compacted/batches-000003-1.zip/b1/logs/0.0.log", b"one\ntwo\n")


def test_one_rung_and_the_last_lines_can_be_asked_for(folder: Path) -> None:
    found = run(str(folder), "0", "--rung", "0", "-n", "1")
    lines = found.stdout_bytes.splitlines()
    assert lines[1::2] == [b"two", b"fo\xffur"]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("2",),
            "hpcsweep: TRIAL: expected one of which a run was submitted, got 2; see `hpcsweep status`\n",
        ),
        (
            ("9",),
            "hpcsweep: TRIAL: expected one of which a run was submitted, got 9; see `hpcsweep status`\n",
        ),
        (("0", "--rung", "4"), "hpcsweep: --rung: expected one that was submitted (0, 1), got 4\n"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(folder: Path, words: tuple[str, ...], told: str) -> None:
    found = run(str(folder), *words)
    assert (found.exit_code, found.stderr) == (2, told)
