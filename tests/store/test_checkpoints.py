"""Checkpoints are complete or absent, whatever is killed and whenever."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.errors import CheckpointError
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import TrialLayout

OPERATIONS = (
    "mkdir",
    "open",
    "write",
    "fsync",
    "rename",
    "unlink",
    "rmdir",
    "close",
    "listdir",
    "lstat",
    "scandir",
)


@pytest.fixture
def trial(tmp_path: Path) -> TrialLayout:
    return TrialLayout(tmp_path / "a trial")


def write(trial: TrialLayout, step: int, text: str = "state") -> None:
    with checkpoints.new_checkpoint(trial, step, owner="0-0-0") as folder:
        (folder / "model").write_text(f"{text} {step}")
        (folder / "parts").mkdir()
        (folder / "parts" / "optimiser").write_text(text)


def newest(trial: TrialLayout, at_most: int | None = None) -> int | None:
    found = checkpoints.newest(trial, at_most=at_most)
    return found.step if found else None


def names(trial: TrialLayout) -> list[str]:
    return sorted(os.listdir(trial.checkpoints))


def killed_at(number: int, *, before: bool, action: Callable[[], None]) -> bool:
    """Do it in a forked process that is killed at its `number`-th file operation; False if it has fewer."""
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
        assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status))
        return os.WIFSIGNALED(status)
    code = 1
    try:
        counter = iter(range(1, 10**9))

        def counted(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            now = next(counter) == number
            if now and before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return operation(*args, **kwargs)
            finally:
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)

        for name in OPERATIONS:
            setattr(os, name, functools.partial(counted, getattr(os, name)))
        action()
        code = 0
    finally:
        os._exit(code)


def every_kill(make: Callable[[int], Callable[[], None]]) -> Iterator[int]:
    """Run `make(i)()` killed before and after each of its file operations; gives `i` after each."""
    index = number = 0
    killed = True
    while killed:
        number += 1
        for before in (True, False):
            killed = killed_at(number, before=before, action=make(index))
            yield index
            index += 1
    assert number > 10


def test_newest_finds_the_newest_complete_checkpoint(trial: TrialLayout) -> None:
    assert newest(trial) is None
    for step in (1, 3, 10, 9):
        write(trial, step)
    assert newest(trial) == 10
    assert newest(trial, at_most=9) == 9
    assert newest(trial, at_most=8) == 3
    assert newest(trial, at_most=0) is None
    assert (trial.checkpoint(10) / "parts" / "optimiser").read_text() == "state"


def _lose_manifest(folder: Path) -> None:
    (folder / checkpoints.MANIFEST).unlink()


def _tear_manifest(folder: Path) -> None:
    (folder / checkpoints.MANIFEST).write_bytes((folder / checkpoints.MANIFEST).read_bytes()[:-5])


def _lose_file(folder: Path) -> None:
    (folder / "parts" / "optimiser").unlink()


def _shorten_file(folder: Path) -> None:
    (folder / "model").write_text("st")


def _be_another_step(folder: Path) -> None:
    folder.rename(folder.with_name("step-12"))


@pytest.mark.parametrize(
    "damage", [_lose_manifest, _tear_manifest, _lose_file, _shorten_file, _be_another_step]
)
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(
    trial: TrialLayout, damage: Callable[[Path], None]
) -> None:
    write(trial, 3)
    write(trial, 9)
    damage(trial.checkpoint(9))
    assert newest(trial) == 3


def test_a_checkpoint_block_that_raises_leaves_nothing(trial: TrialLayout) -> None:
    write(trial, 3)
    with contextlib.suppress(RuntimeError), checkpoints.new_checkpoint(trial, 9, owner="0-0-0") as folder:
        (folder / "model").write_text("half")
        raise RuntimeError
    assert names(trial) == ["step-3"]


def test_pruning_keeps_the_newest_complete_ones(trial: TrialLayout) -> None:
    for step in (1, 2, 3, 4):
        write(trial, step)
    _lose_file(trial.checkpoint(4))
    checkpoints.prune(trial, keep=2)
    assert names(trial) == ["step-2", "step-3", "step-4"]
    write(trial, 5)
    checkpoints.prune(trial, keep=0)
    assert names(trial) == ["step-5"]


def test_pruning_keeps_the_newest_checkpoint_up_to_each_requested_step(
    trial: TrialLayout,
) -> None:
    for step in (2, 4, 6, 8, 10):
        write(trial, step)
    checkpoints.prune(trial, keep=1, steps=(5, 6))
    assert names(trial) == ["step-10", "step-4", "step-6"]
    _lose_file(trial.checkpoint(6))
    checkpoints.prune(trial, keep=1, steps=(6,))
    assert names(trial) == ["step-10", "step-4"]
    checkpoints.prune(trial, keep=1)
    assert names(trial) == ["step-10"]


def test_pruning_removes_nothing_while_no_checkpoint_is_complete(trial: TrialLayout) -> None:
    write(trial, 3)
    _lose_file(trial.checkpoint(3))
    checkpoints.prune(trial, keep=1)
    assert names(trial) == ["step-3"]


def test_writing_a_step_again_replaces_it(trial: TrialLayout) -> None:
    write(trial, 3, "old")
    write(trial, 3, "new")
    assert (trial.checkpoint(3) / "model").read_text() == "new 3"
    assert names(trial) == ["step-3"]


def test_a_copy_of_a_checkpoint_can_be_the_start_of_the_next(trial: TrialLayout) -> None:
    write(trial, 3)
    with checkpoints.new_checkpoint(trial, 4, owner="0-0-0") as folder:
        shutil.copytree(trial.checkpoint(3), folder, dirs_exist_ok=True)
        assert not checkpoints.is_complete(folder, 4)
    assert newest(trial) == 4


def test_checkpoints_keep_links_but_not_pipes(trial: TrialLayout) -> None:
    with checkpoints.new_checkpoint(trial, 1, owner="0-0-0") as folder:
        (folder / "model").write_text("state")
        (folder / "latest").symlink_to("model")
        os.mkfifo(folder / "pipe")
    assert newest(trial) == 1
    (trial.checkpoint(1) / "latest").unlink()
    assert newest(trial) is None


def test_a_checkpoint_folder_that_disappears_is_an_error_with_its_name(trial: TrialLayout) -> None:
    with pytest.raises(CheckpointError, match="step 3 cannot be completed"):
        checkpoints.commit(trial, 3, trial.checkpoints / ".work")


def test_leftovers_of_dead_attempts_are_removed(trial: TrialLayout) -> None:
    write(trial, 3)
    (trial.checkpoints / ".new-4.0-0-0.17").mkdir()
    (trial.checkpoints / ".work-0-0-0").mkdir()
    checkpoints.remove_leftovers(trial)
    assert names(trial) == ["step-3"]


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    seen = set()

    def make(index: int) -> Callable[[], None]:
        trial = TrialLayout(tmp_path / str(index))
        write(trial, 3)

        def action() -> None:
            write(trial, 4)
            checkpoints.prune(trial, keep=1)

        return action

    for index in every_kill(make):
        trial = TrialLayout(tmp_path / str(index))
        found = checkpoints.newest(trial)
        assert found is not None
        assert (found.path / "model").read_text() == f"state {found.step}"
        seen.add(found.step)
        checkpoints.remove_leftovers(trial)
        write(trial, 5)
        checkpoints.prune(trial, keep=1)
        assert names(trial) == ["step-5"]
    assert seen == {3, 4}


def test_what_a_kill_left_of_a_removal_is_removed_by_the_next_one(tmp_path: Path) -> None:
    def make(index: int) -> Callable[[], None]:
        trial = TrialLayout(tmp_path / str(index))
        write(trial, 3)
        trial.output.mkdir()
        (trial.output / "model").write_text("own")

        def action() -> None:
            checkpoints.remove_all(trial)

        return action

    for index in every_kill(make):
        trial = TrialLayout(tmp_path / str(index))
        assert checkpoints.remove_all(trial)[1]
        assert not trial.root.exists()


def test_a_kill_while_a_step_is_replaced_leaves_one_of_its_two_states(tmp_path: Path) -> None:
    seen = set()

    def make(index: int) -> Callable[[], None]:
        trial = TrialLayout(tmp_path / str(index))
        write(trial, 3, "old")
        return functools.partial(write, trial, 3, "new")

    for index in every_kill(make):
        trial = TrialLayout(tmp_path / str(index))
        found = checkpoints.newest(trial)
        assert found is not None
        seen.add((found.path / "model").read_text())
        write(trial, 3, "newest")
        checkpoints.remove_leftovers(trial)
        assert names(trial) == ["step-3"]
    assert seen == {"old 3", "new 3"}
