"""Metrics in a file of `train.metrics`, whatever its kind, followed while the program runs."""

from __future__ import annotations

import csv
import glob
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from hpcsweep.core.text import near_name
from hpcsweep.store.batch import MetricFile
from hpcsweep.store.layout import explain_error
from hpcsweep.store.run_files import Report
from hpcsweep.worker.metrics.documents import JsonSource, TrainerStateSource
from hpcsweep.worker.metrics.mlflow import MlflowDatabaseSource, MlflowFolderSource
from hpcsweep.worker.metrics.numbers import parse_step, whole_step
from hpcsweep.worker.metrics.records import TensorBoardSource, WandbSource
from hpcsweep.worker.metrics.reports import Reports
from hpcsweep.worker.metrics.rows import KnownRows, Row, Source
from hpcsweep.worker.metrics.tables import CsvSource, JsonLinesSource
from hpcsweep.worker.template import as_text

#: `step: rows` counts rows where the file has steps of its own.
ROWS: Final = "rows"
#: Files of one `file:` that are followed, and names that a message lists.
_MOST_FILES: Final = 1000
_LISTED: Final = 20
_SHOWN: Final = 60
_PLACEHOLDER: Final = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
#: What a damaged file makes its reader raise.
_DAMAGED: Final = (ValueError, OverflowError, RecursionError, TypeError, csv.Error, struct.error)


class Kind(NamedTuple):
    """One kind of files with metrics.

    Attributes:
        make: Makes the source of a path.
        pattern: Of names of such files.
        step: The step unless the spec names one; empty: rows are counted.
        noun: What its names are, for messages.
        within: Patterns of such files in a folder and beside a file that is given for them.
        summary: A JSON document beside each, with the results of a run that has ended.
    """

    make: Callable[[Path, MetricFile, KnownRows], Source]
    pattern: str
    step: str = ""
    noun: str = "columns"
    within: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    summary: str = ""


def _document(make: type[JsonSource], step: str = "") -> Callable[[Path, MetricFile, KnownRows], Source]:
    return lambda path, spec, known: make(
        path, step=spec.step or step, wanted=tuple(spec.values.values()), known=known
    )


def _mlflow(path: Path, spec: MetricFile, known: KnownRows) -> Source:
    return MlflowDatabaseSource(path) if path.suffix == ".db" else MlflowFolderSource(path)


#: In the order in which a name is looked up.
KINDS: Final[Mapping[str, Kind]] = {
    "trainer_state": Kind(
        _document(TrainerStateSource),
        r"trainer_state\.json",
        "step",
        "keys",
        within=("trainer_state.json", "checkpoint-*/trainer_state.json"),
        beside=("checkpoint-*/trainer_state.json",),
    ),
    "tensorboard": Kind(
        lambda path, spec, _: TensorBoardSource(path, tag="" if spec.step in (ROWS, "step") else spec.step),
        r".*tfevents.*",
        "step",
        "tags",
        within=("**/*tfevents*",),
    ),
    "wandb": Kind(
        lambda path, *_: WandbSource(path),
        r".*\.wandb|wandb",
        "_step",
        "keys",
        within=(
            "offline-run-*/*.wandb",
            "run-*/*.wandb",
            "wandb/offline-run-*/*.wandb",
            "wandb/run-*/*.wandb",
        ),
        summary="files/wandb-summary.json",
    ),
    "mlflow": Kind(
        _mlflow,
        r"mlruns|.*mlflow.*\.db",
        "step",
        "metrics",
        within=("", "mlruns", "mlflow.db"),
        beside=("mlflow.db",),  # what newer versions make in place of `mlruns`
    ),
    "csv": Kind(lambda path, *_: CsvSource(path), r".*\.(csv|tsv)"),
    "jsonl": Kind(lambda path, *_: JsonLinesSource(path), r".*\.(jsonl|ndjson)", noun="keys"),
    "json": Kind(_document(JsonSource), r".*\.json", noun="keys"),
}


def guess_kind(file: str) -> str | None:
    """The kind of a file by its name; None if it does not say."""
    name = file.rstrip("/").rpartition("/")[2].lower()
    return next((kind for kind, about in KINDS.items() if re.fullmatch(about.pattern, name)), None)


def placeholders(template: str) -> set[str]:
    """The names of its placeholders."""
    return {match[1] for match in _PLACEHOLDER.finditer(template) if match[1] is not None}


def fill_path(template: str, values: Mapping[str, Any], *, workdir: str) -> str:
    """The absolute path, a pattern of `glob`, with the values of its placeholders."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return glob.escape(as_text(values.get(match[1])))

    return os.path.join(glob.escape(workdir), _PLACEHOLDER.sub(value, template).rstrip("/") or "/")


class FileMetrics:
    """Follows the files of one entry: those that appear or change once the attempt has begun.

    What stood there before is another attempt's, another rung's or another trial's.
    """

    def __init__(
        self, spec: MetricFile, values: Mapping[str, Any], *, workdir: str, reports: Reports
    ) -> None:
        self._spec = spec
        self._kind = KINDS[spec.kind]
        self._step = "" if spec.step == ROWS else spec.step or self._kind.step
        self._pattern = fill_path(spec.file, values, workdir=workdir)
        self._reports = reports
        self._sources: dict[str, Source] = {}
        self._summaries: dict[str, JsonSource] = {}
        self._known = KnownRows()  # shared where several documents hold the same rows
        self._counts: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._reported = False
        #: Reports of rows that may be of an attempt before.
        self._held: list[Report] = []
        self._problems: dict[str, str] = {}
        #: What a metric had that is no number, by its name with us; and steps that are none.
        self._unread: dict[str, str] = {}
        self._unread_step = ""

    def begin(self) -> None:
        """Pass over what is there; to be called before the program starts."""
        for path in self._paths():
            source = self._sources[path] = self._make(path)
            self._guard(path, source.begin)
            if (summary := self._summary_beside(path)) is not None:
                self._guard(path, summary.begin)

    def poll(self, *, last: bool = False, whole: bool = False) -> bool:
        """Report what is new; whether anything is. See `Source.poll`."""
        found = False
        for path in self._paths():
            source = self._sources.get(path) or self._sources.setdefault(path, self._make(path))

            def take(source: Source = source, path: str = path) -> None:
                nonlocal found
                for row in source.poll(last=last, whole=whole):
                    self._changed.add(path)
                    found = True
                    self._take(row)

            self._guard(path, take)
            if source.anew:
                self._release()
        if last and whole and not self._reported:
            self._release()
        if last and whole:
            self._read_summaries()
        return found

    def _summary_beside(self, path: str) -> JsonSource | None:
        """The document with the results of the run whose file this is."""
        if not self._kind.summary:
            return None
        file = os.path.join(os.path.dirname(path), self._kind.summary)
        if file not in self._summaries:
            self._summaries[file] = JsonSource(Path(file), step="", wanted=())
        return self._summaries[file]

    def _read_summaries(self) -> None:
        """Report as results what stands nowhere else: as a last resort."""
        known = {name for source in self._sources.values() for name in source.names}
        for path in list(self._sources):
            if (summary := self._summary_beside(path)) is None:
                continue

            def take(summary: JsonSource = summary) -> None:
                for row in summary.poll(last=True, whole=True):
                    fields = {
                        name: value
                        for name, value in row.fields.items()
                        if name not in known and not name.startswith("_")
                    }
                    self._take(Row(fields, result=True))

            self._guard(path, take)

    def _release(self) -> None:
        """Report old rows after all: the program has written them anew."""
        self._reports.write(self._held)
        self._held.clear()

    def _make(self, path: str) -> Source:
        shared = self._known if self._spec.kind == "trainer_state" else KnownRows()
        return self._kind.make(Path(path), self._spec, shared)

    def _guard(self, path: str, action: Callable[[], None]) -> None:
        """A file that cannot be read now is no error of the worker; what is wrong is told at the end."""
        try:
            action()
        except OSError as error:
            self._problems[path] = explain_error(error)
        except _DAMAGED as error:
            self._problems[path] = str(error)
        else:
            self._problems.pop(path, None)

    def _paths(self) -> list[str]:
        """The files that there are now, the oldest first."""
        found: dict[str, float] = {}
        for path in self._named():
            try:
                found.setdefault(os.path.realpath(path), os.stat(path).st_mtime)
            except OSError:
                continue
            if len(found) >= _MOST_FILES:
                break
        return sorted(found, key=lambda path: (found[path], path))

    def _named(self) -> Iterator[str]:
        for path in glob.iglob(self._pattern, recursive=True):
            if os.path.isdir(path) and self._kind.within:
                folder = glob.escape(path)
                for pattern in self._kind.within:
                    yield from glob.iglob(os.path.join(folder, pattern), recursive=True)
            else:
                yield path
        folder = os.path.dirname(self._pattern)
        for pattern in self._kind.beside:
            yield from glob.iglob(os.path.join(folder, pattern), recursive=True)

    def _take(self, row: Row) -> None:
        values = {name: value for name, value in self._selected(row).items() if name != "step"}
        metrics: dict[str, float] = {}
        for name, value in values.items():
            if isinstance(value, str):
                self._unread[name] = value
            else:
                self._unread.pop(name, None)
                metrics[name] = value
        reports = self._reports_of(row, metrics)
        if row.old and not self._reports.resumed:
            # It may go on by itself from a folder of its own, and write its history again.
            self._held += reports
            return
        self._reported = self._reported or bool(reports)
        self._reports.write(reports)

    def _reports_of(self, row: Row, metrics: Mapping[str, float]) -> list[Report]:
        """The reports of a row; none of an old one that was trained before our checkpoint."""
        known = row.old and self._reports.resumed
        if row.result:
            return self._reports.result(metrics)
        if not self._step:
            return [] if known else self._reports.counted(metrics, self._counts)
        if self._step not in row.fields:
            return []
        raw = row.fields[self._step]
        step = parse_step(raw) if isinstance(raw, str) else whole_step(raw)
        if step is None:
            self._unread_step = str(raw)
            return []
        return (
            [] if known and not self._reports.is_beyond_start(step) else self._reports.placed(step, metrics)
        )

    def _selected(self, row: Row) -> Mapping[str, float | str]:
        """What is wanted of a row, by our names."""
        if not self._spec.values:
            return {
                name: value
                for name, value in row.fields.items()
                if name != self._step and name and not isinstance(value, str)
            }
        found: dict[str, float | str] = {}
        for ours, theirs in self._spec.values.items():
            value = row.fields.get(theirs, row.fields.get(theirs.replace("/", ".")))
            if value is not None:
                found[ours] = value
        return found

    # ------------------------------------------------------------------ for a metric that never came

    def problem(self, metric: str) -> str:
        """Why the metric has no value although it stands there; empty if unknown."""
        if metric not in self._unread:
            return ""
        text = self._unread[metric]
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        return f"metric {metric!r} is in {self._shown()}, but as {shown!r}, which is not a number"

    def seen(self, metric: str) -> str:
        """What was found instead of the metric."""
        for path, problem in self._problems.items():
            return f"{path} {problem}" if not problem.startswith(path) else problem
        if not self._sources:
            what = "nothing matches" if glob.has_magic(self._spec.file) else "there is no file"
            return f"{what} {self._shown()}"
        if not self._changed and not any(source.names for source in self._sources.values()):
            return f"{self._shown()} has no {self._kind.noun} yet"
        sources = (*self._sources.values(), *self._summaries.values())
        names = dict.fromkeys(name for source in sources for name in source.names)
        wanted = self._spec.values.get(metric, metric)
        found = f"the {self._kind.noun} of {self._shown()} are {_listed(names)}"
        if self._unread_step:
            wrong = f"its step {self._step!r} was {self._unread_step!r}"
            return f"{found}; {wrong}, which is no whole number from 0 on; `step: {ROWS}` counts rows"
        if self._step and self._step not in names and self._kind.step != self._step:
            return f"{found}, without the step {self._step!r}"
        if not self._changed:
            return f"{self._shown()} has not changed since this attempt began"
        near = near_name(wanted, names) if wanted not in names else ""
        return f"{found}; did you mean {near!r}?" if near else found

    def _shown(self) -> str:
        """The file, or the pattern as it was filled."""
        if len(self._sources) == 1:
            return next(iter(self._sources))
        return re.sub(r"\[([*?[])\]", r"\1", self._pattern)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(repr(name[:_SHOWN]) for name in list(names)[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown
