"""All sweeps below a folder: where they are, and how each stands in one row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hpcsweep.core.models import RunStatus
from hpcsweep.errors import FolderError, HpcsweepError
from hpcsweep.store.journal.segments import list_segments, read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import best_of, missing_folder
from hpcsweep.views.progress import SweepProgress, uses_gpus

#: Folders below the one that was given are looked into so deep.
DEPTH: Final = 6


class Found(NamedTuple):
    """Results folders, and folders that could not be looked into, with why."""

    sweeps: list[Path]
    unreadable: dict[Path, str]


def find_sweeps(root: Path, *, depth: int = DEPTH) -> Found:
    """The results folders at and below `root`, in the order of their names; not those within a sweep.

    Hidden folders and links to folders are passed over.

    Raises:
        FolderError: `root` is no folder, or cannot be read.
    """
    found = Found([], {})
    if not root.is_dir():
        raise FolderError(f"{root}: {'is a file' if root.exists() else 'does not exist'}: expected a folder")
    _walk(root, depth, found)
    if root in found.unreadable:
        raise FolderError(f"{root}: {found.unreadable[root]}")
    return found


def _walk(folder: Path, depth: int, found: Found) -> None:
    try:
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        if "journal" in below and list_segments(Layout(folder).journal):
            found.sweeps.append(folder)
            return
    except OSError as error:
        found.unreadable[folder] = f"cannot be read: {error.strerror}"
        return
    if depth:
        for name in below:
            if not name.startswith("."):
                _walk(folder / name, depth - 1, found)


class SweepOverview(NamedTuple):
    """One sweep at one moment.

    Attributes:
        record: What `list --json` prints of it: all that is known without the queue and the metrics files.
    """

    path: Path
    progress: SweepProgress
    record: dict[str, Any]


def read_overview(path: Path) -> SweepOverview:
    """How the sweep stands, from its journal alone.

    Raises:
        FolderError: It is no results folder, or cannot be read.
    """
    layout = Layout(path)
    journal = read_journal(layout)
    if journal.tail is None:
        raise missing_folder(path)
    progress = SweepProgress.replay(journal.events)
    state = progress.state
    best = best_of(state)
    updated = journal.tail.path.stat().st_mtime
    record = {
        "folder": str(path),
        "name": state.started.name if state.started else path.name,
        "status": progress.status,
        "reason": state.ended.reason if state.ended is not None else "",
        "metric": state.metric,
        "best": best,
        "trials": len(state.trials),
        "runs": {status.value: state.counts[status] for status in RunStatus},
        "gpu_hours": round(state.spent_gpu_s / 3600, 6) if uses_gpus(state) else None,
        "run_hours": round(state.spent_s / 3600, 6),
        "simulated": state.simulated,
        "started": state.started.at if state.started else None,
        "updated": updated,
    }
    return SweepOverview(path, progress, record)


def read_overviews(found: Found) -> Iterator[SweepOverview | tuple[Path, str]]:
    """Each sweep in turn, or why it could not be read."""
    for path in found.sweeps:
        try:
            yield read_overview(path)
        except (HpcsweepError, OSError) as error:
            problem = str(error).removeprefix(f"{path}: ")
            yield path, problem
