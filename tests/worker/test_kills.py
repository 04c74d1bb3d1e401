"""A worker that is killed anywhere leaves nothing half: the next start gives one valid result."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.core.events import Outcome
from hpcsweep.store import checkpoints
from hpcsweep.store.batch import Result, write_result
from hpcsweep.store.layout import BatchLayout
from hpcsweep.worker import task as worker_task
from hpcsweep.worker.__main__ import main
from hpcsweep.worker.metrics import program  # noqa: F401 -- once, and not in every process anew
from hpcsweep.worker.sealing import Sealer

if TYPE_CHECKING:
    from tests.worker.conftest import Bench

OPERATIONS = ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir", "listdir", "scandir")

COMMAND = (
    "for s in $(seq $(({start} + 1)) {resource}); do echo step $s err 0.$s; echo $s >> ../trained; done; "
    "echo {resource} > {checkpoint_dir}/model"
)


def work(bench: Bench, *, task: int, restart: int, patch: Callable[[], None]) -> int:
    """Be the worker in a forked process; its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    try:
        os.environ["HPCSWEEP_RESTART"] = str(restart)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        patch()
        code = main([str(bench.batch.root), "--task", str(task)])
    finally:
        os._exit(code)


def die_at(number: int) -> None:
    """Let this process be killed before its `number`-th file operation, and so after the one before it."""
    count = 0

    def counted(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*args, **kwargs)

    for name in OPERATIONS:
        setattr(os, name, functools.partial(counted, getattr(os, name)))


def test_a_kill_at_any_file_operation_costs_no_result_and_counts_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(bench.temporary))
    # Copies while it trains are for test_sealing: on a slow machine one is newer than the last step read.
    monkeypatch.setattr(Sealer, "reported", lambda *_, **__: None)
    fields: dict[str, Any] = {
        "command": COMMAND,
        "shell": True,
        "metrics": (r"step (?P<step>\d+) err (?P<val_error>\S+)",),
    }
    bench.plan([bench.run(resource=2)], **fields)
    assert work(bench, task=0, restart=0, patch=lambda: None) == 0
    number, killed = 0, True
    while killed:
        number += 1
        here = type(bench)(tmp_path / str(number))
        shutil.copytree(bench.layout.trials, here.layout.trials, symlinks=True)
        here.plan([here.run(resource=2)], [here.run(resource=4, rung=1)], **fields)
        status = work(here, task=1, restart=0, patch=functools.partial(die_at, number))
        killed = os.WIFSIGNALED(status)
        assert killed or status == 0
        newest = checkpoints.newest(here.trial())
        assert newest is not None
        assert (newest.path / "model").read_text() == f"{newest.step}\n"
        assert work(here, task=1, restart=1, patch=lambda: None) == 0
        outcomes = [r for r in here.results() if r.rung == 1 and r.outcome]
        assert [(r.outcome, r.value, r.step) for r in outcomes] == [(Outcome.COMPLETED, 0.4, 4)]
        assert sorted(os.listdir(here.trial().checkpoints)) == ["step-4"]
    assert number > 20


def test_a_result_that_cannot_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(bench.temporary))
    bench.plan_command("echo val_error=0.5", metrics=(r"val_error=(?P<val_error>\S+)",))
    fails = iter((True, True, False))

    def write(batch: BatchLayout, result: Result, *, n: int) -> Path:
        if next(fails):
            raise OSError(5, "Input/output error")
        return write_result(batch, result, n=n)

    def patch() -> None:
        monkeypatch.setattr(worker_task, "write_result", write)
        monkeypatch.setattr(worker_task, "_RETRY_S", (0.01, 0.01))

    assert work(bench, task=0, restart=0, patch=patch) == 0
    assert [result.value for result in bench.results()] == [0.5]
