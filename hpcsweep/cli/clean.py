"""`clean`: remove checkpoints that nothing can need any more, after saying which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from hpcsweep.cli.exit_codes import errors_exit
from hpcsweep.cli.format import size
from hpcsweep.cli.sanitize import json_text
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import AnyEvent, CheckpointsDropped, CheckpointsRemoved
from hpcsweep.core.quoting import shell_join
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, HeldError
from hpcsweep.session.algorithms import retention_of
from hpcsweep.session.session import Session, make_compactor
from hpcsweep.spec import SweepSpec
from hpcsweep.store.checkpoints import Held, held_by_trial
from hpcsweep.store.compaction.parts import Answer, Order, RemoveCheckpoints, WriteTables
from hpcsweep.store.compaction.tables import read_tables
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import Folder

#: So many trials are named.
NAMED = 10


def clean(path: Path, *, yes: bool, best: bool, json: bool) -> None:
    """Tell what would go and what stays, and with `yes` remove it.

    Args:
        path: The results folder.
        yes: Remove.
        best: Those of trials that were trained to the end go as well, but the best one's.
        json: Tell in JSON.
    """
    with errors_exit():
        folder = Folder(path)
        if not folder.layout.spec.exists():
            raise FolderError(f"{folder.layout.spec}: is missing: it says who may go on; bring it back")
        session = Session.for_request(folder.layout, folder.state)
        _refuse_beside_driver(folder, path)
        held = held_by_trial(folder.layout)
        going = _useless(session.spec, folder.reading.events, held, best=best)
        told = _told(held, going)
        if yes and (going or folder.state.dropping):
            with session.acquire(SystemClock()) as journal:
                told |= _remove(session.spec, journal or Journal.open(folder.layout), held, best=best)
        if json:
            typer.echo(json_text(told))
            return
        for line in _lines(told, path, yes=yes, best=best):
            typer.echo(line)


def _refuse_beside_driver(folder: Folder, path: Path) -> None:
    driver = folder.driver
    if driver is not None:
        raise HeldError(
            f"{path}: {driver} is driving this sweep, and removes by itself what can never go on "
            "(train.keep: survivors); to clean up by hand, end it first"
        )


def _useless(
    spec: SweepSpec, events: Sequence[AnyEvent], held: Mapping[int, Held], *, best: bool
) -> list[int]:
    """Trials that have checkpoints of no use."""
    state, retention = retention_of(spec, events, keep_trained=not best)
    # What was removed before may be there again: of a worker that nobody knew to be alive.
    return [trial for trial in held if trial in retention.removable or trial in state.dropped]


def _told(held: Mapping[int, Held], going: Sequence[int]) -> dict[str, Any]:
    stays = [trial for trial in held if trial not in set(going)]
    return {
        "trials": list(going),
        "files": sum(held[trial].files for trial in going),
        "bytes": sum(held[trial].bytes for trial in going),
        "kept_trials": stays,
        "kept_files": sum(held[trial].files for trial in stays),
        "kept_bytes": sum(held[trial].bytes for trial in stays),
        "removed": False,
    }


def _remove(spec: SweepSpec, journal: Journal, held: Mapping[int, Held], *, best: bool) -> dict[str, Any]:
    """Remove what is useless by the newest events; what came of it.

    Raises:
        HeldError: A driver has begun meanwhile.
    """
    try:
        journal.acquire()
        layout, events = journal.layout, journal.events
        going = _useless(spec, events, held, best=best)
        tabled = read_tables(layout) is not None
        dropped = SweepState.replay(events)
        new = tuple(trial for trial in going if trial not in dropped.dropped)
        if new:
            journal.commit([CheckpointsDropped(new)])
        answer = _carried_out(layout, RemoveCheckpoints(tuple(dict.fromkeys([*dropped.dropping, *going]))))
        if answer.trials:
            journal.commit(
                [CheckpointsRemoved(answer.trials, answer.had, files=answer.files, bytes=answer.bytes)]
            )
        if tabled:
            _carried_out(layout, WriteTables())
        left = sorted(set(going).difference(answer.trials))
        return {"removed": True, "files": answer.files, "bytes": answer.bytes, "left_trials": left}
    finally:
        journal.release()


def _carried_out(layout: Layout, order: Order) -> Answer:
    """What came of an order.

    Raises:
        FolderError: It could not be carried out.
    """
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


def _lines(told: Mapping[str, Any], path: Path, *, yes: bool, best: bool) -> list[str]:
    kept = _amount(told["kept_bytes"], told["kept_files"], len(told["kept_trials"]))
    kept = f"kept: {kept} that may go on, were trained to the end or are the best"
    if not told["trials"]:
        return ["nothing to remove: no trial has checkpoints that nothing can need any more", kept]
    what = f"{_amount(told['bytes'], told['files'], len(told['trials']))}: {_named(told['trials'])}"
    if not yes:
        command = ["hpcsweep", "clean", str(path), *(["--best"] if best else []), "--yes"]
        return [f"would remove {what}", kept, f"nothing was removed; do it with: {shell_join(command)}"]
    lines = [f"removed {what}", kept]
    if told.get("left_trials"):
        lines.append(f"could not be removed, see the permissions of: trials {_named(told['left_trials'])}")
    return lines


def _amount(count: int, files: int, trials: int) -> str:
    return f"{size(count)} in {files} file{'s' * (files != 1)} of {trials} trial{'s' * (trials != 1)}"


def _named(trials: Sequence[int]) -> str:
    named = [str(trial) for trial in trials[:NAMED]]
    return ", ".join([*named, ".."] if len(trials) > NAMED else named)
