"""The sweeps below some folders, and a report page of each; what was read is kept until a sweep changes."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from hpcsweep.core.text import plural
from hpcsweep.errors import FolderError, HpcsweepError
from hpcsweep.html.page import page, render
from hpcsweep.html.sections import Section, SweepList, SweepRow, Text
from hpcsweep.store.layout import Layout
from hpcsweep.views.format import best_text, cost, duration
from hpcsweep.views.overview import SweepOverview, find_sweeps, read_overview
from hpcsweep.views.results import load

#: Report pages that are kept; one takes about a megabyte.
MOST_REPORTS: Final = 20

ShareDone: TypeAlias = Callable[[SweepOverview], float | None]
#: Names, sizes and times of the files that a page is made from.
Fingerprint: TypeAlias = tuple[tuple[str, int, int], ...]


class _Read(NamedTuple):
    """What the list has of a sweep whose journal was like that; `live` are trials with runs under way."""

    journal: Fingerprint
    row: SweepRow
    updated: float
    live: tuple[int, ...]


class _Report(NamedTuple):
    made_from: Fingerprint
    html: str


class Library:
    """All sweeps below the folders; several threads may ask.

    A sweep is known by the place of its folder among those given, and the path below that: `0/lr/first`. No
    path that somebody asks for is looked up on the disk, only those that were found there.

    Args:
        folders: Where to look.
        share_done: The share of its training that a sweep has done.
        every: Seconds after which pages load themselves again.

    Raises:
        FolderError: One of them is no folder, or cannot be read.
    """

    def __init__(self, folders: Sequence[Path], *, share_done: ShareDone, every: float) -> None:
        self._folders = list(folders)
        self._share_done = share_done
        self._every = every
        self._lock = threading.Lock()  # one page at a time: login nodes are shared
        self._paths: dict[str, Path] = {}
        self._read: dict[Path, _Read] = {}
        self._reports: OrderedDict[Path, _Report] = OrderedDict()
        self._find(strict=True)

    def __len__(self) -> int:
        """Sweeps that were found the last time."""
        return len(self._paths)

    def list_page(self) -> str:
        """The page with all sweeps, the one that changed last first."""
        with self._lock:
            now = time.time()
            unreadable = self._find()
            found: list[tuple[float, SweepRow]] = []
            for key, path in self._paths.items():
                try:
                    read = self._overview(path)
                except (HpcsweepError, OSError) as error:
                    unreadable[path] = str(error)
                    continue
                age = f"{duration(max(0.0, now - read.updated))} ago"
                row = read.row._replace(key=key, folder=self._shown(key), updated=age)
                found.append((-read.updated, row))
            rows = [row for _, row in sorted(found, key=lambda each: each[0])]
            where = " and ".join(str(folder) for folder in self._folders)
            caption = f"{plural(len(rows), 'sweep')} below {where}, the one that changed last first."
            sections = [Section("sweeps", "Sweeps", [SweepList(rows, caption)])]
            if unreadable:
                lines = [Text(_named(*each), "warning") for each in sorted(unreadable.items())]
                sections.append(Section("unreadable", "Cannot be read", lines))
            return render("Sweeps", sections, at=now, every=self._every, home="")

    def report_page(self, key: str, *, home: str) -> str | None:
        """The report of a sweep, None where there is no such sweep.

        Args:
            key: Of the sweep.
            home: Address of the list, to which the page has a link.

        Raises:
            HpcsweepError: It cannot be read.
            OSError: The same, by the filesystem.
        """
        with self._lock:
            path = self._path_of(key)
            if path is None:
                return None
            made_from = self._fingerprint(path)
            known = self._reports.get(path)
            if known is None or known.made_from != made_from:
                html = page(load(path), at=time.time(), every=self._every, home=home)
                known = self._reports[path] = _Report(made_from, html)
            self._reports.move_to_end(path)
            while len(self._reports) > MOST_REPORTS:
                self._reports.popitem(last=False)
            return known.html

    def _path_of(self, key: str) -> Path | None:
        """The folder of a sweep that is there, as it was found: not one that became a link meanwhile."""
        if key not in self._paths:
            self._find()
        path = self._paths.get(key)
        return path if path is not None and path.resolve() == path and path.is_dir() else None

    def _find(self, *, strict: bool = False) -> dict[Path, str]:
        """Look for sweeps; folders that cannot be looked into, and why. Strict: a folder given has to be."""
        paths: dict[str, Path] = {}
        seen: set[Path] = set()  # one that is below two of the folders is shown once
        unreadable: dict[Path, str] = {}
        for index, folder in enumerate(self._folders):
            root = folder.resolve()
            try:
                found = find_sweeps(root)
            except FolderError as error:
                if strict:
                    raise FolderError(str(error).replace(str(root), str(folder), 1)) from None
                unreadable[root] = str(error)
                continue
            unreadable |= found.unreadable
            paths |= {f"{index}/{_below(path, root)}": path for path in found.sweeps if path not in seen}
            seen.update(found.sweeps)
        self._paths = paths
        for gone in self._read.keys() - set(self._paths.values()):
            del self._read[gone]
        return unreadable

    def _overview(self, path: Path) -> _Read:
        journal = tuple(_stats(Layout(path).journal))
        read = self._read.get(path)
        if read is None or read.journal != journal:
            read = self._read[path] = self._read_overview(path, journal)
        return read

    def _read_overview(self, path: Path, journal: Fingerprint) -> _Read:
        overview = read_overview(path)
        state, record = overview.progress.state, overview.record
        row = SweepRow(
            name=record["name"],
            state=record["status"] + (" (simulated)" if state.simulated else ""),
            reason=record["reason"],
            done=self._share_done(overview),
            best=best_text(state),
            runs=record["runs"]["completed"],
            cost=cost(state),
        )
        live = {run.trial for batch in state.live.values() for run in batch.unfinished}
        return _Read(journal, row, record["updated"], tuple(sorted(live)))

    def _fingerprint(self, path: Path) -> Fingerprint:
        """Of the journal, and of what runs under way report."""
        read = self._overview(path)
        layout = Layout(path)
        reports = (_stats(layout.trial(trial).root) for trial in read.live)
        return (*read.journal, *(stat for stats in reports for stat in stats))

    def _shown(self, key: str) -> str:
        """The folder of a sweep, below the one that was given where there is only that."""
        index, _, below = key.partition("/")
        folder = self._folders[int(index)]
        return below or str(folder) if len(self._folders) == 1 else str(folder / below)


def problem_page(title: str, problem: str, *, home: str) -> str:
    """What is said in place of the report of a sweep that cannot be read."""
    return render(title, [Section("problem", "Cannot be read", [Text(problem, "warning")])], home=home)


def _named(path: Path, problem: str) -> str:
    """The problem with its folder, which many a message begins with."""
    return problem if problem.startswith(str(path)) else f"{path}: {problem}"


def _below(path: Path, root: Path) -> str:
    return "" if path == root else str(path.relative_to(root))


def _stats(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return
    for name, stat in sorted(stats, key=lambda pair: pair[0]):
        yield name, stat.st_size, stat.st_mtime_ns
