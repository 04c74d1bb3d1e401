"""What `launch` shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import typer

from hpcsweep.cli.sanitize import raw, sanitize
from hpcsweep.core.cluster_protocol import Phase
from hpcsweep.core.events import AnyEvent, RunFinished, RunRetried
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.text import plural
from hpcsweep.views.format import (
    best_text,
    bracket_text,
    config_text,
    cost,
    runs_text,
    warning_lines,
)
from hpcsweep.views.progress import RungCounts, journal_counts

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from hpcsweep.driver import Driver

#: Seconds between two plain lines at least.
LOG_INTERVAL_S = 2.0
#: Newest brackets that are shown although all their runs have ended.
NEWEST_SHOWN = 8


class Progress(Protocol):
    """Receives every event, and the driver after each tick."""

    def event(self, event: AnyEvent) -> None: ...
    def tick(self, driver: Driver) -> None: ...

    def restart(self) -> None:
        """All events will come again."""
        ...


class Quiet:
    """Shows nothing."""

    def event(self, event: AnyEvent) -> None:
        """Nothing to show."""

    def tick(self, driver: Driver) -> None:
        """Nothing to show."""

    def restart(self) -> None:
        """Nothing to show."""


class LogDisplay:
    """A line for each change, and one for each new warning; for logs and pipes."""

    def __init__(self) -> None:
        self._counts = RungCounts()
        self._changed = False
        self._failure: RunFinished | None = None
        self._next = 0.0
        self._warnings: list[str] = []

    def restart(self) -> None:
        self._counts, self._failure = RungCounts(), None

    def event(self, event: AnyEvent) -> None:
        self._counts.apply(event)
        self._changed = True
        if isinstance(event, RunFinished) and event.value is None:
            self._failure = event

    def tick(self, driver: Driver) -> None:
        ended = driver.state.ended is not None
        known = self._warnings
        self._warnings = [*warning_lines(driver.state, now=time.time()), *driver.skipped_files]
        for warning in self._warnings:
            if warning not in known:
                typer.echo(sanitize(f"[{time.strftime('%H:%M:%S')}] {warning}"))
        if not self._changed or (time.monotonic() < self._next and not ended):
            return
        self._changed = False
        self._next = time.monotonic() + LOG_INTERVAL_S
        open_rungs = "  ".join(
            f"bracket {bracket}: " + bracket_text(counts)
            for bracket, counts in self._counts.current().items()
        )
        parts = [
            runs_text(journal_counts(driver.state)),
            f"best {best_text(driver.state)}",
            cost(driver.state),
            open_rungs,
        ]
        if self._failure is not None:
            failure, self._failure = self._failure, None
            parts.append(_failure(failure))
        line = " | ".join(part for part in parts if part)
        typer.echo(sanitize(f"[{time.strftime('%H:%M:%S')}] {line}"))


class LiveDisplay:
    """A table of brackets and rungs, refreshed after each tick."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._counts = RungCounts()
        self._failures: list[RunFinished] = []

    def restart(self) -> None:
        self._counts, self._failures = RungCounts(), []

    def event(self, event: AnyEvent) -> None:
        self._counts.apply(event)
        if isinstance(event, RunFinished) and event.value is None:
            self._failures = [*self._failures[-2:], event]
        elif isinstance(event, RunRetried):
            self._failures = [run for run in self._failures if run.trial != event.trial]

    def tick(self, driver: Driver) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        state = driver.state
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("bracket", justify="right")
        table.add_column("rungs (runs x resource)")
        for bracket, counts in self._counts.current(newest=NEWEST_SHOWN).items():
            table.add_row(str(bracket), bracket_text(counts))
        phases = driver.phases
        under_way = f"{phases[Phase.RUNNING]} running, {phases[Phase.PENDING]} pending"
        lines: list[RenderableType] = [
            table,
            Text(f"{plural(state.counts[RunStatus.COMPLETED], 'run')} completed, {under_way}, {cost(state)}"),
            Text(sanitize(f"best {best_text(state)}"), style="bold"),
        ]
        if state.best is not None:
            lines.append(Text(sanitize(config_text(state.best.config))))
        warnings = [*warning_lines(state, now=time.time()), *driver.skipped_files]
        lines += [Text(sanitize(warning), style="yellow") for warning in warnings]
        lines += [Text(sanitize(_failure(run)), style="red") for run in self._failures]
        self._live.update(Group(*lines))


def _failure(run: RunFinished) -> str:
    return f"trial {run.trial} {FACTS[run.failure_kind or run.outcome].label}: {run.message}"


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """The display that fits where standard output goes."""
    if quiet:
        yield Quiet()
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=raw(sys.stdout)), refresh_per_second=4) as live:
            yield LiveDisplay(live)
    else:
        yield LogDisplay()
