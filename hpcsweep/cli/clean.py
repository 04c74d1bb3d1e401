"""`clean`: remove checkpoints that are no longer needed, after showing which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from hpcsweep.cli.terminal import errors_exit, json_text
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import AnyEvent, CheckpointsDropped, CheckpointsRemoved
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import format_bytes, shell_join
from hpcsweep.errors import FolderError, HeldError
from hpcsweep.session.algorithms import replay_sweep
from hpcsweep.session.session import Session, make_compactor
from hpcsweep.spec import SweepSpec
from hpcsweep.store.checkpoints import DiskUsage, disk_usage_by_trial
from hpcsweep.store.compaction import (
    CompactionResult,
    CompactionTask,
    RemoveCheckpoints,
    WriteTables,
    read_tables,
)
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.tick import tick_task
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.format import listing


def clean(path: Path, *, yes: bool, best: bool, json: bool) -> None:
    """Show which checkpoints would be removed and which kept; with `yes`, remove them."""
    with errors_exit():
        folder = ResultsFolder(path)
        if not folder.layout.spec.exists():
            raise FolderError(f"{folder.layout.spec}: is missing: it tells who may resume; bring it back")
        session = Session.for_request(folder.layout, folder.state)
        _check_no_driver(folder, path)
        held = disk_usage_by_trial(folder.layout)
        removable = _removable(session.spec, folder.events, held, best=best)
        summary = _summarise(held, removable)
        if yes and (removable or folder.state.dropping):
            with session.acquire(SystemClock()) as journal:
                summary |= _remove(session.spec, journal or Journal.open(folder.layout), held, best=best)
        if json:
            typer.echo(json_text(summary))
        else:
            for line in _lines(summary, path, yes=yes, best=best):
                typer.echo(line)
        if summary["removed"] and folder.state.detached is not None and folder.state.ended is None:
            tick_task(folder.layout)  # tasks that ended meanwhile took this process for the driver


def _check_no_driver(folder: ResultsFolder, path: Path) -> None:
    driver = folder.driver
    if driver is not None:
        raise HeldError(
            f"{path}: {driver} is driving this sweep and removes unneeded checkpoints itself "
            "(train.keep: survivors); end it first to clean up by hand"
        )


def _removable(
    spec: SweepSpec, events: Sequence[AnyEvent], held: Mapping[int, DiskUsage], *, best: bool
) -> list[int]:
    """Trials whose checkpoints are no longer needed."""
    state, _, retention = replay_sweep(spec, events, keep_trained=not best)
    # A worker that was taken for dead may have written again what was removed before.
    return [trial for trial in held if trial in retention.removable or trial in state.dropped]


def _summarise(held: Mapping[int, DiskUsage], removable: Sequence[int]) -> dict[str, Any]:
    kept = [trial for trial in held if trial not in set(removable)]
    return {
        "trials": list(removable),
        "files": sum(held[trial].files for trial in removable),
        "bytes": sum(held[trial].bytes for trial in removable),
        "kept_trials": kept,
        "kept_files": sum(held[trial].files for trial in kept),
        "kept_bytes": sum(held[trial].bytes for trial in kept),
        "removed": False,
    }


def _remove(
    spec: SweepSpec, journal: Journal, held: Mapping[int, DiskUsage], *, best: bool
) -> dict[str, Any]:
    """Remove what is no longer needed by the newest events; returns what to add to the summary."""
    try:
        journal.acquire()
        layout, events = journal.layout, journal.events
        removable = _removable(spec, events, held, best=best)
        tabled = read_tables(layout) is not None
        state = SweepState.replay(events)
        new = tuple(trial for trial in removable if trial not in state.dropped)
        if new:
            journal.commit([CheckpointsDropped(new)])
        answer = _run_task(layout, RemoveCheckpoints(tuple(dict.fromkeys([*state.dropping, *removable]))))
        if answer.trials:
            journal.commit(
                [CheckpointsRemoved(answer.trials, answer.had, files=answer.files, bytes=answer.bytes)]
            )
        if tabled:
            _run_task(layout, WriteTables())
        left = sorted(set(removable).difference(answer.trials))
        return {"removed": True, "files": answer.files, "bytes": answer.bytes, "left_trials": left}
    finally:
        journal.release()


def _run_task(layout: Layout, order: CompactionTask) -> CompactionResult:
    """Run a compaction task in a process of its own."""
    worker = make_compactor(layout)
    try:
        worker.begin(order)
        while (answer := worker.answer(1.0)) is None:
            pass
    finally:
        worker.close()
    if answer.error:
        raise FolderError(f"{layout.root}: cannot be cleaned: {answer.error}")
    return answer


def _lines(summary: Mapping[str, Any], path: Path, *, yes: bool, best: bool) -> list[str]:
    kept = _amount(summary["kept_bytes"], summary["kept_files"], len(summary["kept_trials"]))
    kept = f"kept: {kept} that may resume, were trained to the end or are the best"
    if not summary["trials"]:
        return ["nothing to remove: all checkpoints may still be needed", kept]
    trials = summary["trials"]
    what = f"{_amount(summary['bytes'], summary['files'], len(trials))}: {listing(trials)}"
    if not yes:
        command = ["hpcsweep", "clean", str(path), *(["--best"] if best else []), "--yes"]
        return [f"would remove {what}", kept, f"nothing was removed; to remove, run: {shell_join(command)}"]
    lines = [f"removed {what}", kept]
    if summary.get("left_trials"):
        lines.append(
            f"could not be removed (check the permissions): trials {listing(summary['left_trials'])}"
        )
    return lines


def _amount(count: int, files: int, trials: int) -> str:
    return f"{format_bytes(count)} in {files} file{'s' * (files != 1)} of {trials} trial{'s' * (trials != 1)}"
