"""What a program keeps is a checkpoint once it has reported, complete or absent, whatever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.store import checkpoints
from hpcsweep.store.file_states import Changed, Source, being_written, copy
from hpcsweep.store.layout import TrialLayout
from hpcsweep.worker import sealing
from hpcsweep.worker.sealing import Sealer
from tests.store.test_checkpoints import every_kill
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

STEPS = (r"epoch (?P<step>\d+) error (?P<val_error>\S+)",)


class Program:
    """What a program does to its folder, and the sealer of its attempt."""

    def __init__(self, root: Path, *, start: int = 0) -> None:
        self.trial = TrialLayout(root)
        self.folder = self.trial.checkpoints / ".work-0-0-0"
        self.folder.mkdir(parents=True)
        self.notes: list[str] = []
        self.sealer = Sealer(
            self.trial,
            Source(self.folder),
            owner="0-0-0",
            start=start,
            resource=9,
            keep=1,
            steps=(),
            processes=lambda: [os.getpid()],
            note=self.notes.append,
            watch=True,
        )

    def save(self, text: str, name: str = "model") -> None:
        (self.folder / name).write_text(text)

    def until(self, condition: Callable[[], bool]) -> None:
        """Advance as the worker does until the condition holds."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            at = self.sealer.wake_at
            if at is not None and at <= time.monotonic():
                self.sealer.advance()
            time.sleep(0.005)
            self.sealer._reap()

    @property
    def kept(self) -> tuple[int, str] | None:
        """Step and text of the newest checkpoint."""
        found = checkpoints.newest(self.trial)
        return None if found is None else (found.step, (found.path / "model").read_text())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_PAUSE_S", 0.03)
    # A test that pauses is no other program, and none of its reports is one too many.
    monkeypatch.setattr(sealing, "_START_UP_S", 30.0)
    monkeypatch.setattr(sealing, "_LOOKS", 0.0)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path / "trial")
    yield program
    program.sealer.close()
    assert program.notes == []


def test_what_a_program_saved_before_it_reported_is_a_checkpoint_of_that_step(program: Program) -> None:
    program.save("one")
    program.sealer.reported(1)
    program.until(lambda: program.kept == (1, "one"))
    program.save("two")
    program.sealer.reported(2)
    program.until(lambda: program.kept == (2, "two"))
    program.save("torn")  # in place, and killed while it did
    program.sealer.finish(step=2, completed=False, ended_well=False)
    assert program.kept == (2, "two")


def test_what_a_program_saves_after_it_reported_counts_from_its_next_report_on(program: Program) -> None:
    program.sealer.reported(1)
    program.save("one")
    program.until(lambda: program.sealer._resting is not None)
    assert program.kept is None
    program.sealer.reported(2)
    program.until(lambda: program.kept == (2, "one"))


def test_a_program_that_is_saving_when_its_report_is_read_had_what_rested_before(program: Program) -> None:
    program.sealer.reported(1)
    program.save("one")
    program.until(lambda: program.sealer._resting is not None)
    with open(program.folder / "model", "w", encoding="utf-8") as file:
        file.write("tw")
        file.flush()
        program.sealer.reported(2)
        program.until(lambda: program.kept == (1, "one"))


def test_after_a_late_report_files_are_kept_as_they_are_once_they_have_rested(program: Program) -> None:
    program.save("one")
    program.sealer.reported(1, late=True)
    assert program.sealer._making is None
    program.until(lambda: program.kept == (1, "one"))
    program.save("two")
    program.sealer.reported(2, late=True)
    program.save("three")
    program.until(lambda: program.sealer._resting is not None)
    assert program.kept == (1, "one")
    program.sealer.reported(3, late=True)
    assert program.kept == (3, "three")


def test_files_that_are_being_written_are_kept_once_they_are_complete(program: Program) -> None:
    with open(program.folder / "model", "w", encoding="utf-8") as file:
        program.sealer.reported(1)
        program.until(lambda: program.sealer._making is None and not program.sealer._wanted)
        assert program.kept is None
        file.write("one")
    program.until(lambda: program.sealer._resting is not None)
    program.sealer.reported(2)
    program.until(lambda: program.kept == (2, "one"))


def test_a_log_that_stays_open_bars_nothing(program: Program) -> None:
    with open(program.folder / "train.log", "w", encoding="utf-8") as log:
        program.save("one")
        print("line", file=log, flush=True)
        program.sealer.reported(1)
        print("line", file=log, flush=True)
        program.until(lambda: program.kept == (1, "one"))


def test_what_did_not_change_is_not_copied_again(program: Program) -> None:
    program.save("large", "data")
    program.save("one")
    program.sealer.reported(1)
    program.until(lambda: program.kept == (1, "one"))
    before = (program.trial.checkpoint(1) / "data").stat().st_ino
    program.save("two")
    program.sealer.reported(2)
    program.until(lambda: program.kept == (2, "two"))
    assert (program.trial.checkpoint(2) / "data").stat().st_ino == before
    assert (program.folder / "data").stat().st_ino != before, "what the program writes anew is its own"


def test_a_step_that_left_the_files_as_they_were_makes_no_checkpoint(program: Program) -> None:
    program.save("one")
    program.sealer.reported(1)
    program.until(lambda: program.kept == (1, "one"))
    program.sealer.reported(2)
    program.sealer.finish(step=2, completed=False, ended_well=False)
    assert program.kept == (1, "one")


def test_what_was_there_at_the_last_report_is_kept_however_soon_it_was_killed(program: Program) -> None:
    program.sealer._not_before = time.monotonic() + 60
    program.save("one")
    program.sealer.reported(1)
    program.sealer.finish(step=1, completed=False, ended_well=False)
    assert program.kept == (1, "one")


def test_a_program_that_never_reports_is_kept_as_it_rested(program: Program) -> None:
    program.save("lr: 0.1", "settings")
    program.until(lambda: program.sealer._taken == 1)
    program.save("some")
    program.until(lambda: program.sealer._taken == 2)
    program.save("torn")
    program.sealer.finish(step=0, completed=False, ended_well=False)
    assert program.kept == (0, "some")


def test_settings_that_a_program_writes_when_it_begins_are_no_checkpoint(program: Program) -> None:
    program.save("lr: 0.1", "settings")
    os.utime(program.folder / "settings", (time.time() - 60, time.time() - 60))
    program.sealer._begun = time.time() - 61
    program.until(lambda: program.sealer._taken == 1)
    program.sealer.reported(1)
    assert not program.sealer._wanted
    program.save("three")
    program.sealer.reported(3)
    program.until(lambda: program.kept == (3, "three"))


def test_settings_alone_are_no_checkpoint_of_a_program_that_never_reports(program: Program) -> None:
    program.save("lr: 0.1", "settings")
    program.until(lambda: program.sealer._taken == 1)
    program.sealer.finish(step=0, completed=False, ended_well=False)
    assert program.kept is None


@pytest.mark.parametrize(("completed", "step"), [(True, 9), (False, 4)])
def test_what_a_program_leaves_that_ends_well_is_complete(
    program: Program, completed: bool, step: int
) -> None:
    program.save("one")
    program.sealer.reported(3)
    program.until(lambda: program.kept == (3, "one"))
    program.save("end")
    program.sealer.finish(step=step, completed=completed, ended_well=True)
    assert program.kept == (step, "end")
    assert os.listdir(program.trial.checkpoints) == [f"step-{step}"]


def test_steps_up_to_the_start_and_beyond_the_resource_make_no_checkpoint(tmp_path: Path) -> None:
    program = Program(tmp_path / "trial", start=3)
    program.save("one")
    for step in (3, 10):
        program.sealer.reported(step)
        program.until(lambda: program.sealer._making is None)
    assert program.kept is None
    program.sealer.close()


def test_a_checkpoint_that_training_code_made_itself_stays(program: Program) -> None:
    with checkpoints.new_checkpoint(program.trial, 2, owner="0-0-0") as folder:
        (folder / "model").write_text("its own")
    program.save("left")
    program.sealer.reported(2)
    program.until(lambda: program.sealer._making is None and not program.sealer._wanted)
    program.sealer.finish(step=2, completed=False, ended_well=True)
    assert program.kept == (2, "its own")


def test_what_cannot_be_copied_costs_a_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(tmp_path / "trial")
    program.save("one")
    (program.trial.checkpoints / f".seal-0-0-0.{os.getpid()}.1").write_text("in the way")
    program.sealer.reported(1)
    program.until(lambda: program.sealer._making is None)
    assert program.notes == ["what it keeps could not be copied: File exists"]

    def fails(work: Callable[[], int]) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "fork", fails)
        program.save("two")
        program.until(lambda: time.monotonic() > program.sealer._not_before)
        program.sealer.reported(2)
    assert len(program.notes) == 2
    program.sealer.finish(step=2, completed=False, ended_well=False)
    assert program.kept == (2, "two")


# --------------------------------------------------------------------------- copies


def test_a_copy_has_the_files_folders_and_links(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "a" / "b").mkdir(parents=True)
    (base / "a" / "b" / "model").write_bytes(b"x" * 100_000)
    (base / "empty").write_bytes(b"")
    (base / "latest").symlink_to("a/b/model")
    source = Source(base)
    copy(source, source.listing(), tmp_path / "copy")
    names = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert names == ["a", "a/b", "a/b/model", "empty", "latest"]
    assert (tmp_path / "copy/latest").read_bytes() == b"x" * 100_000
    assert (tmp_path / "copy/a/b/model").stat().st_mtime_ns == (base / "a/b/model").stat().st_mtime_ns


def test_a_pattern_takes_what_it_matches(tmp_path: Path) -> None:
    for name in ("out/last.pt", "out/notes", "out/checkpoint-3/state"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(Source(tmp_path / "out", "*.pt").listing()) == ["last.pt"]
    assert list(Source(tmp_path / "out", "checkpoint-*").listing()) == ["checkpoint-3/state"]
    assert list(Source(tmp_path / "none", "*").listing()) == []


def test_a_file_that_changes_or_vanishes_spoils_the_copy(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model").write_text("one")
    source = Source(base)
    listing = source.listing()
    (base / "model").write_text("two")
    with pytest.raises(Changed):
        copy(source, listing, tmp_path / "changed")
    (base / "model").unlink()
    with pytest.raises(Changed):
        copy(source, listing, tmp_path / "gone")


def test_a_file_that_another_process_writes_is_found(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("one")
    listing = Source(tmp_path).listing()
    code = "import sys; f = open(sys.argv[1], sys.argv[2]); print(flush=True); sys.stdin.read()"
    for mode, found in (("a", "model"), ("r", "")):
        argv = [sys.executable, "-c", code, str(tmp_path / "model"), mode]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            assert being_written(listing, [other.pid]) == found


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    """Of the process that copies, or of the worker that makes a checkpoint of the copy."""
    seen = set()

    def make(index: int) -> Callable[[], None]:
        program = Program(tmp_path / str(index))
        program.save("one")
        program.sealer.finish(step=1, completed=False, ended_well=True)
        program.folder.mkdir()
        program.save("two")
        source, target = Source(program.folder), program.trial.checkpoints / ".seal-0"

        def action() -> None:
            copy(source, source.listing(), target)
            checkpoints.commit(program.trial, 2, target)
            checkpoints.prune(program.trial, keep=1)

        return action

    for index in every_kill(make):
        trial = TrialLayout(tmp_path / str(index))
        found = checkpoints.newest(trial)
        assert found is not None
        assert (found.path / "model").read_text() == {1: "one", 2: "two"}[found.step]
        seen.add(found.step)
        checkpoints.remove_leftovers(trial)
        assert not any(name.startswith(".") for name in os.listdir(trial.checkpoints))
    assert seen == {1, 2}


# --------------------------------------------------------------------------- with a worker

#: Saves in place, piece by piece, a file that holds its step many times; then reports it. After some steps it
#: rests longer and longer: on a slow machine, too, it is copied then.
WRITES = """
import os, sys, time
out, start, resource = sys.argv[1], sys.argv[2], int(sys.argv[3])
step = 0
if start:
    words = open(f"{start}/model").read().split()
    assert len(words) == 2000 and len(set(words)) == 1, "torn"
    step = int(words[0])
print("from", step, flush=True)
first = step
while step < resource:
    step += 1
    with open(f"{out}/model", "w") as file:
        for piece in range(20):
            file.write(f"{step} " * 100)
            file.flush()
            time.sleep(0.002)
    print(f"epoch {step} error {1 / step}", flush=True)
    time.sleep(0.5 * 1.2 ** max(0, step - first - 4))
"""
COMMAND = f"{sys.executable} writes.py {{checkpoint_dir}} {{resume_from}} {{resource}}"


def keeps(bench: Bench, step: int) -> Callable[[], bool]:
    return lambda: (bench.newest() or 0) >= step


@pytest.mark.parametrize("whom", ["worker", "program"])
def test_kills_at_any_time_lose_nothing_that_was_kept_and_resume_from_nothing_torn(
    bench: Bench, whom: str
) -> None:
    bench.code(WRITES, "writes.py")
    attempts = 4
    runs = [[bench.run(resource=400, attempt=attempt)] for attempt in range(attempts)]
    bench.plan(*runs, command=COMMAND, metrics=STEPS)
    before = 0
    for task in range(attempts):
        worker = bench.start(task=task)
        goal = before + 1 + task
        wait_until(keeps(bench, goal), what=partial(bench.log, task))
        if whom == "worker":
            worker.kill()
        else:
            worker.terminate()
        worker.wait(PATIENCE_S)
        newest = checkpoints.newest(bench.trial())
        assert newest is not None
        assert newest.step >= goal
        assert (newest.path / "model").read_text() == f"{newest.step} " * 2000
        assert f"from {before}" in bench.log(task)
        before = newest.step
    if whom == "program":
        assert [(r.interrupted, r.progressed) for r in bench.results()] == [
            (Interruption.PREEMPTED, True)
        ] * attempts


def test_a_program_that_ended_well_leaves_one_checkpoint_and_the_next_rung_goes_on(bench: Bench) -> None:
    bench.code(WRITES, "writes.py")
    runs = ([bench.run(resource=2)], [bench.run(resource=4, rung=1, reached=2)])
    bench.plan(*runs, command=COMMAND, metrics=STEPS)
    for task, (start, resource) in enumerate(((0, 2), (2, 4))):
        result = bench.work(task=task)
        assert (result.outcome, result.start, result.step) == (Outcome.COMPLETED, start, resource)
        assert f"from {start}" in bench.log(task)
        assert os.listdir(bench.trial().checkpoints) == [f"step-{resource}"]


def test_a_program_is_not_ended_at_its_resource_while_it_saves(bench: Bench) -> None:
    """It reports first, then saves."""
    bench.code(
        """
        import sys, time
        for step in range(1, 100):
            with open(f"{sys.argv[1]}/model", "w") as file:
                print(f"epoch {step} error {1 / step}", flush=True)
                file.write(f"{step} ")
                file.flush()
                time.sleep(2.5 if step == 2 else 0.1)
                file.write(f"{step} ")
            time.sleep(60 if step == 2 else 0)
        """,
        "writes.py",
    )
    bench.plan_command(COMMAND, bench.run(resource=2), metrics=STEPS, stop_at_resource=True)
    result = bench.work()
    assert (result.outcome, result.value) == (Outcome.COMPLETED, 0.5)
    newest = checkpoints.newest(bench.trial())
    assert newest is not None
    assert (newest.step, (newest.path / "model").read_text()) == (2, "2 2 ")
