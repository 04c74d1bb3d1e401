"""`launch` while the results folder cannot be read or written for a while: it says so and goes on."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cli.progress import LogDisplay
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import RunFinished
from hpcsweep.driver import Driver
from hpcsweep.session.target import Target
from hpcsweep.store import journal
from hpcsweep.store.files import write_all
from hpcsweep.store.journal.segments import Header, Position, encode_line, read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from tests.doubles import SHAPE, FolderCluster

SPEC = """\
name: s
train: {function: trainer.py:train, check: false}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: random
scheduler: {name: halving, max_resource: 4, eta: 2}
resources: {gpus: 1}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of 4 runs, then 2, then 1; one of them is done at each poll."""
    launch = importlib.import_module("hpcsweep.cli.launch")  # its function has the same name
    cluster = FolderCluster(tmp_path / "controller", per_poll=1)
    place = Target("jobs", "a test", cluster, SHAPE, reuse=False, max_tasks=4)
    monkeypatch.setattr("hpcsweep.session.session.resolve_target", lambda spec, name, state: place)
    monkeypatch.setattr(launch, "RETRY_S", 0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trainer.py").write_text("def train(trial): ...\n")
    (tmp_path / "s.yaml").write_text(SPEC)
    return tmp_path / "s.yaml"


def check_whole(folder: Path) -> None:
    events = read_journal(Layout(folder)).events
    runs = Counter(event.run for event in events if isinstance(event, RunFinished))
    assert sorted(run.rung for run in runs) == [0, 0, 0, 0, 1, 1, 2]
    assert set(runs.values()) == {1}


def fails(times: range, error: int, action: Callable[..., object]) -> Callable[..., object]:
    """The same action, but that some of its calls fail."""
    calls = Counter[str]()

    def failing(*of: object, **more: object) -> object:
        calls["all"] += 1
        if calls["all"] - 1 in times:
            raise OSError(error, os.strerror(error))
        return action(*of, **more)

    return failing


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("where", ["tick", "write", "sync"])
def test_launch_resumes_when_the_folder_is_available_again(
    spec: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
) -> None:
    if where == "tick":
        monkeypatch.setattr(Driver, "_handle_requests", fails(range(2, 5), code, Driver._handle_requests))
    elif where == "write":
        monkeypatch.setattr("hpcsweep.store.journal.write_all", fails(range(4, 7), code, write_all))
    else:  # a line that is whole, and of which nobody knows whether it is on disk
        monkeypatch.setattr(journal.Journal, "_sync", fails(range(4, 7), code, journal.Journal._sync))
    done = CliRunner().invoke(app, ["launch", str(spec)])
    assert done.exit_code == 0, done.output
    assert f"{os.strerror(code)}" in done.stderr
    assert "tries again in 0.01 s" in done.stderr
    check_whole(spec.parent / "results" / "s")


@pytest.mark.parametrize("gave_up", [True, False])
def test_launch_goes_on_unless_the_driver_that_took_over_is_at_work(
    spec: Path, monkeypatch: pytest.MonkeyPatch, gave_up: bool
) -> None:
    take_requests, calls = Driver._handle_requests, Counter[str]()

    def superseded_at_third(driver: Driver) -> None:
        calls["tick"] += 1
        if calls["tick"] == 3:
            folder = driver.layout.journal
            newest = max(folder.iterdir())
            number = int(newest.stem)
            header = Header(number + 1, ProcessId.me(), 0.0, Position(number, newest.stat().st_size))
            newer = folder / f"{number + 1:06d}.jsonl"
            newer.write_bytes(b"" if gave_up else encode_line(header))
        take_requests(driver)

    monkeypatch.setattr(Driver, "_handle_requests", superseded_at_third)
    done = CliRunner().invoke(app, ["launch", str(spec)])
    assert ("a newer driver took over; tries again in 0.01 s" in done.stderr) is gave_up
    if gave_up:
        assert done.exit_code == 0, done.output
        check_whole(spec.parent / "results" / "s")
    else:
        assert done.exit_code == 3
        assert done.stderr.endswith("a newer driver took over\n")


def test_folder_that_is_unavailable_from_the_start_is_an_error(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcsweep.store.journal.write_all", fails(range(100), errno.ENOSPC, write_all))
    done = CliRunner().invoke(app, ["launch", str(spec)])
    assert done.exit_code == 2
    assert "No space left on device. Nothing is lost: free space or quota" in done.stderr


def test_launch_ends_when_its_output_is_closed(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("hpcsweep.cli.launch")
    monkeypatch.setattr(module, "errors_exit", contextlib.nullcontext)
    monkeypatch.setattr(LogDisplay, "tick", fails(range(1, 2), errno.EPIPE, LogDisplay.tick))
    with pytest.raises(BrokenPipeError):
        module.launch(spec, results=None, cluster=None, overrides=[], once=False, detach=False, quiet=False)


def test_unmounted_folder_does_not_start_a_new_sweep(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the file system is unmounted: nothing is there then."""
    folder, away = spec.parent / "results" / "s", spec.parent / "away"
    take_requests, sleep = Driver._handle_requests, SystemClock.sleep
    calls = Counter[str]()

    def unmounted_at_third(driver: Driver) -> None:
        calls["tick"] += 1
        if calls["tick"] == 3:
            folder.rename(away)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        take_requests(driver)

    def mounted_at_third(clock: SystemClock, seconds: float) -> None:
        if away.exists():
            calls["sleep"] += 1
            assert not folder.exists()
            if calls["sleep"] == 3:
                away.rename(folder)
        sleep(clock, min(seconds, 0.01))

    monkeypatch.setattr(Driver, "_handle_requests", unmounted_at_third)
    monkeypatch.setattr(SystemClock, "sleep", mounted_at_third)
    done = CliRunner().invoke(app, ["launch", str(spec)])
    assert done.exit_code == 0, done.output
    assert "results/s: its journal is gone" in done.stderr
    check_whole(folder)
