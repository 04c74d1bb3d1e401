"""Which batch a line of squeue or sacct belongs to: by job id, name, folder and comment. Pure.

Sites rename jobs, and wrappers of squeue cut what they show. One key that does not fit is therefore no
proof that a job is not ours. Where the id fits, only a contradiction says that Slurm has given it again.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.cluster.slurm.rows import Row

#: A job that was submitted longer than this before its batch was planned is another one. Clocks differ.
CLOCKS_S: Final = 3600.0


class Identity(msgspec.Struct, frozen=True):
    """By what a batch is known.

    Attributes:
        name: As it was submitted.
        job: Id that sbatch gave, empty while unknown.
        folder: The batch's own, whose last part is its name; empty where unknown.
        since: It was submitted no earlier; Unix time, 0 where unknown.
        workdir: Where its script starts, where that is not its own folder.
    """

    name: str
    job: str
    folder: Path
    since: float = 0.0
    workdir: str | None = None

    def owns(self, row: Row) -> bool:
        """Whether the row is of this batch."""
        if row.name == self.name or _names(row.comment, self.name):
            return True
        place = self._place(row)
        if place is _Fits.YES:
            return True
        name = self._name(row)
        if name is _Fits.YES and place is not _Fits.NO:
            return True
        if not self.job or row.array != self.job:
            return False
        other_user = row.user is not None and row.user != os.getuid()
        older = row.submitted is not None and row.submitted < self.since - CLOCKS_S
        return name is not _Fits.NO or not (place is _Fits.NO or other_user or older)

    def _name(self, row: Row) -> _Fits:
        if _names(row.name, self.name):
            return _Fits.YES
        ours, shown = _plain(self.name), _plain(row.name)
        return _Fits.UNKNOWN if ours.startswith(shown) else _Fits.NO  # cut, or not shown at all

    def _place(self, row: Row) -> _Fits:
        if self.name in Path(row.folder).parts:
            return _Fits.YES
        if not self.workdir and self.folder == Path():  # not known here
            return _Fits.UNKNOWN
        # A shared folder proves nothing, nor one that was cut.
        return _Fits.UNKNOWN if (self.workdir or str(self.folder)).startswith(row.folder) else _Fits.NO


class _Fits(enum.Enum):
    YES = enum.auto()
    NO = enum.auto()
    UNKNOWN = enum.auto()


def owner(row: Row, batches: Sequence[Identity]) -> str | None:
    """Name of the batch that the row is of, None if it is of none; the exact name goes first, then the id."""
    # Where nothing was changed this is all that a large queue costs.
    exact = next((batch for batch in batches if batch.name == row.name), None)
    if exact is not None:
        return exact.name
    owners = [batch for batch in batches if batch.owns(row)]
    return max(owners, key=lambda batch: row.array == batch.job).name if owners else None


def has_name(row: Row, names: Iterable[str]) -> bool:
    """Whether the row's name or comment holds one of these names, which are long enough to be unique."""
    return any(_names(text, name) for name in names for text in (row.name, row.comment))


def _plain(name: str) -> str:
    """The name as a site may have rewritten it: case and punctuation do not count."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _names(text: str, name: str) -> bool:
    """Whether the text holds the name, whatever stands around it; `s-1` is not in `s-11`."""
    return bool(re.search(rf"{re.escape(_plain(name))}(?!\d)", _plain(text)))
