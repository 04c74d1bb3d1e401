"""One trial in `status --watch`: what `explain` says, its curve, the end of its log, commands to copy."""

from __future__ import annotations

import os
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.text import Text

from hpcsweep.cli.colours import BAD
from hpcsweep.cli.panels import labelled, plain
from hpcsweep.cli.rung_bars import Glyphs, sparkline
from hpcsweep.cli.screen import Room
from hpcsweep.cli.terminal import sanitize
from hpcsweep.cli.trial import explanation_lines
from hpcsweep.core.models import Trial
from hpcsweep.core.objectives import Objective
from hpcsweep.core.text import sanitize_lines, shell_quote
from hpcsweep.errors import HpcsweepError
from hpcsweep.store.files import open_regular
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.run_files import metrics_files, read_reports
from hpcsweep.views.explain import explain
from hpcsweep.views.folder import AttemptLog, LogReader, ResultsFolder, attempt_logs
from hpcsweep.views.format import number
from hpcsweep.views.snapshot import StatusSnapshot

#: What is said of others, and follows from the whole journal, is so old at most.
OLDEST_S: Final = 30.0
#: The end of a log that is read, and its lines that are shown.
_TAIL_BYTES: Final = 1 << 16
_TAIL_LINES: Final = 200


class _Story(NamedTuple):
    """What the journal says of a trial, when it was like that; `log` is that of its newest attempt."""

    runs: tuple[object, ...]
    at: float
    lines: Sequence[str]
    log: AttemptLog | None
    logs: LogReader | None
    problem: str = ""


class TrialReader:
    """Reads what is known of a trial, and the journal for that no more often than it has to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._layout = Layout(path.resolve())
        self._stories: dict[int, _Story] = {}
        self._drawn: tuple[object, list[Text]] = (None, [])

    def lines(self, trial: int, view: StatusSnapshot, room: Room) -> list[Text]:
        """All lines about it; files are read once for each view of the sweep."""
        shown = trial, view.at, room.width, room.glyphs
        if self._drawn[0] != shown:
            self._drawn = shown, self._lines(trial, view, room)
        return [line.copy() for line in self._drawn[1]]

    def _lines(self, trial: int, view: StatusSnapshot, room: Room) -> list[Text]:
        state = view.progress.state
        of = state.trials[trial]
        story = self._story(of)
        lines = [part for line in story.lines for part in _wrapped(line, room.width)]
        if story.problem:
            lines += [plain(story.problem, BAD)]
        curves = [(each.metric, self._curve(of, index, each)) for index, each in enumerate(state.objectives)]
        shown = [
            _curve_line(points, metric, room.width, room.glyphs)
            for metric, points in curves
            if len(points) > 1
        ]
        lines += [Text(), *shown] if shown else []
        folder = shell_quote(str(self._path))
        lines.append(Text())
        for what in (f"logs {folder} {trial}", f"best {folder} --rerun --trial {trial}"):
            lines += _wrapped(f"  hpcsweep {what}", room.width)
        log = list(self._log(story))
        if log:
            lines += [Text(), plain(f"The end of its log, rung {of.runs[-1].rung}", "bold")]
        return lines + [plain(line) for line in log]

    def _story(self, trial: Trial) -> _Story:
        runs = tuple(
            (run.status, run.submissions, run.batch, run.value, run.last_counted) for run in trial.runs
        )
        story = self._stories.get(trial.trial)
        if story is None or story.runs != runs or time.monotonic() - story.at >= OLDEST_S:
            story = self._read(trial.trial, runs)
            self._stories = {trial.trial: story}
        return story

    def _read(self, trial: int, runs: tuple[object, ...]) -> _Story:
        now = time.monotonic()
        try:
            folder = ResultsFolder(self._path)
            told = explanation_lines(explain(folder.events, folder.state, trial))
        except (HpcsweepError, OSError) as error:
            return _Story(runs, now, [f"trial {trial}"], None, None, str(error))
        try:
            log = attempt_logs(folder.events, folder.layout, trial)[-1]
        except HpcsweepError:  # nothing of it was submitted yet
            return _Story(runs, now, told, None, None)
        return _Story(runs, now, told, log, LogReader(folder.layout, folder.events))

    def _curve(self, trial: Trial, index: int, of: Objective) -> list[tuple[int, float]]:
        """Step and value: at the end of its rungs, and wherever reports are not compacted yet."""
        values = {
            run.achieved_resource: run.values[index] if index else run.value
            for run in trial.runs
            if run.value is not None
        }
        for file in metrics_files(self._layout.trial(trial.trial), Skipped()):
            try:
                reports = [(report.step, report.metrics.get(of.metric)) for report in read_reports(file.path)]
            except OSError:
                continue
            values |= {step: value for step, value in reports if value is not None and value == value}
        return sorted(values.items())

    def _log(self, story: _Story) -> Iterator[str]:
        """The last lines of its newest log."""
        if story.log is None or story.logs is None:
            return
        try:
            data = _tail(story.log.path)
            if data is None:
                data = story.logs.read(story.log)[1] or b""
        except (HpcsweepError, OSError) as error:
            yield f"{story.log.path}: cannot be read: {error}"
            return
        text = data[-_TAIL_BYTES:].decode(errors="replace")
        text = re.sub(r"\x1b\[[0-9;:]*[mK]", "", text.replace("\r\n", "\n"))
        for line in text.rstrip("\n").split("\n")[-_TAIL_LINES:] if text else ():
            yield sanitize_lines(line.rstrip("\r").rpartition("\r")[2])  # of a progress bar, its last state


def _tail(path: Path) -> bytes | None:
    """The end of a file; None if there is none."""
    try:
        with open(open_regular(path), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return None


def _wrapped(line: str, width: int) -> list[Text]:
    """The line in as many as it takes, further in than its beginning."""
    text = sanitize(line)
    inset = " " * (len(text) - len(text.lstrip()) + 4)
    parts = textwrap.wrap(text, max(20, width), subsequent_indent=inset, break_on_hyphens=False)
    return [Text(part) for part in parts or [""]]


def _curve_line(points: Sequence[tuple[int, float]], metric: str, width: int, glyphs: Glyphs) -> Text:
    (first, begun), (last, newest) = points[0], points[-1]
    line = labelled("curve", "").text
    words = plain(f"  {metric} {number(begun)} at step {first}, {number(newest)} at step {last}")
    room = min(60, width - line.cell_len - words.cell_len)
    if room >= 8:
        history = [(float(step), value) for step, value in points]
        before = (last - first) / (room - 1) * (1 - 1e-9)  # the first column is of the first step
        line.append(sparkline(history, first - before, float(last), width=room, levels=glyphs.levels))
    return line.append_text(words)
