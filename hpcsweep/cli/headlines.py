"""The first lines of `launch`: where the sweep runs, whether it is new, and what is to be known of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural, shell_join
from hpcsweep.errors import FolderError
from hpcsweep.session.session import Session
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.progress import journal_counts


def headlines(session: Session, source: Path | str, *, starts_tasks: bool, detach: bool) -> Iterator[str]:
    """Where the sweep runs, what its tasks hold there, and how this launch extends it."""
    target = session.target
    name, folder = session.spec.name, session.layout.root
    yield f"hpcsweep: {name} in {folder} ({_progress(session.state)}), on {target.why}"
    if session.state is None and isinstance(source, Path):
        yield from _others_beside(source, session.layout)
    held = target.allocation() if starts_tasks else None
    if held is not None and held.why:
        yield f"note: {target.allocation_note(held)}"
    ticks = target.tick_note() if detach else ""
    if ticks:
        yield f"note: {ticks}"
    for warning in session.warnings:
        yield f"note: {warning}"
    quota = session.quota_forecast
    if quota is not None and quota.too_small:
        yield f"note: {quota.text}"
    for change in session.extensions:
        yield f"extended: {change}"
    trials = session.restarted_from_scratch()
    if trials:
        yield _from_scratch(trials)


def _progress(state: SweepState | None) -> str:
    """Whether a sweep begins."""
    if state is None:
        return "new"
    return f"carries on, {_done(state)}"


def _done(state: SweepState) -> str:
    counts = journal_counts(state)
    return f"{plural(sum(counts.get(key, 0) for key in ('completed', 'failed', 'stopped')), 'run')} done"


def _others_beside(source: Path, layout: Layout) -> Iterator[str]:
    """That the sweep was started beside its spec, where this launch begins anew elsewhere."""
    other = source.resolve().parent / "results" / layout.root.name
    if other == layout.root:
        return
    try:
        state = SweepState.replay(read_journal(Layout(other)).events)
    except FolderError:
        return
    if state.started is not None:
        again = shell_join(["hpcsweep", "launch", str(source), "--results", os.path.relpath(other)])
        yield f"note: {other} holds a sweep of this name ({_done(state)}); to carry it on: {again}"


def _from_scratch(trials: Sequence[int]) -> str:
    """That these trials restart without a checkpoint."""
    one = len(trials) == 1
    return (
        f"note: {plural(len(trials), 'trial')} {'restarts' if one else 'restart'} from scratch: "
        f"{'its checkpoint was' if one else 'their checkpoints were'} removed when "
        f"{'it' if one else 'they'} could not be needed any more; train.keep: all keeps them"
    )
