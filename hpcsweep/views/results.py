"""`hpcsweep.load(folder)`: a results folder as pandas frames."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cached_property
from html import escape
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.events import Outcome, classify_failure
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.errors import FolderError
from hpcsweep.store.compaction import read_tables
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.views.folder import ResultsFolder, best_of, read_provenance
from hpcsweep.views.format import best_text, describe_best
from hpcsweep.views.tables import (
    KEYS,
    attempts_table,
    metrics_table,
    read_part,
    runs_table,
    to_frame,
    trials_table,
    whole_table,
)
from hpcsweep.views.trial_rows import best_rows, rows_frame, trial_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from hpcsweep.html.plots import Plots
    from hpcsweep.views.front_history import FrontHistory


#: Configurations that a notebook shows.
SHOWN: Final = 10


class Results:
    """A results folder as it was when it was loaded: tables, best configurations, figures.

    `trials_dataframe()` has all that is known of each trial in one row, `best_configurations(n)` the best of
    them, and `plot` the figures of the report. Of a sweep that has ended and is compacted the other tables
    are read without its journal.

    Attributes:
        path: The folder.
        skipped: Unreadable files that were found so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped = Skipped()
        self._layout = Layout(path.resolve())
        self._tables = read_tables(self._layout)
        if self._tables is None:
            self.folder  # noqa: B018 -- says what is wrong with it

    @cached_property
    def folder(self) -> ResultsFolder:
        """The journal and the state that follows from it."""
        return ResultsFolder(self.path)

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """Trial, value, resource and config of the best trial; None while there is no value.

        With several objectives it is the knee of the front, with all `values`. As it may be None, it is no
        function: `best_configurations(n)` gives the best `n`.
        """
        return self._tables.best if self._tables else best_of(self.folder.state)

    @property
    def identity(self) -> dict[str, Any]:
        """What never changes in a sweep: objective, space, constraints, searcher, scheduler."""
        if self._tables:
            return self._tables.identity
        started = self.folder.state.started
        return started.identity if started else {}

    @property
    def name(self) -> str:
        """Of the sweep."""
        if self._tables:
            return self._tables.name
        started = self.folder.state.started
        return started.name if started else self.path.name

    @property
    def simulated(self) -> bool:
        """Whether it is of `hpcsweep simulate`: nothing was trained, and times are virtual."""
        return self._tables.simulated if self._tables else self.folder.state.simulated

    def __repr__(self) -> str:
        """For example `lr: finished, 22 trials; best loss 0.1 (trial 3 at step 9); folder results/lr`."""
        if self._tables is None:
            state = self.folder.state
            status = self.folder.progress.status if state.started else "not started"
            trials, best = len(state.trials), best_text(state)
        else:
            status, trials = "ended", len(self.trials)
            best = describe_best(self.best, self.objectives)
        status = f"simulated, {status}" if self.simulated else status
        best = best if self.best is None else f"best {best}"
        return f"{self.name}: {status}, {plural(trials, 'trial')}; {best}; folder {self.path}"

    def _repr_html_(self) -> str:
        """What notebooks show: how far the sweep is, and its best configurations."""
        state = self.folder.state
        trials = f"{plural(len(state.trials), 'trial')}{', simulated' if self.simulated else ''}"
        title = f"<p><b>{escape(self.name)}</b>: {trials}, {escape(self.folder.progress.status)}</p>"
        columns = ["trial", "value", "resource", "rung", "seconds"]
        best = self.best_configurations(SHOWN)
        shown = (
            [*columns, *(name for name in map(str, best) if name.startswith("config."))] if len(best) else []
        )
        return title + (best[shown].to_html(index=False) if shown else "<p>no value yet</p>")

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """All that is known of each trial, `config` and `metrics` as mappings. Reads the journal."""
        # In this order: processes that replay a journal after pyarrow has read may be aborted as they end.
        state, events = self.folder.state, self.folder.events
        last: dict[int, dict[str, float]] = {}
        table = self._metrics_table
        trials = table["trial"].to_numpy() if len(table) else ()
        for name in table.column_names[len(KEYS) :]:
            for trial, value in zip(trials, table[name].to_pylist(), strict=True):
                if value is not None:
                    last.setdefault(int(trial), {})[name] = value
        return trial_rows(state, events, last)

    def trials_dataframe(self) -> pd.DataFrame:
        """One row for each trial with all that is known of it: `config.*`, `metrics.*`, cost, times, seed.

        Metrics are those reported last; with several objectives `values.*` are those that count. `started`
        and `ended` are timestamps in UTC, `duration` is the time between them. Whole numbers and booleans
        stay what they are where some are missing (`Int64`, `boolean`); parameters with listed texts are
        categories. Reads the journal.
        """
        return self._frame(self.rows)

    def _frame(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        return rows_frame(rows, self.space if rows else None)

    def best_configurations(self, n: int = 10) -> pd.DataFrame:
        """The best `n` configurations, best first, in the columns of `trials_dataframe`.

        Of a configuration that is trained several times it is the row of the first training, with the mean
        as its value.
        """
        return self._frame(best_rows(self.rows, self.folder.state, n))

    @cached_property
    def plot(self) -> Plots:
        """The figures of the report as objects of plotly, by name: `results.plot.importance().show()`.

        `print(results.plot)` lists them.
        """
        from hpcsweep.html.plots import Plots

        return Plots(self)

    @cached_property
    def objectives(self) -> Objectives:
        """What it optimises."""
        return Objectives.read(self.identity.get("objective"))

    @property
    def front(self) -> pd.DataFrame:
        """One row for each configuration that none dominates, the best in the first objective first.

        Its (first) trial, `values.*`, the resource that they are of, what it is picked for (`knee`, best of
        a metric; empty for nothing) and `config.*`. Where none keeps the bounds, those nearest to them. With
        one objective the best one.
        """
        import pandas as pd

        state = self.folder.state
        picks = {}
        if self.objectives.has_front and state.best is not None:
            from hpcsweep.views.fronts import front_of

            front = front_of(state)
            picks = front.picks if front else {}
        rows = [
            {"trial": best.trial}
            | {
                f"values.{m}": v
                for m, v in zip(self.objectives.metrics, best.values or (best.value,), strict=True)
            }
            | {"resource": best.resource, "picks": ", ".join(picks.get(best.trial, ()))}
            | {f"config.{name}": value for name, value in best.config.items()}
            for best in state.front
        ]
        return pd.DataFrame(rows)

    @property
    def hypervolume(self) -> float | None:
        """Of the front that keeps the bounds, as in `status`; None without values and with one objective."""
        history = self._front_history
        return None if history is None else history.value

    @property
    def hypervolume_history(self) -> pd.DataFrame:
        """One row for each change of the front: `seconds` since the start, cost, trial, `size` and `value`.

        All are measured up to the same reference point, which is in `attrs["reference"]` of the frame.
        """
        import pandas as pd

        history = self._front_history
        columns = ["seconds", "run_seconds", "gpu_seconds", "trial", "size", "value"]
        steps = [step[1:] for step in history.steps] if history else []
        frame = pd.DataFrame(steps, columns=columns)
        if history is not None:
            frame.attrs["reference"] = history.point
        return frame

    @property
    def _front_history(self) -> FrontHistory | None:
        if not self.objectives.has_front:
            return None
        from hpcsweep.views.front_history import front_history

        return front_history(self.folder.progress)

    @property
    def metric(self) -> str:
        """Name of the objective's metric, of the first one of several."""
        return self.objectives[0].metric

    @property
    def minimise(self) -> bool:
        """Whether a smaller value is better."""
        return self.objectives[0].mode != "max"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The resolved spec, as `sweep.yaml` has it."""
        from hpcsweep.spec.yaml_io import read_yaml

        return read_yaml(self._layout.spec)

    @cached_property
    def provenance(self) -> list[dict[str, Any]]:
        """The launches that differed in code, packages, spec or command line, oldest first."""
        return read_provenance(self._layout)

    @cached_property
    def space(self) -> Space:
        """The parameters with their domains and conditions."""
        from hpcsweep.spec.checks import Problems
        from hpcsweep.spec.parameters import read_space

        problems = Problems(str(self.path), {})
        space = read_space(self.identity.get("space", {}), self.identity.get("constraints", []), problems)
        problems.raise_if_any()
        assert space is not None
        return space

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial."""
        trials = to_frame(self._table("trials", trials_table))
        if "failure" not in trials:  # of an earlier version
            last = self.runs.drop_duplicates("trial", keep="last").set_index("trial")["failure"]
            trials.insert(2, "failure", trials["trial"].map(last))
        return trials

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run: a trial at a rung."""
        runs = to_frame(self._table("runs", runs_table))
        if "failure" not in runs:  # of an earlier version
            ended = zip(runs["outcome"], runs["message"], strict=True)
            after = list(runs.columns).index("outcome") + 1
            runs.insert(after, "failure", list(starmap(_failure, ended)))
        return runs

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for each trial, rung and step that reported."""
        return to_frame(self._metrics_table)

    @property
    def _metrics_table(self) -> pa.Table:
        tables = self._tables
        if tables is not None:
            with contextlib.suppress(FileNotFoundError):
                metrics = whole_table(self._layout, tables.parts, tables.raw, self.skipped)
                if not tables.raw or read_tables(self._layout) == tables:
                    return metrics
        return metrics_table(self._layout, self.folder.events, self.skipped)

    def _table(self, name: str, build: Callable[[SweepState], pa.Table]) -> pa.Table:
        if self._tables is not None:
            # The sweep is carried on just now, or the table is damaged: the journal has it all.
            with contextlib.suppress(FileNotFoundError, FolderError):
                return read_part(self._tables.path(self._layout, name))
        return build(self.folder.state)

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One row for each ending of a try at a run; see `tables.attempts_table`."""
        return attempts_table(self.folder.events)


def _failure(outcome: object, message: object) -> str | None:
    kind = classify_failure(Outcome(outcome), None, str(message)) if isinstance(outcome, str) else None
    return kind.value if kind else None


def skipped_lines(results: Results) -> list[str]:
    """Files that could not be read so far, one line for each."""
    return results.skipped.lines(results.path.resolve())


def load(folder: str | os.PathLike[str]) -> Results:
    """Read a results folder; needs neither Slurm nor the training code.

    Raises:
        FolderError: It is not a results folder.
        JournalError: Its journal is damaged.
    """
    return Results(Path(folder))
