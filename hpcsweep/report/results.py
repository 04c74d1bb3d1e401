"""`hpcsweep.load(folder)`: a results folder as pandas frames."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsweep.core.space import Space
from hpcsweep.report.attempts import attempts
from hpcsweep.report.folder import Folder, best_of
from hpcsweep.report.tables import table

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """A results folder as it was when it was loaded.

    Attributes:
        path: The folder.
        best: Trial, value, resource and config of the best trial; None while there is no value.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder(path)
        self.best: dict[str, Any] | None = best_of(self.folder.state)

    @property
    def identity(self) -> dict[str, Any]:
        """What never changes in a sweep: objective, space, constraints, searcher, scheduler."""
        started = self.folder.state.started
        return started.identity if started else {}

    @property
    def name(self) -> str:
        """Of the sweep."""
        started = self.folder.state.started
        return started.name if started else self.path.name

    @property
    def metric(self) -> str:
        """Name of the objective's metric."""
        return str(self.identity.get("objective", {}).get("metric", "value"))

    @property
    def minimise(self) -> bool:
        """Whether a smaller value is better."""
        return self.folder.state.minimise

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The resolved spec, as `sweep.yaml` has it."""
        from hpcsweep.spec.reading import read_yaml

        return read_yaml(self.folder.layout.spec)

    @cached_property
    def space(self) -> Space:
        """The parameters with their domains and conditions."""
        from hpcsweep.spec.parameters import read_space
        from hpcsweep.spec.problems import Problems

        problems = Problems(str(self.path), {})
        space = read_space(self.identity.get("space", {}), self.identity.get("constraints", []), problems)
        problems.raise_if_any()
        assert space is not None
        return space

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial."""
        return table("trials", self.folder.state, self.folder.layout)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run: a trial at a rung."""
        return table("runs", self.folder.state, self.folder.layout)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for each trial, rung and step that reported."""
        return table("metrics", self.folder.state, self.folder.layout)

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One row for each ending of a try at a run; see `report.attempts`."""
        return attempts(self.folder.reading.events)


def load(folder: str | os.PathLike[str]) -> Results:
    """Read a results folder; needs neither Slurm nor the training code.

    Raises:
        FolderError: It is not a results folder.
        JournalError: Its journal is damaged.
    """
    return Results(Path(folder))
