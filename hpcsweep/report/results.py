"""`hpcsweep.load(folder)`: a results folder as pandas frames."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsweep.report.folder import Folder, best_of
from hpcsweep.report.tables import table

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """A results folder as it was when it was loaded.

    Attributes:
        best: Trial, value, resource and config of the best trial; None while there is no value.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.best: dict[str, Any] | None = best_of(folder.state)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial."""
        return table("trials", self._folder.state, self._folder.layout)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run: a trial at a rung."""
        return table("runs", self._folder.state, self._folder.layout)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for each trial, rung and step that reported."""
        return table("metrics", self._folder.state, self._folder.layout)


def load(folder: str | os.PathLike[str]) -> Results:
    """Read a results folder; needs neither Slurm nor the training code.

    Raises:
        FolderError: It is not a results folder.
        JournalError: Its journal is damaged.
    """
    return Results(Folder(Path(folder)))
